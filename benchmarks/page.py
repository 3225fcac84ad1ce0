"""Measure what open pages cost the API, on one CPU: 200 pages beside none, in turns, in one run.

    uv run python benchmarks/page.py            # prints the table
    uv run python benchmarks/page.py --write    # and keeps it in benchmarks/results/

The whole project (gunicorn with one process of four threads, worker, scheduler, Redis) runs on the
first CPU, and the callers on the second one. A caller of the API asks for a task's state at a
steady rate; what counts is the ratio of its p99 with and without the open pages, by three ways to
keep them up to date: as the page does it (the server says when to come back), every 2 seconds
whatever the server says, and by server-sent events, one stream for each page.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hooks")]

import support  # noqa: E402
from targets.browser import Process  # noqa: E402
from targets.stack import RedisServer, free_port  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "page.md"
PACKAGE = support.DEFAULT_SLUG
PAGES = 200
API_RATE = 50  # requests a second
ROUNDS = 6
SETTLE = 20.0  # seconds after the pages were opened, until the server has set the pace
MEASURE = 15.0  # seconds
PATIENCE = 5.0  # seconds, after which a request counts as not answered

#: The same application, with a stream of events that says something each second.
STREAMING = f"""
import time
from flask import Response
from {PACKAGE} import create_app
app = create_app()
@app.get("/stream")
def stream():
    def events():
        while True:
            yield "data: x\\n\\n"
            time.sleep(1)
    return Response(events(), mimetype="text/event-stream")
"""
TOKEN = "measuring-" + "t" * 32


@dataclass
class Answer:
    """What of an answer matters here."""

    status: int
    headers: dict[str, str]


class Connection:
    """A kept connection to the server, as a browser or a caller of the API has one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, headers: str = "") -> Answer:
        """Send a GET and read the whole answer. Raises ``OSError`` or ``TimeoutError``."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            async with asyncio.timeout(PATIENCE):
                return await self._read(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.close()
            raise

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(head[0].split()[1]), headers)

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Count:
    """What all pages got together."""

    polls: int = 0
    unchanged: int = 0


async def page(port: int, count: Count, fixed: float | None) -> None:
    """Do what the script of one open page does, forever."""
    connection, etag = Connection(port), ""
    await asyncio.sleep(random.random() * 2)  # noqa: S311
    while True:
        pause = 2.0
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            answer = await connection.get("/live", f"If-None-Match: {etag}\r\n")
            etag = answer.headers.get("etag", "")
            count.polls += 1
            count.unchanged += answer.status == 304
            pause = fixed or float(answer.headers["poll-after"])
        await asyncio.sleep(pause * (1 if fixed else 0.75 + random.random() / 2))  # noqa: S311


async def stream(port: int) -> None:
    """Hold a stream of events open, forever."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    with suppress(OSError):
        await asyncio.Event().wait()


async def call_api(port: int, path: str, seconds: float) -> tuple[list[float], int]:
    """Ask at a steady rate; return the milliseconds of each answer, and how many failed."""
    free = [Connection(port) for _ in range(8)]
    times: list[float] = []
    failed = 0

    async def one() -> None:
        nonlocal failed
        connection = free.pop() if free else Connection(port)
        began = time.perf_counter()
        try:
            answer = await connection.get(path)
            assert answer.status == 200, answer
            times.append(1000 * (time.perf_counter() - began))
            free.append(connection)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            failed += 1

    calls = []
    began = time.perf_counter()
    for number in range(int(seconds * API_RATE)):
        await asyncio.sleep(max(0.0, began + number / API_RATE - time.perf_counter()))
        calls.append(asyncio.create_task(one()))
    await asyncio.gather(*calls)
    for connection in free:
        connection.close()
    return times, failed


