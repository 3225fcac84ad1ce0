"""Measure what one Redis carries: the cost of a task, more machines, many workers at rest.

    uv run python benchmarks/growth.py            # prints the tables, for 6 minutes
    uv run python benchmarks/growth.py --write    # and keeps them in benchmarks/results/

All runs on this machine, with one Redis:

- A machine is a `flask celery cluster` with a host name of its own and ten places. Its tasks wait,
  so that not the processors of this machine decide.
- Many workers are the places of several clusters: real workers, each a process with its
  connections, its heartbeat, and its ear for commands.
- A thousand workers are heartbeats alone, written as workers write them.
- A listener is what a web process has: a thread and a connection that wait for tasks to end.

What Redis spends is its own CPU time (`INFO cpu`); `INFO commandstats` says for which commands.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402
from engine import python, redis_server, running  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "growth.md"
TASKS = 2000
MACHINES = (1, 2, 3)
PLACES = 10  # of a machine whose tasks wait
SECONDS = 0.25  # that a task waits
WORKERS = (10, 50, 200)
AT_ONCE = 50  # workers of one cluster
LISTENERS = 200
HEARTBEATS = 1000

APP = """
import os, time
from flask import Flask
from flask_background import FlaskCelery
celery = FlaskCelery()
def work(number):
    return number
def create_app():
    app = Flask(__name__)
    app.config.update(REDIS_URL=os.environ["REDIS_URL"], SECRET_KEY="of the benchmark")
    app.config["CELERY_LOG_LEVEL"] = "error"
    app.config["CELERY_WORKERS"] = {"main": {"concurrency": int(os.environ.get("PLACES", "1"))}}
    celery.init_app(app)
    return app
"""

#: Runs in the project: each function answers one question, and prints what it found.
PROBE = f"""
import json, sys, threading, time
import growth_app
from flask_background import BrokerUnavailable
from flask_background.sending.listener import ResultListener
from flask_background.state import heartbeats
celery = growth_app.celery
growth_app.create_app().app_context().push()
core, redis = celery, celery.redis

def spent():
    cpu, stats = redis.info("cpu"), redis.info("commandstats")
    stats = {{name.removeprefix("cmdstat_"): it for name, it in stats.items()}}
    calls = {{name: (it["calls"], it["usec"]) for name, it in stats.items()}}
    reads = redis.info("stats")["total_reads_processed"]
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], reads, calls

def between(before, after, tasks):
    commands = {{
        name: [(calls - before[2].get(name, (0, 0))[0]) / tasks,
               (usec - before[2].get(name, (0, 0))[1]) / tasks]
        for name, (calls, usec) in after[2].items()
    }}
    return {{
        "cpu": (after[0] - before[0]) / tasks * 1e6,
        "trips": (after[1] - before[1]) / tasks,
        "commands": {{name: it for name, it in commands.items() if it[1] >= 0.5}},
    }}

def workers(count):
    end = time.monotonic() + 600
    while sum(beat.alive for beat in heartbeats.latest(core)) < count:
        assert time.monotonic() < end, heartbeats.latest(core)
        time.sleep(0.5)

def send(function, count, *arguments):
    sent = []
    while len(sent) < count:
        try:
            sent.append(celery.submit(function, *arguments))
        except BrokerUnavailable:  # this machine has other things to do
            time.sleep(0.5)
    return sent

def waiting():
    return redis.llen(core.keys.prefix + "default")

def cost(tasks):
    send(growth_app.work, 20, 1)[-1].result(timeout=60)
    before = spent()
    futures = send(growth_app.work, tasks, 1)
    while waiting():
        time.sleep(0.5)
    time.sleep(2)
    return between(before, spent(), tasks)

def rate(count, tasks):
    workers(count)
    send(time.sleep, tasks, {SECONDS})
    while waiting() > tasks * 0.9:
        time.sleep(0.002)
    left, began = waiting(), time.perf_counter()
    while waiting():
        time.sleep(0.005)
    return {{"rate": left / (time.perf_counter() - began)}}

def rest(count):
    workers(count)
    time.sleep(5)
    before, start = spent(), time.perf_counter()
    time.sleep(20)
    idle = between(before, spent(), time.perf_counter() - start)
    clients = redis.info("clients")["connected_clients"]
    asked = time.perf_counter()
    answers = celery.control.ping(timeout=10, limit=count)
    pinged = time.perf_counter() - asked
    oldest = max(beat.age for beat in heartbeats.latest(core))
    times = []
    for _ in range(100):
        start = time.perf_counter()
        send(growth_app.work, 1, 1)[0].result(timeout=60)
        times.append(time.perf_counter() - start)
    return {{
        "clients": clients, "cpu": idle["cpu"] / 1e4, "commands": idle["trips"],
        "memory": redis.info("memory")["used_memory"] / 2**20,
        "answers": len(answers), "pinged": pinged, "oldest": oldest,
        "median": sorted(times)[50] * 1000, "p95": sorted(times)[95] * 1000,
    }}

def listeners(count):
    class Waiter:
        def __init__(self, id):
            self.id, self.ended = id, threading.Event()
        def settle(self, meta):
            if meta and meta["status"] == "SUCCESS":
                self.ended.set()
    before = redis.info("clients")["connected_clients"]
    all_of_them = [ResultListener(core) for _ in range(count)]
    last = send(time.sleep, 1, 5)[0]
    waiters = [Waiter(last.id) for _ in all_of_them]
    for listener, waiter in zip(all_of_them, waiters):
        listener.watch(waiter)
    connections = redis.info("clients")["connected_clients"] - before
    waiters[0].ended.wait(60)
    first = time.perf_counter()
    heard = sum(waiter.ended.wait(10) for waiter in waiters)
    return {{"heard": heard, "spread": time.perf_counter() - first, "connections": connections}}

