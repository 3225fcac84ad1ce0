"""Runs `flask celery …` for the tests: the output line by line, the processes by their ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis
from devtools.dev.services.postgres import Server
from flask_background import Child, FlaskCelery, Heartbeat
from flask_background.database import database_url
from kombu import Connection, Consumer, Queue
from sample_app import celery, create_app
from sample_models import db
from support import PROJECT_FOLDER, ROOT

#: The folder of the sample application.
SAMPLE = ROOT / "tests" / "engine" / "sample"
#: The folder with `flask_background` and `devtools`, which the programs that tests start import.
PROJECT = ROOT / PROJECT_FOLDER
StartCluster = Callable[..., "Running"]
PATIENCE = 30.0  # seconds that any single event may take


class Running:
    """A command of the sample application, and what it has said so far."""

    def __init__(
        self,
        command: Sequence[str],
        settings: Mapping[str, Any],
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path = SAMPLE,
        grace: float = 40.0,
    ) -> None:
        self.settings = dict(settings)
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._child = Child(
            command[-1],
            command,
            on_line=self._note,
            env=environment(settings) | dict(environ or {}),
            cwd=cwd,
            grace=grace,
        )

    @property
    def output(self) -> str:
        """All lines so far."""
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        """The process id of the command itself; the guard of `Child` is its parent."""
        return wait_until(lambda: children(self._child.pid), "the command to start")[0]

    def wait_for(self, text: str, times: int = 1) -> str:
        """Wait until a line holds the text, `times` times in all; return the last such line."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._said:
            self._said.wait_for(
                lambda: len(found()) >= times or self._child.exited.is_set(), PATIENCE
            )
        assert len(found()) >= times, f"No line with {text!r} in:\n{self.output}"
        return found()[times - 1]

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        assert self._child.wait(2 * PATIENCE), f"It does not end:\n{self.output}"
        assert self._child.returncode is not None
        return self._child.returncode

    def signal(self, number: int) -> None:
        """Send a signal to the command alone."""
        os.kill(self.pid, number)

    def stop(self) -> int:
        """Ask for a graceful end, wait for it, and return the exit code."""
        self._child.stop()
        return self.wait()

    def end(self) -> None:
        """Leave nothing behind: gracefully if possible."""
        self._child.stop()
        if not self._child.wait(15):
            self._child.kill()
            self._child.wait(PATIENCE)

    def _note(self, line: str) -> None:
        print(f"{self._child.name} | {line}")
        with self._said:
            self.lines.append(line)
            self._said.notify_all()


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Make the environment in which `flask` finds the sample application with these settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLASK_", "CELERY_"))}
    return kept | {
        "FLASK_APP": "sample_app",
        "FLASK_SKIP_DOTENV": "1",
        "PYTHONPATH": os.pathsep.join([str(SAMPLE), str(PROJECT)]),
        "PYTHONUNBUFFERED": "1",
        "SAMPLE_CONFIG": json.dumps(dict(settings)),
    }


def flask_celery(*arguments: str) -> list[str]:
    """Spell `flask celery …`."""
    return [sys.executable, "-m", "flask", "celery", *arguments]


@contextmanager
def workers_of(settings: Mapping[str, Any], number: int) -> Iterator[Running]:
    """Run the workers of `settings`, without a scheduler; begin when so many take tasks."""
    running = Running(flask_celery("cluster", "--no-scheduler"), settings)
    try:
        ready(settings, number)
        yield running
    finally:
        running.end()


def with_database(redis_url: str, address: str) -> dict[str, Any]:
    """Return the settings of the sample application with a database of either kind."""
    kind = address.partition(":")[0]
    return {
        "REDIS_URL": redis_url,
        "SQLALCHEMY_DATABASE_URI": database_url(address, kind),
        "CELERY_SUBMIT_PACKAGES": ["sample_models", "sample_app"],
        "CELERY_WORKERS": {"worker": {"concurrency": 2}},
    }


@contextmanager
def empty_database(settings: Mapping[str, Any]) -> Iterator[FlaskCelery]:
    """Give the sample application with an empty database; nobody takes its tasks yet."""
    with create_app(settings).app_context():
        db.drop_all()
        db.create_all()
        yield celery
        db.session.remove()
        db.engine.dispose()


@contextmanager
def frozen(server: Server) -> Iterator[list[psutil.Process]]:
    """Let all processes of a PostgreSQL stand still."""
    first = psutil.Process(int((server.data_dir / "postmaster.pid").read_text().split()[0]))
    processes = [first, *first.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield processes
    finally:
        for process in processes:
            if process.is_running():
                process.resume()


def run_code(settings: Mapping[str, Any], code: str) -> int:
    """Run code that calls ``sample_models`` as ``m``, in a process; return its exit code."""
    app = "import sample_app, sample_models as m; app = sample_app.create_app().app_context()"
    command = [sys.executable, "-c", f"{app}; app.push(); {code}"]
    return subprocess.run(command, env=environment(settings), cwd=SAMPLE, check=False).returncode


def run(
    settings: Mapping[str, Any], *arguments: str, cwd: Path = SAMPLE
) -> subprocess.CompletedProcess[str]:
    """Run `flask celery …` to its end."""
    return subprocess.run(
        flask_celery(*arguments),
        env=environment(settings),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


def children(pid: int) -> list[int]:
    """Return the ids of the processes that `pid` has started."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def wait_until[T](look: Callable[[], T], what: str) -> T:
    """Look again and again until there is something to see; fail after a while."""
    pause, end = threading.Event(), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if seen := look():
            return seen
        pause.wait(0.05)
    raise AssertionError(f"Waited in vain for {what}.")


def exists(pid: int) -> bool:
    """Whether the process runs still; one that ended and was not waited for does not count."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def beats(settings: Mapping[str, Any]) -> list[Heartbeat]:
    """Return what the workers that live have said last."""
    with create_app(settings).app_context():
        return [beat for beat in celery.heartbeats() if beat.alive]


def listeners() -> list[threading.Thread]:
    """Return the threads of this process that listen to Redis for tasks that end."""
    return [thread for thread in threading.enumerate() if thread.name == "result-listener"]


def ready(settings: Mapping[str, Any], workers: int) -> None:
    """Wait until so many workers take tasks from the Redis of `settings`."""
    wait_until(lambda: len(beats(settings)) >= workers, f"{workers} workers")


class Taker:
    """Takes messages as a worker does, and does nothing with them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.channel: Any = connection.default_channel
        self.messages: list[Any] = []
        queue = Queue("default", routing_key="default")(self.channel)
        Consumer(self.channel, [queue], on_message=self.messages.append, accept=["json"]).consume()

    def take(self) -> Any:
        """Return the next message; fail if none comes."""
        known = len(self.messages)
        while len(self.messages) == known:
            self.connection.drain_events(timeout=10)
        return self.messages[-1]

    def sweep(self) -> None:
        """Look for messages of lost workers."""
        self.channel.qos._sweep_at = 0
        self.channel.qos.restore_visible()


@contextmanager
def taker(celery: FlaskCelery) -> Iterator[Taker]:
    with celery.connection_for_read() as connection:
        yield Taker(connection)


def expire(store: redis.Redis, message: Any) -> None:
    """Let the lease of a message end."""
    store.zadd("sample_app:unacked_index", {message.delivery_tag: 1}, xx=True)
