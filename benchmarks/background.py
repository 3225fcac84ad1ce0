"""Measure the background layer of a generated project beside plain Celery, in one run.

    uv run python benchmarks/background.py            # prints the table
    uv run python benchmarks/background.py --write    # and keeps it in benchmarks/results/

Speed: ``submit`` of a function beside ``delay`` of a registered task, in turns, with one worker
that has one pool child. Memory: ``flask celery cluster`` beside ``celery worker`` and ``celery
beat`` started apart, idle, as the proportional set size (PSS) of all their processes.
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

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "background.md"
PACKAGE = support.DEFAULT_SLUG
TASKS = 1000
ROUNDS = 4
PRODUCTION = ".venv-production"
IDLE = 8.0  # seconds until memory is read

#: Runs in the project: it takes turns between the two ways, and prints what it measured as JSON.
PROBE = """
import json, statistics, sys, time
from bench_app import create_app, celery, plus, registered
tasks, rounds, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
create_app()
WAYS = {
    "delay": lambda: registered.delay(1, 2),
    "submit": lambda: celery.submit(plus, 1, 2),
}
found = {way: {"rate": [], "latency": []} for way in WAYS}
for _ in range(rounds):
    for way, send in WAYS.items():
        if mode == "enqueue":
            start = time.perf_counter()
            for _ in range(tasks):
                send()
            found[way]["rate"].append(tasks / (time.perf_counter() - start))
            celery.control.purge()
        elif mode == "finish":
            start = time.perf_counter()
            ids = [send().id for _ in range(tasks)]
            while not celery.task_info(ids[-1]).done:
                time.sleep(0.002)
            found[way]["rate"].append(tasks / (time.perf_counter() - start))
        else:
            for _ in range(tasks // 10):
                start = time.perf_counter()
                celery.get(send().id).result(30)
                found[way]["latency"].append(1000 * (time.perf_counter() - start))
print(json.dumps(found))
"""

APP = f"""
import os
from flask import Flask
from {PACKAGE}.background import FlaskCelery
celery = FlaskCelery()
def plus(x, y):
    return x + y
@celery.task
def registered(x, y):
    return x + y
def create_app():
    app = Flask(__name__)
    app.config["REDIS_URL"] = os.environ["REDIS_URL"]
    app.config["CELERY_LOG_LEVEL"] = "error"
    celery.init_app(app)
    return app
"""


def main() -> None:
    """Measure, print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "template"
        template.mkdir()
        project = support.render(support.copy_template(template), folder / "out", {})
        support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
        # Memory is read without what only development needs.
        support.succeed(
            *("uv", "sync", "--quiet", "--locked", "--no-dev"),
            cwd=project,
            UV_PROJECT_ENVIRONMENT=PRODUCTION,
        )
        (project / "bench_app.py").write_text(APP)
        with redis_server(project) as url:
            table = "\n".join([*speed(project, url), "", *memory(project, url)])
    print(table)
    if arguments.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(f"# The background layer beside plain Celery\n\n{table}\n")


def speed(project: Path, url: str) -> list[str]:
    """Compare ``submit`` with ``delay``."""
    environment = {"REDIS_URL": url, "FLASK_APP": "bench_app", "PYTHONPATH": str(project)}
    enqueue = probe(project, environment, "enqueue")
    command = ["-m", "flask", "celery", "cluster", "--no-scheduler"]
    with running(project, environment, command):
        finish = probe(project, environment, "finish")
        round_trip = probe(project, environment, "round trip")
    lines = ["| | `task.delay` | `celery.submit` | ratio |", "| --- | --- | --- | --- |"]
    for what, found in (("calls a second", enqueue), ("tasks finished a second", finish)):
        delay, submit = (statistics.median(found[way]["rate"]) for way in ("delay", "submit"))
        lines.append(f"| {what} | {delay:.0f} | {submit:.0f} | {submit / delay:.2f} |")
    for what, share in (("p50", 0.5), ("p99", 0.99)):
        delay, submit = (
            sorted(round_trip[way]["latency"])[int(share * len(round_trip[way]["latency"]))]
            for way in ("delay", "submit")
        )
        lines.append(
            f"| round trip {what}, ms | {delay:.2f} | {submit:.2f} | {submit / delay:.2f} |"
        )
    return lines


def probe(
    project: Path, environment: dict[str, str], mode: str
) -> dict[str, dict[str, list[float]]]:
    """Run the probe in the project's own Python."""
    command = (python(project), "-c", PROBE, str(TASKS), str(ROUNDS), mode)
    output = support.succeed(*command, cwd=project, **environment)
    found: dict[str, dict[str, list[float]]] = json.loads(output.splitlines()[-1])
    return found


def memory(project: Path, url: str) -> list[str]:
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
    with (
        running(project, environment, [*apart, "worker", "-c", "1"], PRODUCTION) as worker,
        running(project, environment, [*apart, "beat"], PRODUCTION) as beat,
    ):
        time.sleep(IDLE)
        separate = pss(worker.pid) + pss(beat.pid)
    with running(project, environment, ["-m", "flask", "celery", "cluster"], PRODUCTION) as cluster:
        time.sleep(IDLE)
        together = pss(cluster.pid)
    return [
        "| idle, MiB (PSS) | `celery worker`, `celery beat` | `flask celery cluster` | ratio |",
        "| --- | --- | --- | --- |",
        f"| one worker, one pool child, scheduler | {separate:.0f} | {together:.0f} "
        f"| {together / separate:.2f} |",
    ]


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
    project: Path, environment: dict[str, str], arguments: list[str], venv: str = ".venv"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the project's Python with ``arguments`` for the time of the measurement."""
    process = subprocess.Popen(
        [python(project, venv), *arguments],
        cwd=project,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
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
