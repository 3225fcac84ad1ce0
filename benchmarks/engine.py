"""Measure the engine of a generated project beside plain Celery, in one run of three minutes.

    uv run python benchmarks/engine.py            # prints the tables
    uv run python benchmarks/engine.py --write    # and keeps them in benchmarks/results/

Plain Celery is set up as Flask's documentation does it, with late acknowledgement, one message at
a time, and results. Both sides take turns, on one Redis, and each figure is the median.

- Work: so many tasks that do nothing wait; then the workers start, and the time counts from a
  tenth of the tasks to the last one. Trips are what Redis read from its connections for a task.
- Sending: ``celery.submit`` of a function beside ``delay`` of a task.
- Memory: ``flask celery cluster`` beside ``celery worker`` and ``celery beat``, idle, as the
  proportional set size (PSS) of all their processes.

Absolute figures differ from machine to machine; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "engine.md"
PACKAGE = support.DEFAULT_SLUG
TASKS = 1500
ROUNDS = 3
PRODUCTION = ".venv-production"
IDLE = 8.0  # seconds until memory is read

OURS = """
import os
from flask import Flask
from flask_background import FlaskCelery
celery = FlaskCelery()
QUEUE = "bench_app:default"
def work(number):
    return number
def send(number):
    celery.submit(work, number)
def create_app():
    app = Flask(__name__)
    app.config.update(REDIS_URL=os.environ["REDIS_URL"], SECRET_KEY="of the benchmark")
    app.config["CELERY_LOG_LEVEL"] = "error"
    app.config["CELERY_WORKERS"] = {"main": {"concurrency": int(os.environ.get("PLACES", "1"))}}
    celery.init_app(app)
    return app
def connect():
    create_app().app_context().push()
"""

#: https://flask.palletsprojects.com/en/stable/patterns/celery/
PLAIN = """
import os
from celery import Celery, Task, shared_task
from flask import Flask
QUEUE = "celery"
app = Flask(__name__)
class FlaskTask(Task):
    def __call__(self, *args, **kwargs):
        with app.app_context():
            return self.run(*args, **kwargs)