def beats(count):
    said = {{"pid": 1, "queues": ["default"], "active": 1, "processed": 1, "concurrency": 1,
            "tasks": ["0" * 36]}}
    before, start = spent(), time.perf_counter()
    for number in range(count):
        heartbeats.write(core, f"main.{{number}}@machine", said, ["0" * 36])
    one = between(before, spent(), count)
    asked = time.perf_counter()
    before = spent()
    for _ in range(20):
        found = len(heartbeats.latest(core))
    read = between(before, spent(), 20)
    seconds = (time.perf_counter() - asked) / 20
    return {{"beat": one["cpu"], "read": read["cpu"], "seconds": seconds, "found": found}}

print(json.dumps(globals()[sys.argv[1]](*map(int, sys.argv[2:]))))
"""


def main() -> None:
    """Measure, print the tables, and keep them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        template = Path(name) / "template"
        template.mkdir()
        project = support.render(support.copy_template(template), Path(name) / "out", {})
        support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
        (project / "growth_app.py").write_text(APP)
        lines = []
        for part in (cost, machines, workers, heartbeats):
            # Each begins with an empty Redis.
            with redis_server(project) as url:
                for line in part(Growth(project, url)):
                    print(line, flush=True)
                    lines.append(line)
    if arguments.write:
        RESULTS.write_text("# What one Redis carries\n\n" + "\n".join(lines))


class Growth:
    """The project, its Redis, and clusters that work for it."""

    def __init__(self, project: Path, url: str) -> None:
        self.project = project
        self.environment = {
            "REDIS_URL": url,
            "FLASK_APP": "growth_app",
            "PYTHONPATH": str(project),
        }

    def cluster(self, number: int, places: int) -> Any:
        """Run a cluster, under a host name of its own."""
        own = {"CELERY_WORKER_HOST": f"machine{number}", "PLACES": str(places)}
        command = ["-m", "flask", "celery", "cluster", "--no-scheduler"]
        return running(self.project, self.environment | own, command)

    def ask(self, *question: object) -> dict[str, Any]:
        """Run the probe in the project's own Python."""
        command = (python(self.project), "-c", PROBE, *map(str, question))
        output = support.succeed(*command, cwd=self.project, **self.environment)
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


def cost(growth: Growth) -> Iterator[str]:
    """Say what a task costs Redis."""
    with growth.cluster(1, 2):
        found = growth.ask("cost", TASKS)
    yield "| for a task that is sent, run and answered | calls | µs |"
    yield "| --- | --- | --- |"
    for name, (calls, usec) in sorted(found["commands"].items(), key=lambda one: -one[1][1]):
        yield f"| `{name}` | {calls:.1f} | {usec:.0f} |"
    yield f"| **all; its round trips, its CPU** | {found['trips']:.1f} | {found['cpu']:.0f} |"
    yield ""
    yield f"By this, one Redis carries {1e6 / found['cpu']:,.0f} tasks a second at the most."
    yield ""


def machines(growth: Growth) -> Iterator[str]:
    """Say how many tasks that wait are done by more and more machines."""
    yield f"| machines, {PLACES} places each | tasks of {SECONDS} s a second | of the possible |"
    yield "| --- | --- | --- |"
    for count in MACHINES:
        places = count * PLACES
        with ExitStack() as stack:
            for number in range(count):
                stack.enter_context(growth.cluster(number, PLACES))
            rate = growth.ask("rate", places, places * 80)["rate"]
        yield f"| {count} | {rate:.0f} | {rate * SECONDS / places:.0%} |"
    yield ""


def workers(growth: Growth) -> Iterator[str]:
    """Say what workers cost that have nothing to do, and how they answer."""
    yield (
        "| workers at rest | connections | Redis: memory | CPU | round trips a second "
        "| answer to `inspect ping` | in | oldest heartbeat | a task, median | 95 % |"
    )
    yield "| --- |" + " --- |" * 9
    with ExitStack() as stack:
        there = 0
        while there < max(WORKERS):
            more = min(AT_ONCE, min(it for it in WORKERS if it > there) - there)
            stack.enter_context(growth.cluster(there, more))
            there += more
            if there not in WORKERS:
                continue
            it = growth.ask("rest", there)
            yield (
                f"| {there} | {it['clients']} | {it['memory']:.1f} MiB | {it['cpu']:.1f} % "
                f"| {it['commands']:.0f} | {it['answers']} | {it['pinged']:.1f} s "
                f"| {it['oldest']:.0f} s | {it['median']:.0f} ms | {it['p95']:.0f} ms |"
            )
        it = growth.ask("listeners", LISTENERS)
    yield ""
    yield (
        f"{LISTENERS} listeners that wait for one task: {it['connections']} connections, "
        f"{it['heard']} heard of its end, the last {it['spread'] * 1000:.0f} ms after the first."
    )
    yield ""


def heartbeats(growth: Growth) -> Iterator[str]:
    """Say what the heartbeats of very many workers cost."""
    it = growth.ask("beats", HEARTBEATS)
    yield (
        f"{it['found']:,} heartbeats: to write one takes Redis {it['beat']:.0f} µs; to read "
        f"all, as a page does, {it['read'] / 1000:.1f} ms, and whoever asks "
        f"{it['seconds'] * 1000:.0f} ms."
    )


if __name__ == "__main__":
    os.environ.pop("CELERY_WORKER_HOST", None)
    main()
