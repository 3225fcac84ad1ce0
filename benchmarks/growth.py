"""Measure what one Redis carries: the cost of a task, and of many workers at rest.

    uv run python benchmarks/growth.py            # prints the tables, for 2 minutes
    uv run python benchmarks/growth.py --write    # and keeps them in benchmarks/results/

All runs on this machine, with one Redis:

- The cost of a task is measured with a real worker of two places.
- 200 workers are simulated by one process: their connections, of which one waits for tasks and one
  listens to commands, and their heartbeats, every 5 s.

What Redis spends is its own CPU time (`INFO cpu`); `INFO commandstats` says for which commands.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402
from engine import OURS, python, redis_server, running  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "growth.md"
TASKS = 2000
HEARTBEATS = 1000
SIMULATED = (10, 200)
CONNECTIONS = 5  # of a simulated worker, as a real one has

#: Runs in the project: each function answers one question, and prints what it found.
PROBE = f"""
import json, sys, time
import growth_app
from flask_background import BrokerUnavailable
from flask_background.state import heartbeats
celery = growth_app.celery
growth_app.create_app().app_context().push()
core, redis = celery, celery.redis
SAID = {{"pid": 1, "queues": ["default"], "active": 1, "processed": 1, "concurrency": 1,
        "tasks": ["0" * 36]}}

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

def simulated(count):
    held = []
    empty = redis.info("memory")["used_memory"]
    def connect(*command):
        pool = redis.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        connection.connect()
        if command:
            connection.send_command(*command)
            held.append(connection)
        return connection
    idle = [connect() for _ in range(count * ({CONNECTIONS} - 2))]
    for _ in range(count):
        connect("BRPOP", core.keys.wake("nothing"), 0)
        connect("SUBSCRIBE", "growth-commands")
    clients = redis.info("clients")["connected_clients"]
    before, start, late = spent(), time.perf_counter(), 0.0
    for turn in range(4):
        for number in range(count):
            heartbeats.write(core, f"main.{{number}}@machine", SAID, ["0" * 36])
        left = start + 5 * (turn + 1) - time.perf_counter()
        late = max(late, -left)
        time.sleep(max(0, left))
    cost = between(before, spent(), time.perf_counter() - start)
    asked = time.perf_counter()
    heard = redis.publish("growth-commands", "ping")
    published = time.perf_counter() - asked
    memory = (redis.info("memory")["used_memory"] - empty) / 2**20
    return {{"clients": clients, "memory": memory, "cpu": cost["cpu"] / 1e4, "late": late,
            "heard": heard, "published": published, "idle": len(idle)}}

def beats(count):
    before, start = spent(), time.perf_counter()
    for number in range(count):
        heartbeats.write(core, f"main.{{number}}@machine", SAID, ["0" * 36])
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
        (project / "growth_app.py").write_text(OURS)
        lines = []
        for part in (heartbeats, cost):
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


def heartbeats(growth: Growth) -> Iterator[str]:
    """Say what very many workers cost that are only simulated: connections and heartbeats."""
    yield "| simulated workers | connections | their memory | CPU | a command is heard by | in |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for count in SIMULATED:
        it = growth.ask("simulated", count)
        yield (
            f"| {count:,} | {it['clients']:,} | {it['memory']:.1f} MiB | {it['cpu']:.1f} % "
            f"| {it['heard']:,} | {it['published'] * 1000:.0f} ms |"
        )
    yield ""
    it = growth.ask("beats", HEARTBEATS)
    yield (
        f"{it['found']:,} heartbeats: to write one takes Redis {it['beat']:.0f} µs; to read "
        f"all, as a page does, {it['read'] / 1000:.1f} ms, and whoever asks "
        f"{it['seconds'] * 1000:.0f} ms."
    )
    yield ""


if __name__ == "__main__":
    os.environ.pop("CELERY_WORKER_HOST", None)
    main()