celery_app = Celery(app.name, task_cls=FlaskTask)
celery_app.config_from_object(dict(
    broker_url=os.environ["REDIS_URL"],
    result_backend=os.environ["REDIS_URL"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
))
celery_app.set_default()
@shared_task
def work(number):
    return number
def send(number):
    work.delay(number)
def connect():
    pass
"""

#: Runs in the project: sends tasks, or waits until all have been taken, and says how it went.
PROBE = """
import importlib, json, os, sys, time
from redis import Redis
app = importlib.import_module(sys.argv[1])
tasks = int(sys.argv[2])
redis = Redis.from_url(os.environ["REDIS_URL"])
def reads():
    return redis.info("stats")["total_reads_processed"]
if sys.argv[3] == "send":
    redis.flushall()
    app.connect()
    app.send(-1)
    before, start = reads(), time.perf_counter()
    for number in range(tasks):
        app.send(number)
    seconds, looks = time.perf_counter() - start, 1
else:
    while redis.llen(app.QUEUE) > tasks * 0.9:
        time.sleep(0.001)
    before, start, looks = reads(), time.perf_counter(), 1
    tasks = redis.llen(app.QUEUE)
    while redis.llen(app.QUEUE):
        looks += 1
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    looks += 2
print(json.dumps({"rate": tasks / seconds, "trips": (reads() - before - looks) / tasks}))
"""

#: Runs in the project: waits until a worker waits for tasks.
WAIT = """
import os, time
from redis import Redis
redis = Redis.from_url(os.environ["REDIS_URL"])
while not any(client["cmd"] == "brpop" for client in redis.client_list()):
    time.sleep(0.1)
"""


def main() -> None:
    """Measure, print the tables, and keep them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "template"
        template.mkdir()
        project = support.render(support.copy_template(template), folder / "out", {})
        support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
        # Memory is read as in production: compiled, and without what only development needs.
        support.succeed(
            *("uv", "sync", "--quiet", "--locked", "--no-dev"),
            cwd=project,
            UV_PROJECT_ENVIRONMENT=PRODUCTION,
            UV_COMPILE_BYTECODE="1",
        )
        (project / "bench_app.py").write_text(OURS)
        (project / "plain_app.py").write_text(PLAIN)
        with redis_server(project) as url:
            table = "\n".join([*speed(project, url), "", *memory(project, url)])
    print(table)
    if arguments.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(f"# The engine beside plain Celery\n\n{table}\n")


def speed(project: Path, url: str) -> Iterator[str]:
    """Compare how fast tasks are sent and done, and how often Redis is asked for one."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for places in ("1", "2"):
            for app in ("plain_app", "bench_app"):
                environment = {
                    "REDIS_URL": url,
                    "FLASK_APP": app,
                    "PYTHONPATH": str(project),
                    "PLACES": places,
                }
                sent = probe(project, environment, app, "send")
                found.setdefault(("sent", app), []).append(sent)
                with running(project, environment, worker_command(app, places)):
                    done = probe(project, environment, app, "work")
                found.setdefault((places, app), []).append(done)
    yield "| median | plain Celery | ours | ratio | trips, plain | trips, ours |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for key, what in (
        ("1", "tasks done a second, 1 place"),
        ("2", "tasks done a second, 2 places"),
        ("sent", "tasks sent a second"),
    ):
        plain, ours, plain_trips, our_trips = (
            statistics.median(one[figure] for one in found[key, app])
            for figure in ("rate", "trips")
            for app in ("plain_app", "bench_app")
        )
        yield (
            f"| {what} | {plain:.0f} | {ours:.0f} | {ours / plain:.2f} "
            f"| {plain_trips:.1f} | {our_trips:.1f} |"
        )


def worker_command(app: str, places: str) -> list[str]:
    """Spell the start of the workers of one side."""
    if app == "bench_app":
        return ["-m", "flask", "celery", "cluster", "--no-scheduler"]
    return ["-m", "celery", "-A", "plain_app:celery_app", "worker", "-c", places, "-l", "error"]


def probe(project: Path, environment: dict[str, str], app: str, mode: str) -> dict[str, float]:
    """Run the probe in the project's own Python."""
    command = (python(project), "-c", PROBE, app, str(TASKS), mode)
    output = support.succeed(*command, cwd=project, **environment)
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def memory(project: Path, url: str) -> Iterator[str]:
    """Compare the cluster with a worker and beat that are started apart."""
    environment = {
        "FLASK_APP": PACKAGE,
        "FLASK_CONFIG": "production",
        "FLASK_SKIP_DOTENV": "1",
        "REDIS_URL": url,
        "SECRET_KEY": secrets.token_urlsafe(32),
        "API_TOKEN": secrets.token_urlsafe(32),
    }
    apart = ["-m", "celery", "-A", f"{PACKAGE}.celery_app"]

    def settle() -> None:
        support.succeed(python(project), "-c", WAIT, cwd=project, REDIS_URL=url)
        time.sleep(IDLE)

    with (
        running(project, environment, [*apart, "worker", "-c", "1"], PRODUCTION) as worker,
        running(project, environment, [*apart, "beat"], PRODUCTION) as beat,
    ):
        settle()
        separate = pss(worker.pid) + pss(beat.pid)
    with running(project, environment, ["-m", "flask", "celery", "cluster"], PRODUCTION) as cluster:
        settle()
        together = pss(cluster.pid)
    yield "| idle, MiB (PSS) | `celery worker`, `celery beat` | `flask celery cluster` | ratio |"
    yield "| --- | --- | --- | --- |"
    yield (
        f"| one place, scheduler | {separate:.0f} | {together:.0f} | {together / separate:.2f} |"
    )


@contextmanager
def redis_server(project: Path) -> Iterator[str]:
    """Run the project's own embedded Redis for the time of the measurement."""
    code = (
        "import sys; from pathlib import Path\n"
        "from devtools.dev.redis_server import EmbeddedRedis\n"
        "with EmbeddedRedis(Path('instance/bench')) as redis:\n"
        "    print(redis.url, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [python(project), "-c", code],
        cwd=project,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        yield process.stdout.readline().strip()
        process.stdin.close()


@contextmanager
def running(
    project: Path,
    environment: dict[str, str],
    arguments: list[str],
    venv: str = ".venv",
    **options: Any,
) -> Iterator[subprocess.Popen[Any]]:
    """Run the project's Python with ``arguments`` for the time of the measurement."""
    process = subprocess.Popen(
        [python(project, venv), *arguments],
        cwd=project,
        env={**os.environ, **environment},
        **{"stdout": subprocess.DEVNULL, **options},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def python(project: Path, venv: str = ".venv") -> str:
    """Name the Python of one of the project's environments."""
    return str(project / venv / "bin" / "python")


def pss(pid: int) -> float:
    """Add up the proportional set size of a process and its descendants, in MiB (Linux)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(pss(int(child)) for child in children)


if __name__ == "__main__":
    main()
