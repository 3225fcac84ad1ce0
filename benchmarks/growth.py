"""Measure what one Redis carries: the cost of a task, many workers, many who wait for results.

    uv run python benchmarks/growth.py            # prints the tables, for 4 minutes
    uv run python benchmarks/growth.py --write    # and keeps them in benchmarks/results/

All runs on this machine, with one Redis. What is called a machine is a cluster of workers under a
host name of its own.

- The cost of a task is measured with a real worker of two places.
- Tasks that wait for a second show what more machines bring: no processor decides.
- 200 workers are simulated by one process: their connections, of which one waits for tasks and one
  listens to commands, and their heartbeats, every 5 s.
- To `inspect`, 200 threads answer what a real worker with a task has answered.
- 200 processes that wait for results are 200 listeners in one, each with its connection.

What Redis spends is its own CPU time (`INFO cpu`); `INFO commandstats` says for which commands.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402
from engine import OURS, python, redis_server, running  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "growth.md"
TASKS = 2000
HEARTBEATS = 1000
PLACES = 20  # of a machine
MACHINES = (1, 2, 3)
SECONDS = 15  # for which each place has tasks that wait for a second
SIMULATED = (10, 200)
LISTENERS = 200

WAIT = """
import time
def wait(seconds):
    time.sleep(seconds)
"""

#: Runs in the project: each function answers one question, and prints what it found.
PROBE = """
import collections, contextlib, datetime, json, sys, threading, time
import growth_app
from redis.exceptions import RedisError
from flask_background import BrokerUnavailable
from flask_background.sending.listener import ResultListener
from flask_background.state import heartbeats
celery = growth_app.celery
growth_app.create_app().app_context().push()
core, redis = celery, celery.redis
CONNECTIONS = 5  # of a simulated worker, as a real one has
QUESTIONS = ("ping", "stats", "active")
SAID = {"pid": 1, "queues": ["default"], "active": 1, "processed": 1, "concurrency": 1,
        "tasks": ["0" * 36]}

def spent():
    cpu, stats = redis.info("cpu"), redis.info("commandstats")
    stats = {name.removeprefix("cmdstat_"): it for name, it in stats.items()}
    calls = {name: (it["calls"], it["usec"]) for name, it in stats.items()}
    reads = redis.info("stats")["total_reads_processed"]
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], reads, calls

def between(before, after, tasks):
    commands = {
        name: [(calls - before[2].get(name, (0, 0))[0]) / tasks,
               (usec - before[2].get(name, (0, 0))[1]) / tasks]
        for name, (calls, usec) in after[2].items()
    }
    return {
        "cpu": (after[0] - before[0]) / tasks * 1e6,
        "trips": (after[1] - before[1]) / tasks,
        "commands": {name: it for name, it in commands.items() if it[1] >= 0.5},
    }

def patient(do, *arguments):
    while True:
        try:
            return do(*arguments)
        except (BrokerUnavailable, RedisError):  # this machine has other things to do
            time.sleep(0.5)

def send(function, count, *arguments):
    return [patient(celery.submit, function, *arguments) for _ in range(count)]

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

def ready(count):
    end = time.monotonic() + 300
    while sum(beat.alive for beat in patient(heartbeats.latest, core)) < count:
        assert time.monotonic() < end, f"{count} workers are not ready"
        time.sleep(0.5)

def rate(places, rounds):
    ready(places)
    futures = send(growth_app.wait, places * rounds, 1)
    for future in futures:
        future.result(timeout=300)
    ran = [patient(getattr, future, "info") for future in futures]
    first, last = min(it.started_at for it in ran), max(it.date_done for it in ran)
    return {"rate": len(ran) / (last - first).total_seconds()}

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
    idle = [connect() for _ in range(count * (CONNECTIONS - 2))]
    for _ in range(count):
        connect("BRPOP", core.keys.wake("nothing"), 0)
        connect("SUBSCRIBE", "growth-commands")
    clients = redis.info("clients")["connected_clients"]
    before, start, late = spent(), time.perf_counter(), 0.0
    for turn in range(4):
        for number in range(count):
            heartbeats.write(core, f"main.{number}@machine", SAID, ["0" * 36])
        left = start + 5 * (turn + 1) - time.perf_counter()
        late = max(late, -left)
        time.sleep(max(0, left))
    cost = between(before, spent(), time.perf_counter() - start)
    asked = time.perf_counter()
    heard = redis.publish("growth-commands", "ping")
    published = time.perf_counter() - asked
    memory = (redis.info("memory")["used_memory"] - empty) / 2**20
    return {"clients": clients, "memory": memory, "cpu": cost["cpu"] / 1e4, "late": late,
            "heard": heard, "published": published, "idle": len(idle)}

def example(name):
    ready(1)
    (future,) = send(growth_app.wait, 1, 15)
    while not sum(beat.active for beat in patient(heartbeats.latest, core)):
        time.sleep(0.1)
    def ask(command):
        (said,) = celery.inspect[command](timeout=5).values()
        return said
    answers = {command: patient(ask, command) for command in QUESTIONS}
    future.result(timeout=60)
    with open(name, "w") as file:
        json.dump(answers, file)
    return answers

