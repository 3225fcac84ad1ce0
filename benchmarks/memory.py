"""Measure what a steady load leaves in memory: 100,000 tasks whose results are kept and expire.

    uv run python benchmarks/memory.py            # prints the table and the curve, for 10 minutes
    uv run python benchmarks/memory.py --write    # and keeps them in benchmarks/results/

The project runs with its production settings and its own `flask celery cluster`. Only one setting
differs: results are kept for a minute, the least that is allowed, instead of an hour, so that they
expire many times within the run. Every hundredth task fails. Then plain Celery, set up as Flask's
documentation does it, gets a tenth of the tasks; it keeps results for a day.

The exit code is 1 when Redis or a process of the worker holds more than 1.5 times as much at the
end as after a third of the tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402
from engine import python, redis_server  # noqa: E402
from faults.stack import children  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "memory.md"
PACKAGE = support.DEFAULT_SLUG
TASKS = 100_000
RATE = 250  # tasks a second
SAMPLES = 20
KEPT = 60  # seconds that results are kept
MOST = 1.5  # times what was held after a third
WIDTH = 50  # characters of the longest bar

OURS = f"""
from {PACKAGE} import create_app as create_project
from {PACKAGE}.extensions import celery
def work(number):
    if number % 100 == 99:
        raise ValueError(f"Number {{number}} is one of those that fail.")
    return {{"number": number, "text": "what a short answer to a caller looks like"}}
def create_app():
    return create_project(overrides={{"CELERY_SUBMIT_PACKAGES": [__name__]}})
def connect():
    create_app().app_context().push()
    return celery.redis
def send(number):
    celery.submit(work, number)
def waiting(client):
    return sum(celery.queue_lengths().values())
def ended(client):
    return sum(sum(task.ended.values()) for task in celery.task_statistics())
def worker():
    return celery.heartbeats()[0].pid
"""

#: https://flask.palletsprojects.com/en/stable/patterns/celery/
PLAIN = """
import os
from celery import Celery, Task, shared_task
from flask import Flask
from redis import Redis
def celery_init_app(app):
    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)
    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app
@shared_task(ignore_result=False)
def work(number):
    if number % 100 == 99:
        raise ValueError(f"Number {number} is one of those that fail.")
    return {"number": number, "text": "what a short answer to a caller looks like"}
url = os.environ["REDIS_URL"]
app = Flask(__name__)
app.config["CELERY"] = dict(broker_url=url, result_backend=url, task_ignore_result=True)
celery_app = celery_init_app(app)
def connect():
    return Redis.from_url(url)
def send(number):
    work.delay(number)
def waiting(client):
    return client.llen("celery")
def ended(client):
    return sum(1 for _ in client.scan_iter("celery-task-meta-*", 1000))
def worker():
    return None
"""

#: Runs in the project: sends tasks at a steady rate, and prints how things are now and then.
LOAD = """
import importlib, json, sys, time
app = importlib.import_module(sys.argv[1])
tasks, rate, samples = map(int, sys.argv[2:])
PAUSE = 0.2
MOST_WAITING = rate * 2
client = app.connect()
def say(done):
    memory = client.info()
    print(json.dumps({
        "ended": done,
        "used": memory["used_memory"] - memory["used_memory_startup"],
        "keys": client.dbsize(),
        "waiting": app.waiting(client),
        "redis": memory["process_id"],
        "worker": app.worker(),
    }), flush=True)
app.send(0)
while not app.ended(client):
    time.sleep(0.1)
say(1)
sent, following, turn = 1, tasks // samples // 2, time.monotonic()
while (done := app.ended(client)) < tasks:
    if done >= following:
        say(done)
        following += tasks // samples
    if sent < tasks and app.waiting(client) < MOST_WAITING:
        for _ in range(min(round(rate * PAUSE), tasks - sent)):
            app.send(sent)
            sent += 1
    turn = max(turn + PAUSE, time.monotonic() - PAUSE)
    time.sleep(max(0, turn - time.monotonic()))
