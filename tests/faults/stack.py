"""One application with its Redis, its web server and its workers, all of it to be broken."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import support
from machine import FAKETIME
from sentinel_servers import Servers

HERE = Path(__file__).parent
HOST = "127.0.0.1"
#: Seconds for a process to begin to answer.
START = 60.0
SECRETS = {"SECRET_KEY": "s3-" * 15, "API_TOKEN": "t0-" * 15}


class Process:
    """A program that writes into a log, and the processes that it starts."""

    def __init__(self, name: str, command: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                env={**os.environ, **env},
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """The process id of the program itself."""
        return self._popen.pid

    @property
    def children(self) -> list[int]:
        """The processes that the program has started."""
        return children(self.pid)

    @property
    def tree(self) -> list[int]:
        """All processes that descend from the program, and itself first."""
        found = [self.pid]
        for pid in found:
            found += children(pid)
        return found

    def signal(self, number: int, pids: list[int] | None = None) -> None:
        """Send a signal to the program, or to some of its processes."""
        for pid in [self.pid] if pids is None else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def running(self) -> bool:
        """Whether the program runs still."""
        return self._popen.poll() is None

    def wait(self, seconds: float) -> int | None:
        """Wait for the end. Returns the exit code, None if it goes on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(seconds)
        return None

    def end(self) -> None:
        """Leave nothing of it behind."""
        tree = self.tree
        self.signal(signal.SIGCONT, tree)
        self.signal(signal.SIGKILL, tree)
        self._popen.wait()


def children(pid: int) -> list[int]:
    """Return the ids of the processes that ``pid`` has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def wait_until(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """Look again and again until there is something to see."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"Waited {seconds:.0f} s in vain for {what}."
        time.sleep(0.1)
    return seen


def _encoded(*command: str) -> bytes:
    """Write a command as Redis reads it."""
    parts = "".join(f"${len(part.encode())}\r\n{part}\r\n" for part in command)
    return f"*{len(command)}\r\n{parts}".encode()


class Cut:
    """A cable between workers and Redis. ``cut()`` makes it silent, as a broken network is.

    While it is cut nothing is delivered and nobody is told. ``mend()`` drops the connections of
    before, as routers do that have forgotten them.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break the cable."""
        self._open.clear()

    def mend(self) -> None:
        """Repair it."""
        old, self._sockets = self._sockets, []
        self._open.set()
        for one in old:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        self._listener.close()
        self.mend()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._open.wait()
        try:
            far = socket.create_connection((HOST, self._target))
        except OSError:
            near.close()
            return
        self._sockets += [near, far]
        threading.Thread(target=self._copy, args=(near, far), daemon=True).start()
        self._copy(far, near)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@dataclass