def answer(count, name):
    with open(name) as file:
        said = json.load(file)
    core.seal._seen = collections.deque(maxlen=0)  # a process hears a command once
    core.conf.broker_pool_limit = count  # and has its own connection to answer with
    listening = threading.Semaphore(0)
    def listen(number):
        handlers = {it: lambda state, it=it, **_: said[it] for it in said}
        with celery.connection_for_read() as connection:
            node = celery.control.mailbox.Node(
                f"main.{number}@machine", channel=connection.channel(), handlers=handlers
            )
            node.listen()
            listening.release()
            while True:
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=60)
    for number in range(count):
        threading.Thread(target=listen, args=[number], daemon=True).start()
    for _ in range(count):
        listening.acquire()
    while True:
        for number in range(count):
            patient(heartbeats.write, core, f"main.{number}@machine", SAID, ["0" * 36])
        time.sleep(5)

def inspect(count, command):
    ready(count)
    def traffic():
        stats = redis.info("stats")
        return stats["total_net_input_bytes"], stats["total_net_output_bytes"]
    def ask():
        before, start = traffic(), time.perf_counter()
        answers = celery.inspect[command]() or {}
        return answers, before, time.perf_counter() - start, traffic()
    answers, before, seconds, after = patient(ask)
    return {"answers": len(answers), "seconds": seconds, "size": len(json.dumps(answers)),
            "read": after[0] - before[0], "written": after[1] - before[1]}

class Waiter:
    def __init__(self, id, done):
        self.id, self.done, self.after = id, done, None
    def settle(self, meta):
        now = datetime.datetime.now(datetime.UTC)
        ended = datetime.datetime.fromisoformat(meta["date_done"]).replace(tzinfo=datetime.UTC)
        self.after = (now - ended).total_seconds()
        self.done.release()

def listeners(count, tasks):
    ready(2)
    done = threading.Semaphore(0)
    own = [ResultListener(core) for _ in range(count)]
    def heard(waiters):
        for _ in waiters:
            assert done.acquire(timeout=120)
        return sorted(waiter.after for waiter in waiters)
    # First all wait for the same task, then each for its own.
    (future,) = send(growth_app.wait, 1, 10)
    waiters = [Waiter(future.id, done) for _ in own]
    for listener, waiter in zip(own, waiters):
        listener.watch(waiter)
    found = {"same": heard(waiters)[-1], "clients": redis.info("clients")["connected_clients"]}
    waiters = []
    for number in range(tasks):
        waiters.append(Waiter(send(growth_app.work, 1, number)[0].id, done))
        own[number % count].watch(waiters[-1])
    after = heard(waiters)
    return found | {"heard": len(after), "half": after[len(after) // 2], "most": after[-1]}

def beats(count):
    before, start = spent(), time.perf_counter()
    for number in range(count):
        heartbeats.write(core, f"main.{number}@machine", SAID, ["0" * 36])
    one = between(before, spent(), count)
    asked = time.perf_counter()
    before = spent()
    for _ in range(20):
        found = len(heartbeats.latest(core))
    read = between(before, spent(), 20)
    seconds = (time.perf_counter() - asked) / 20
    return {"beat": one["cpu"], "read": read["cpu"], "seconds": seconds, "found": found}

given = [int(it) if it.isdecimal() else it for it in sys.argv[2:]]
print(json.dumps(globals()[sys.argv[1]](*given)))
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
        (project / "growth_app.py").write_text(OURS + WAIT)
        lines = []
        for part in (heartbeats, inspect, listeners, cost, machines):
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

    @contextmanager
    def machines(self, count: int) -> Iterator[None]:
        """Run so many clusters, each under a host name of its own."""
        with ExitStack() as stack:
            for number in range(count):
                stack.enter_context(self.cluster(number, PLACES))
            yield

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
    """Say how many tasks that wait for a second are done by one machine and by several."""
    yield f"| machines, {PLACES} places each | tasks of a second that end in a second |"
    yield "| --- | --- |"
    for count in MACHINES:
        with growth.machines(count):
            found = growth.ask("rate", count * PLACES, SECONDS)
        yield f"| {count} | {found['rate']:.1f} |"
    yield ""


def inspect(growth: Growth) -> Iterator[str]:
    """Say how many workers that are only simulated answer a question, and with how much."""
    file = str(growth.project / "answers.json")
    with growth.cluster(1, 1):
        questions = growth.ask("example", file)
    yield "| `inspect` | workers | answers | after | they hold | Redis reads | it writes |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for count in SIMULATED:
        simulate = ["-c", PROBE, "answer", str(count), file]
        with running(growth.project, growth.environment, simulate):
            for command in questions:
                it = growth.ask("inspect", count, command)
                size, read, written = (it[name] / 1024 for name in ("size", "read", "written"))
                yield (
                    f"| `{command}` | {count} | {it['answers']} | {it['seconds']:.1f} s "
                    f"| {size:.0f} KiB | {read:.0f} KiB | {written:.0f} KiB |"
                )
    yield ""


def listeners(growth: Growth) -> Iterator[str]:
    """Say how long many take to hear that a task has ended."""
    with growth.cluster(1, 2):
        it = growth.ask("listeners", LISTENERS, TASKS)
    yield (
        f"{LISTENERS} listeners, {it['clients']:,} connections: all know the end of one task "
        f"within {it['same'] * 1000:.0f} ms. Of {TASKS:,} tasks, each waited for by one of them, "
        f"{it['heard']:,} ends were heard: half of them within {it['half'] * 1000:.0f} ms, all "
        f"within {it['most'] * 1000:.0f} ms."
    )
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
