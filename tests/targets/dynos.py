"""Dynos: the project's Procfile run by Heroku's own client, with what the platform adds to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import support
from machine import need
from targets.router import make_certificate

CLIENT_VERSION = "11.10.0"
#: Connections that the smallest plans of Heroku Key-Value Store and of Heroku Postgres allow.
PLAN = 20
#: Seconds that the platform gives processes after SIGTERM.
GRACE = 30


def client() -> Path:
    """Return Heroku's client; it is installed in .tools/ once."""
    need("npm")
    folder = support.ROOT / ".tools" / f"heroku-{CLIENT_VERSION}"
    program = folder / "node_modules" / ".bin" / "heroku"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        support.succeed(
            "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".",
            f"heroku@{CLIENT_VERSION}",
            cwd=folder,
        )  # fmt: skip
    return program


class KeyValueStore:
    """A Redis as the add-on's smallest plan: TLS alone, signed by nobody, few connections."""

    def __init__(self, folder: Path) -> None:
        make_certificate(folder, "redis")
        self._folder = folder
        self.port = support.free_port()
        self.url = f"rediss://:secret@localhost:{self.port}"
        self._process = subprocess.Popen(
            [
                "redis-server", "--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1",
                "--tls-cert-file", "redis.pem", "--tls-key-file", "redis.key",
                "--tls-auth-clients", "no", "--requirepass", "secret", "--save", "",
                "--maxclients", str(PLAN), "--maxmemory", "25mb",
                "--maxmemory-policy", "noeviction", "--timeout", "300",
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: self.ask("PING") == "PONG", 10, "Redis does not answer.")

    def ask(self, *command: str) -> str:
        """Send a command; this takes a connection of the plan for a moment."""
        done = support.run(
            "redis-cli", "--tls", "--insecure", "-p", str(self.port), "-a", "secret",
            "--no-auth-warning", *command,
            cwd=self._folder,
        )  # fmt: skip
        return done.stdout.strip()

    def connections(self) -> int:
        """Return how many connections are open, without the one that asks."""
        return len(self.ask("CLIENT", "LIST").splitlines()) - 1

    def info(self, name: str) -> int:
        """Return one number of INFO."""
        lines = dict(line.split(":", 1) for line in self.ask("INFO").splitlines() if ":" in line)
        return int(lines[name])

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(10)


class Postgres:
    """A PostgreSQL as the add-on's smallest plan, which allows few connections."""

    #: It runs as long as its standard input is open.
    _CODE = """
import sys
import psycopg
from devtools.dev.services.postgres import Server
with Server(sys.argv[1]) as server:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN PASSWORD 'secret'")
        connection.execute(f"ALTER ROLE app CONNECTION LIMIT {sys.argv[2]}")
        connection.execute("CREATE DATABASE app OWNER app")
    print("postgres://app:secret@" + server.url.split("@")[1].split("/")[0] + "/app", flush=True)
    sys.stdin.read()
"""

    def __init__(self, project: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["uv", "run", "--quiet", "python", "-c", self._CODE, folder / "postgres", str(PLAN)],
            cwd=project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()
        assert self.url, "PostgreSQL did not start."

    def stop(self) -> None:
        """Stop it."""
        self._process.communicate("")


@dataclass
class Dyno:
    """One process of the Procfile, in a session of its own, and what it wrote."""

    name: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Collect its output."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def output(self) -> str:
        """All that it wrote."""
        return "".join(self.lines)

    def messages(self) -> list[str]:
        """Return what its processes wrote, without what the client puts before each line."""
        return [line.split(" |  ", 1)[1].strip() for line in list(self.lines) if " |  " in line]

    def pids(self) -> list[int]:
        """Return its processes, without the client and the shell, which stand for the platform."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                state, _, _, session, *_ = rest.split()
                platform = name == "sh" or (folder / "exe").readlink().name == "node"
                if int(session) == self.process.pid and state != "Z" and not platform:
                    found.append(int(folder.name))
        return found

    def memory(self) -> float:
        """Return the memory of its processes (PSS) in MiB."""
        total = 0
        for pid in self.pids():
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
        return total / 1024

    def stop(self) -> list[int]:
        """Stop it as the platform does; return the processes that had to be killed.

        SIGTERM to every process at once, SIGKILL to those that are there after 30 seconds.
        https://devcenter.heroku.com/articles/dynos#shutdown
        """
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        ends = time.monotonic() + GRACE
        while self.pids() and time.monotonic() < ends:
            time.sleep(0.1)
        killed = self.pids()
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        return killed


@dataclass
class Heroku:
    """An application on the platform: its slug, its config vars, its dynos."""

    project: Path
    folder: Path
    store: KeyValueStore
    port: int
    dynos: list[Dyno] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the slug, and install the dependencies with the buildpack's command."""
        lines = (self.project / ".slugignore").read_text().splitlines()
        left_out = [line for line in lines if line and not line.startswith("#")]
        self.slug = self.folder / "slug"
        unwanted = shutil.ignore_patterns(".env", ".venv", *left_out)
        shutil.copytree(self.project, self.slug, ignore=unwanted)
        assert not (self.slug / "devtools").exists()
        support.succeed(
            "uv", "sync", "--quiet", "--locked", "--no-default-groups", cwd=self.project,
            UV_PROJECT_ENVIRONMENT=str(self.folder / "python"),
        )  # fmt: skip
        secrets = support.env_values(self.project)
        self.config = {
            "FLASK_CONFIG": "production",
            "SECRET_KEY": secrets["SECRET_KEY"],
            "API_TOKEN": secrets["API_TOKEN"],
            "REDIS_URL": self.store.url,
        }

    def start(self, name: str, config: dict[str, str] | None = None) -> Dyno:
        """Start a dyno of a process type."""
        variables = {
            **(self.config if config is None else config),
            # From the platform
            "DYNO": f"{name}.1",
            # From the start scripts of the Python buildpack, on a dyno of 512 MB
            "FORWARDED_ALLOW_IPS": "*",
            "GUNICORN_CMD_ARGS": "--access-logfile -",
            "PYTHONUNBUFFERED": "true",
            "WEB_CONCURRENCY": "2",
            "WEB_CONCURRENCY_SET_BY": "heroku/python",
        }
        # The client reads the file .env of a folder unless it is told another one.
        file = self.folder / f"{name}.env"
        file.write_text("".join(f"{key}={value}\n" for key, value in variables.items()))
        program = client()
        path = [str(self.folder / "python" / "bin"), str(program.parent), os.environ["PATH"]]
        process = subprocess.Popen(
            [program, "local", name, "--port", str(self.port), "--env", file],
            cwd=self.slug,
            env={
                "HOME": str(self.folder),
                "PATH": os.pathsep.join(path),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HEROKU_DISABLE_AUTOUPDATE": "1",
                "HEROKU_SKIP_NEW_VERSION_CHECK": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        dyno = Dyno(name, process)
        self.dynos.append(dyno)
        return dyno

    def stop(self) -> None:
        """Stop all dynos."""
        for dyno in self.dynos:
            dyno.stop()


def wait_until(look: Callable[[], bool], seconds: float, what: str) -> None:
    """Look until it is so; fail with ``what`` if it is not within so many seconds."""
    ends = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < ends, what
        time.sleep(0.2)
