"""Where the embedded Redis runs: `instance/redis.json`, in which every command and test looks.

The address holds the password, so the file is for its owner's eyes only. Nothing of the engine is
imported here: a command that only looks for the address needs no Celery.
"""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

HOST = "127.0.0.1"
TIMEOUT = 0.2  # seconds for an answer


@dataclass(frozen=True)
class Record:
    """What `redis.json` says: where the server is, and the process that owns it."""

    url: str
    pid: int | None  # None: stopped; the URL is kept for the next run

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
        write_private(new, json.dumps(asdict(self)) + "\n")
        new.replace(file)

    @property
    def port(self) -> int:
        """The server's port."""
        return urlsplit(self.url).port or 0

    @property
    def password(self) -> str:
        """What a client has to know; empty for a record of the version before passwords."""
        return urlsplit(self.url).password or ""

    def is_alive(self) -> bool:
        """Whether the owner lives and the server answers; False for what a crash left behind."""
        return self.pid is not None and process_exists(self.pid) and self.answers()

    def answers(self) -> bool:
        """Whether a Redis that takes the password answers PING within 0.2 seconds."""
        commands = [["AUTH", self.password], ["PING"]] if self.password else [["PING"]]
        try:
            with socket.create_connection((HOST, self.port), TIMEOUT) as connection:
                connection.settimeout(TIMEOUT)
                connection.sendall(b"".join(map(_encode, commands)))
                with connection.makefile("rb") as answer:
                    lines = [answer.readline() for _ in commands]
        except OSError:
            return False
        return lines[-1].startswith(b"+PONG")


def running_url(instance_path: str | Path) -> str | None:
    """Return the URL of the Redis that `flask dev` runs in this project, or None.

    Args:
        instance_path: the application's instance folder, `app.instance_path`.
    """
    record = Record.read(Path(instance_path) / "redis.json")
    return record.url if record and record.is_alive() else None


def uses_fake() -> bool:
    """Whether the stand-in runs instead of a real server: on Windows, or with DEV_REDIS=fake."""
    return sys.platform == "win32" or os.environ.get("DEV_REDIS") == "fake"


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    file.unlink(missing_ok=True)  # an old one would keep its mode
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)


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


def _encode(command: list[str]) -> bytes:
    """Spell a command as Redis' protocol does."""
    parts = [f"${len(part)}\r\n{part}\r\n" for part in command]
    return f"*{len(command)}\r\n{''.join(parts)}".encode("ascii")