say(done)
time.sleep(60)  # it is ended when it has been measured
"""


@dataclass(frozen=True)
class Sample:
    """How things were when so many tasks had ended; all but the counts in MiB."""

    ended: int
    keys: int
    waiting: int
    used: float
    redis: float
    worker: float
    child: float
    sender: float


def main() -> None:
    """Measure, print, keep it if asked to, and judge it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"how many (default: {TASKS})")
    parser.add_argument("--rate", type=int, default=RATE, help=f"a second (default: {RATE})")
    arguments = parser.parse_args()
    tasks, rate = arguments.tasks, arguments.rate
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "template").mkdir()
        template = support.copy_template(folder / "template")
        project = support.render(template, folder / "out", {})
        support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
        (project / "bench_app.py").write_text(OURS)
        (project / "plain_app.py").write_text(PLAIN)
        cluster = ["-m", "flask", "celery", "cluster"]
        ours = list(measure(project, "bench_app", cluster, tasks, rate, SAMPLES))
        worker = ["-m", "celery", "-A", "plain_app:celery_app", "worker", "-c", "1"]
        plain = list(measure(project, "plain_app", worker, tasks // 10, rate, SAMPLES // 4))
    faults = list(unbounded(ours))
    text = "\n".join(report(ours, plain, rate))
    print(text)
    if arguments.write:
        RESULTS.write_text(f"# Memory under a steady load\n\n{text}\n")
    sys.exit("\n".join(faults) or None)


def measure(
    project: Path, app: str, command: list[str], tasks: int, rate: int, samples: int
) -> Iterator[Sample]:
    """Run workers on an empty Redis, send tasks, and yield samples."""
    shutil.rmtree(project / "instance", ignore_errors=True)
    with redis_server(project) as url:
        environment = {
            "FLASK_APP": app,
            "FLASK_CONFIG": "production",
            "FLASK_SKIP_DOTENV": "1",
            "PYTHONPATH": str(project),
            "REDIS_URL": url,
            "SECRET_KEY": secrets.token_urlsafe(32),
            "API_TOKEN": secrets.token_urlsafe(32),
            "CELERY_RESULT_EXPIRES": str(KEPT),
        }
        load = ["-c", LOAD, app, str(tasks), str(rate), str(samples)]
        with (
            started(project, environment, command) as workers,
            started(project, environment, load, subprocess.PIPE) as sender,
        ):
            assert sender.stdout
            for line in sender.stdout:
                sample = read_sample(json.loads(line), workers.pid, sender.pid)
                yield sample
                if sample.ended >= tasks:
                    return
            sys.exit("The tasks could not be sent.")


@contextmanager
def started(
    project: Path,
    environment: dict[str, str],
    arguments: list[str],
    output: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    """Run the project's Python for a while. Workers write a line for each task: nobody reads it."""
    process = subprocess.Popen(
        [python(project), *arguments],
        cwd=project,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output == subprocess.PIPE else output,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def read_sample(said: dict[str, int], started: int, sender: int) -> Sample:
    """Add to what the sender said how large the processes are."""
    worker = said["worker"] or started
    return Sample(
        ended=said["ended"],
        keys=said["keys"],
        waiting=said["waiting"],
        used=said["used"] / 2**20,
        redis=rss(said["redis"]),
        worker=rss(worker),
        child=max(map(rss, children(worker)), default=0.0),
        sender=rss(sender),
    )


def rss(pid: int) -> float:
    """Read the resident memory of a process, in MiB (Linux); 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(x.split()[1]) / 1024 for x in status.splitlines() if x[:6] == "VmRSS:"), 0.0)


def unbounded(samples: list[Sample]) -> Iterator[str]:
    """Say what has grown between a third of the way and the end."""
    for what in ("used", "redis", "worker", "child", "sender"):
        third, end = (
            next(size for sample in part if (size := getattr(sample, what)))
            for part in (samples[len(samples) // 3 :], reversed(samples))
        )
        if end > MOST * third:
            yield f"{what} grew from {third:.1f} to {end:.1f} MiB: not bounded."


def report(ours: list[Sample], plain: list[Sample], rate: int) -> Iterator[str]:
    """Put it in words, a table and a curve."""
    tasks, last = ours[-1].ended, plain[-1]
    yield f"{tasks:,} tasks at {rate} a second with production settings, but for results, which are"
    yield f"kept for {KEPT} s instead of an hour, so that they expire many times within the run."
    yield "Redis' data is `used_memory` without what an empty server uses. Where there are fewer"
    yield "keys, the machine was busy, and fewer tasks ended within that minute."
    yield ""
    yield from table(ours)
    yield ""
    yield "Redis' data, MiB:"
    yield ""
    yield "```"
    yield from curve(ours)
    yield "```"
    yield ""
    each = bytes_per_key(ours[0], ours[len(ours) // 3 :])
    yield f"A kept result of a small task takes {each:,.0f} bytes, all that belongs to it included."
    yield "So with the default of an hour Redis holds:"
    yield ""
    yield "| tasks an hour | MiB |"
    yield "| --- | --- |"
    for hourly in (1_000, 10_000, 100_000, rate * 3600):
        yield f"| {hourly:,} | {hourly * each / 2**20:,.1f} |"
    yield ""
    grown = bytes_per_key(plain[0], [last])
    yield "Plain Celery as Flask's documentation sets it up, which keeps results for a day:"
    yield f"{last.ended:,} tasks, and each added {grown:,.0f} bytes; at {rate} a second that is"
    yield f"{grown * rate * 86400 / 2**30:,.0f} GiB before the first result expires."
    yield ""
    yield from table(plain)


def bytes_per_key(first: Sample, later: list[Sample]) -> float:
    """Say how much a key takes, from what was added since the first sample."""
    used, keys = (
        sum(getattr(s, what) - getattr(first, what) for s in later) for what in ("used", "keys")
    )
    return float(used / keys * 2**20)


def table(samples: Iterable[Sample]) -> Iterator[str]:
    """Write samples as a table."""
    yield (
        "| tasks ended | keys | waiting | Redis' data, MiB "
        "| RSS, MiB: Redis | worker | its child | sender |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for s in samples:
        child = f"{s.child:.1f}" if s.child else "is replaced"
        yield (
            f"| {s.ended:,} | {s.keys:,} | {s.waiting:,} | {s.used:.1f} "
            f"| {s.redis:.1f} | {s.worker:.1f} | {child} | {s.sender:.1f} |"
        )


def curve(samples: list[Sample]) -> Iterator[str]:
    """Draw the memory of Redis' data, one bar for each sample."""
    most = max(s.used for s in samples)
    for s in samples:
        yield f"{s.ended:>7,} {'#' * round(WIDTH * s.used / most)} {s.used:.1f}"


if __name__ == "__main__":
    main()