@dataclass
class Found:
    """What all rounds of one way gave: milliseconds without and with the pages, and counts."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    failed: int = 0
    asked: int = 0
    polls: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)


async def measure(port: int, path: str, way: str, rounds: int) -> Found:
    """Take turns between no page and ``PAGES`` pages."""
    found = Found()
    for _ in range(rounds):
        found.alone += (await call_api(port, path, MEASURE))[0]
        count = Count()
        if way == "stream":
            openers = [stream(port) for _ in range(PAGES)]
        else:
            fixed = 2.0 if way == "fixed" else None
            openers = [page(port, count, fixed) for _ in range(PAGES)]
        pages = [asyncio.create_task(opener) for opener in openers]
        await asyncio.sleep(SETTLE)
        count.polls = count.unchanged = 0
        times, failed = await call_api(port, path, MEASURE)
        for task in pages:
            task.cancel()
        await asyncio.gather(*pages, return_exceptions=True)
        found.beside += times
        found.failed += failed
        found.asked += len(times) + failed
        found.polls.append(count.polls / MEASURE)
        found.unchanged.append(count.unchanged / max(count.polls, 1))
        await asyncio.sleep(1)
    return found


def p99(times: list[float]) -> float:
    """Return the 99th percentile; infinity if there is none."""
    return sorted(times)[int(0.99 * len(times))] if times else float("inf")


def start_task(url: str, duration: float) -> str:
    """Start a task of the demo, and return the path of its state."""
    request = urllib.request.Request(
        f"{url}/api/v1/start-task",
        data=json.dumps({"duration": duration}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.headers["Location"])


def wait_until_ready(url: str) -> None:
    """Wait until a web server and a worker are ready."""
    for _ in range(300):
        with suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return
        time.sleep(0.1)
    raise SystemExit("The project did not become ready.")


def run(folder: Path) -> list[str]:
    """Start the project on the first CPU, measure from the second, and return the table."""
    template = folder / "template"
    template.mkdir()
    project = support.render(support.copy_template(template), folder / "out", {})
    support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
    (project / "streaming.py").write_text(STREAMING)
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[0]})  # what is started from here on inherits it
    redis = RedisServer(project, folder / "redis")
    ports = [free_port(), free_port()]
    settings = {
        "REDIS_URL": redis.url,
        "SECRET_KEY": "measuring-" + "k" * 32,
        "API_TOKEN": TOKEN,
        "FLASK_APP": PACKAGE,
        "FLASK_CONFIG": "production",
        "FLASK_SKIP_DOTENV": "1",
        "PUBLIC_DASHBOARD": "yes",
        "LOG_LEVEL": "warning",
    }
    processes = [Process(["flask", "celery", "cluster"], project, folder / "worker", settings)] + [
        Process(
            ["gunicorn", "-c", "gunicorn.conf.py", app],
            project,
            folder / f"web-{port}",
            {**settings, "BIND": f"127.0.0.1:{port}"},
        )
        for port, app in zip(ports, (f"{PACKAGE}:create_app()", "streaming:app"), strict=True)
    ]
    try:
        redis.start()
        for process in processes:
            process.start()
        os.sched_setaffinity(0, {cpus[-1]})
        for port in ports:
            wait_until_ready(f"http://127.0.0.1:{port}")
        url = f"http://127.0.0.1:{ports[0]}"
        path = [start_task(url, 0.1) for _ in range(12)][-1]
        lines = [
            f"| {PAGES} open pages | polls a second | 304 | API p99 without, ms | with, ms "
            "| ratio | calls not answered |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        gc.disable()
        for name, way, port, rounds in (
            ("as the page does it", "paced", ports[0], ROUNDS),
            ("every 2 s", "fixed", ports[0], ROUNDS // 2),
            ("server-sent events", "stream", ports[1], 1),
        ):
            start_task(url, 250)  # one is always at work, so the page changes all the time
            found = asyncio.run(measure(port, path, way, rounds))
            without, beside = p99(found.alone), p99(found.beside)
            shown = [f"{beside:.2f}", f"{beside / without:.2f}"] if found.beside else ["none"] * 2
            lines.append(
                f"| {name} | {statistics.mean(found.polls):.0f} "
                f"| {statistics.mean(found.unchanged):.0%} | {without:.2f} | {' | '.join(shown)} "
                f"| {found.failed} of {found.asked} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
        return lines
    finally:
        for process in processes:
            process.stop()
        redis.stop()


def main() -> None:
    """Measure, print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        table = "\n".join(run(Path(name)))
    print(table)
    if arguments.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(f"# What open pages cost the API, on one CPU\n\n{table}\n")


if __name__ == "__main__":
    main()