class Stack:
    """The application of one scenario: ``kind`` is "ours" or "plain"."""

    project: Path
    folder: Path
    kind: str = "ours"
    environ: dict[str, str] = field(default_factory=dict)
    redis: Process | None = None
    web: Process | None = None
    clusters: list[Process] = field(default_factory=list)
    cable: Cut | None = None
    small_disk: bool = False
    own_clock: bool = False
    several: bool = False
    servers: Servers | None = None
    _ports: dict[str, int] = field(default_factory=dict)
    _redis_command: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self, clusters: int = 1, cable: bool = False) -> Iterator[Stack]:
        """Start all of it, with so many clusters of workers; stop it at the end."""
        self.folder.mkdir(parents=True)
        self._ports = {"redis": support.free_port(), "web": support.free_port()}
        data = self.folder / "data"
        data.mkdir()
        if self.small_disk:
            mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "faults", str(data)]
            subprocess.run(mount, check=True, capture_output=True)
        if self.own_clock:
            self.set_clock(0)
        try:
            if self.several:
                self.servers = Servers(self.folder / "servers")
            else:
                self.start_redis()
            if cable:
                self.cable = Cut(self._ports["redis"])
            for _ in range(clusters):
                self.start_cluster()
            self.start_web()
            yield self
        finally:
            for process in [*self.clusters, self.web, self.redis]:
                if process is not None:
                    process.end()
            if self.servers:
                self.servers.kill()
            if self.cable:
                self.cable.close()
            if self.small_disk:
                subprocess.run(["umount", str(data)], check=True)

    @property
    def ledger(self) -> Path:
        """The file that the tasks write."""
        return self.folder / "ledger"

    @property
    def web_port(self) -> int:
        """Where requests go."""
        return self._ports["web"]

    def start_redis(self, *options: str) -> None:
        """Start Redis, as the project's own development does; again at the same port.

        With ``options``, further ones of its command line, it may be long until it answers, and
        nobody waits for it.
        """
        self._redis_command = self._redis_command or self._make_redis_command()
        self.redis = self._start("redis", [*self._redis_command, *options], {})
        if options:
            return
        wait_until(lambda: self.redis_says("PING") == "+PONG", START, "Redis")

    def _make_redis_command(self) -> list[str]:
        module = "devtools.dev.redis_server"
        program = (
            f"import json; from {module} import server_command; from pathlib import Path; "
            "data = Path('data').absolute(); data.mkdir(exist_ok=True); "
            f"print(json.dumps(server_command({self._ports['redis']}, 'x', data)))"
        )
        said = subprocess.run(
            [self._python, "-c", program],
            env={**os.environ, "PYTHONPATH": str(self.project)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        command: list[str] = json.loads(said)
        # One scenario sets a password; the others need none.
        return [*command, "--dir", str(self.folder / "data"), "--requirepass", ""]

    def redis_says(self, *command: str, password: str = "") -> str | None:
        """Send one command to Redis and return the first line of the answer; None for silence."""
        if self.servers:
            return f":{self.servers.primary.says(*command)}"  # the only kind that is asked for
        try:
            with socket.create_connection((HOST, self._ports["redis"]), 2) as connection:
                connection.settimeout(2)
                if password:
                    connection.sendall(_encoded("AUTH", password))
                    connection.recv(65536)
                connection.sendall(_encoded(*command))
                answer = connection.recv(65536).decode("utf-8", "replace")
        except OSError:
            return None
        return answer.partition("\r\n")[0] if answer[:1] in "+-:" else answer

    def start_cluster(self, **environ: str) -> Process:
        """Start the workers once more; they go through the cable if there is one."""
        port = self.cable.port if self.cable else self._ports["redis"]
        if self.kind == "ours":
            command = [self._python, "-m", "flask", "celery", "cluster"]
        else:
            name = f"worker{len(self.clusters)}@%h"
            options = ["--concurrency", "2", "--loglevel", "INFO", "--hostname", name]
            celery = [self._python, "-m", "celery", "-A", "plain_app:celery_app"]
            command = [*celery, "worker", *options]
        if cpu := self.environ.get("FAULT_CPU"):
            command = ["taskset", "-c", cpu, *command]
        if self.own_clock:
            environ = {
                "LD_PRELOAD": FAKETIME,
                "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                **environ,
            }
        log = self.folder / f"cluster{len(self.clusters)}.log"
        process = Process("cluster", command, log, {**self._env(port), **environ})
        self.clusters.append(process)
        wait_until(lambda: "ready." in log.read_text(errors="replace"), START, "the workers")
        return process

    def start_web(self, **environ: str) -> None:
        """Start the web server, or a new one in place of the old."""
        if self.web is not None:
            self.web.signal(signal.SIGTERM)
            self.web.wait(30)
        gunicorn = [self._python, "-m", "gunicorn"]
        if self.kind == "ours":
            config = str(self.project / "gunicorn.conf.py")
            command = [*gunicorn, "-c", config, "fault_app:create_app()"]
        else:
            bind = f"{HOST}:{self.web_port}"
            command = [*gunicorn, "--threads", "4", "--bind", bind, "plain_app:flask_app"]
        env = self._env(self._ports["redis"]) | {"BIND": f"{HOST}:{self.web_port}"} | environ
        self.web = self._start("web", command, env)
        wait_until(self._web_answers, START, "the web server")

    def _web_answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.web_port), 1):
            return True
        return False

    def readiness(self) -> tuple[int, str]:
        """Ask the web server for /readyz: status, and reason or words of its answer."""
        connection = http.client.HTTPConnection(HOST, self.web_port, timeout=START)
        with contextlib.closing(connection):
            connection.request("GET", "/readyz", headers={"Accept": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        return response.status, str(answer.get("detail", answer.get("status")))

    def set_clock(self, offset: float) -> None:
        """Move the clock of all workers by so many seconds, from what it is by itself."""
        file = self.folder / "clock"
        file.with_suffix(".new").write_text(f"{offset:+.0f}")
        file.with_suffix(".new").replace(file)

    def _start(self, name: str, command: list[str], env: Mapping[str, str]) -> Process:
        return Process(name, command, self.folder / f"{name}.log", env)

    @property
    def _python(self) -> str:
        return str(self.project / ".venv" / "bin" / "python")

    def _env(self, redis_port: int) -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join([str(HERE / "app"), str(self.project)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "FLASK_APP": "fault_app",
            "FLASK_CONFIG": "production",
            "FLASK_SKIP_DOTENV": "1",
            "REDIS_URL": self.servers.url if self.servers else f"redis://{HOST}:{redis_port}/0",
            "LEDGER": str(self.ledger),
            **SECRETS,
            **self.environ,
        }
