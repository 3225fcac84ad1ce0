"""A server for tests: boots it, speaks to it, puts it under load."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import support
from machine import VPS

#: Seconds; generous, because the machine has other things to do.
PATIENCE = 45.0


def wait_until(is_true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Look four times a second until ``is_true``; fail with ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise AssertionError(f"Waited {seconds:.0f} s in vain until {what}.")
        time.sleep(0.25)


@dataclass(frozen=True)
class Answer:
    """An answer to a request over HTTP; status 0 if there was none."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Process:
    """A process and the memory that it does not share, in MiB."""

    name: str
    pss: float


@dataclass
class Server:
    """A booted server and the project that is deployed to it."""

    name: str
    address: str
    project: Path
    folder: Path
    manager: str
    host: str
    scheme: str = "https"
    setup_options: list[str] = field(default_factory=list)
    login: str = ""
    output: str = ""

    @property
    def slug(self) -> str:
        """The project's name, after which all on the server is named."""
        return self.project.name

    @property
    def ca(self) -> Path:
        """The certificate of the test's own authority."""
        return self.folder / "ca.pem"

    def shell(self, command: str) -> str:
        """Run a command as root on the server and return its output; fail if it fails."""
        done = subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", command],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def copy(self, folder: Path, target: str) -> None:
        """Copy a folder to the server."""
        subprocess.run(["docker", "cp", "--quiet", folder, f"{self.name}:{target}"], check=True)

    def deploy(self, command: str, *arguments: str, expect_failure: bool = False) -> str:
        """Run ``flask deploy COMMAND`` against the server and return its output."""
        done = support.run(
            "uv", "run", "--quiet", "flask", "deploy", "--ssh-config", self.folder / "ssh_config",
            command, self.login or self.address, *arguments,
            cwd=self.project,
        )  # fmt: skip
        self.output = done.stdout + done.stderr
        assert (done.returncode != 0) == expect_failure, f"deploy {command}\n{self.output}"
        return self.output

    def setup(self, *arguments: str, expect_failure: bool = False) -> str:
        """Set the server up."""
        options = ["--process-manager", self.manager, *self.setup_options, *arguments]
        return self.deploy("setup", *options, expect_failure=expect_failure)

    def release(self, *arguments: str, expect_failure: bool = False) -> str:
        """Release the last commit."""
        ca = ["--ca", str(self.ca)] if self.scheme == "https" else []
        return self.deploy("release", *ca, *arguments, expect_failure=expect_failure)

    def smoke(self) -> str:
        """Run the smoke suite against the server and return its output."""
        return support.succeed(
            "uv", "run", "--quiet", "flask", "smoke", f"https://{self.address}",
            "--ca", self.ca, "--api-token", self.setting("API_TOKEN"),
            cwd=self.project,
        )  # fmt: skip

    def commit(self, path: str, text: str) -> None:
        """Write a file of the project and commit it."""
        (self.project / path).write_text(text)
        support.git_commit_all(self.project, f"Change {path}")

    def setting(self, name: str) -> str:
        """Return a setting of the application on the server."""
        return self.shell(f'. /etc/{self.slug}/env; printf %s "${name}"')

    def set_environment(self, name: str, value: str) -> None:
        """Change a setting of the application on the server; the next release reads it."""
        self.shell(f"echo '{name}=\"{value}\"' >>/etc/{self.slug}/env")

    def redis_port(self) -> str:
        """Return the port of the application's Redis."""
        return self.setting("REDIS_PORT")

    def current_release(self) -> str:
        """Return the name of the running release."""
        return self.shell(f"basename $(readlink /opt/{self.slug}/current)").strip()

    def sql(self, statement: str) -> str:
        """Send a statement to the application's database, as the application."""
        client = f"sqlite3 /var/lib/{self.slug}/{self.slug}.sqlite"
        if self.setting("DATABASE_URL").startswith("postgresql:"):
            client = "psql -Atc"
        return self.shell(f"cd / && runuser -u {self.slug} -- {client} '{statement}'").strip()

    # --- HTTP ---

    def connect(self, scheme: str | None = None, timeout: float = 60) -> http.client.HTTPConnection:
        """Open a connection to nginx."""
        if (scheme or self.scheme) == "http":
            return http.client.HTTPConnection(self.address, timeout=timeout)
        context = ssl.create_default_context(cafile=self.ca)
        return http.client.HTTPSConnection(self.address, timeout=timeout, context=context)

    def request(
        self, method: str, path: str, body: Any = None, scheme: str | None = None
    ) -> Answer:
        """Send a request; an answer of status 0 means that the server did not give one."""
        connection = self.connect(scheme, timeout=10)
        try:
            return ask(connection, self.host, method, path, body)
        except (OSError, http.client.HTTPException):
            return Answer(0, b"")
        finally:
            connection.close()

    def get(self, path: str, scheme: str | None = None) -> Answer:
        """GET a path."""
        return self.request("GET", path, scheme=scheme)

    def start_task(self, duration: float) -> str:
        """Start a task of the example and return its id."""
        answer = self.request("POST", "/api/v1/start-task", {"duration": duration})
        assert answer.status == 202, answer
        return str(answer.json()["task_id"])

    def task_is_done(self, task: str) -> bool:
        """Tell whether the task ended well."""
        answer = self.get(f"/api/v1/task-status/{task}")
        return answer.status == 200 and answer.json()["status"] == "SUCCESS"

    def works(self) -> bool:
        """Tell whether the page is there, all is ready, and a new task is done within seconds."""
        if self.get("/").status != 200 or self.get("/readyz").status != 200:
            return False
        answer = self.request("POST", "/api/v1/start-task", {"duration": 0})
        if answer.status != 202:
            return False
        task = answer.json()["task_id"]
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if self.task_is_done(task):
                return True
            time.sleep(0.1)
        return False

    # --- processes ---

    def own_processes(self) -> list[tuple[str, str]]:
        """Return name and pid of what the application brings, nginx and its manager with it."""
        pattern = f"/opt/{self.slug}/|redis-server|nginx:|supervisord|bin/postgres"
        lines = self.shell(f"ps -eo pid=,args= | grep -E '{pattern}' | grep -v grep").splitlines()
        found = []
        for line in lines:
            pid, _, command = line.strip().partition(" ")
            if "sh -c" not in command:
                found.append((short_name(command), pid))
        return found

    def has_process(self, pid: str) -> bool:
        """Tell whether the process lives."""
        return self.shell(f"test -d /proc/{pid} && echo yes || true").strip() == "yes"

    def main_pid(self, program: str) -> str:
        """Return the main process of the web server or of the workers."""
        if self.manager == "systemd":
            return self.shell(f"systemctl show -P MainPID {self.slug}-{program}").strip()
        program = f"{self.slug}:{self.slug}-{program}"
        return self.shell(f"supervisorctl pid {program} || true").strip()

    def manage(self, verb: str, program: str) -> None:
        """Start or stop the web server or the workers, as an operator would."""
        if self.manager == "systemd":
            self.shell(f"systemctl {verb} {self.slug}-{program}")
        else:
            self.shell(f"supervisorctl {verb} {self.slug}:{self.slug}-{program}")

    def redis(self, command: str) -> str:
        """Send a command to the application's Redis."""
        settings = f"set -a; . /etc/{self.slug}/env"
        return self.shell(f"{settings}; redis-cli -p $REDIS_PORT {command}").strip()

    def memory(self) -> list[Process]:
        """Return the memory of each process that the application brings, the largest first."""
        processes = []
        for name, pid in self.own_processes():
            text = self.shell(f"cat /proc/{pid}/smaps_rollup 2>/dev/null || true")
            pss = [int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")]
            if pss:
                processes.append(Process(name, pss[0] / 1024))
        return sorted(processes, key=lambda process: -process.pss)

    def beside(self, project: Path, domain: str, folder: Path) -> Server:
        """Return the same server with another project, over plain HTTP."""
        for name in ("ssh_config",):
            (folder / name).write_text((self.folder / name).read_text())
        return replace(
            self,
            project=project,
            folder=folder,
            host=domain,
            scheme="http",
            setup_options=["--domain", domain, "--tls", "none"],
        )


def short_name(command: str) -> str:
    """Name a process after its command line."""
    for mark, name in (
        ("supervisord", "supervisord"),
        ("supervisor/watch", "supervisor's listener"),
        ("redis-server", "redis"),
        ("nginx: master", "nginx master"),
        ("nginx:", "nginx worker"),
        ("bin/postgres", "postgresql"),
        ("gunicorn", "web: gunicorn"),
        ("celery", "worker: flask celery cluster"),
    ):
        if mark in command:
            return name
    return command[:40]


def nothing_changed(output: str) -> bool:
    """Tell whether a set-up, which said ``output``, changed nothing."""
    return re.search(r"^0 of \d+ steps changed something\.$", output, re.MULTILINE) is not None


def ask(
    connection: http.client.HTTPConnection, host: str, method: str, path: str, body: Any = None
) -> Answer:
    """Send a request over an open connection and return the answer."""
    headers = {"Host": host, "Content-Type": "application/json"}
    text = None if body is None else json.dumps(body)
    connection.request(method, path, body=text, headers=headers)
    response = connection.getresponse()
    return Answer(response.status, response.read())


def boot(name: str, project: Path, folder: Path, manager: str) -> Server:
    """Boot a fresh server of 1 CPU and 512 MiB."""
    key = Path.home() / ".ssh" / "id_ed25519"
    # In a network of its own it has the same address again after it was off.
    subprocess.run(["docker", "network", "create", name], check=True, capture_output=True)
    done = subprocess.run(
        [VPS, name, "--network", name, "--memory", "512m", "--memory-swap", "512m"],
        check=True,
        capture_output=True,
        text=True,
    )
    address = done.stdout.strip().splitlines()[-1]
    # Addresses of containers come again with other host keys.
    (folder / "ssh_config").write_text(
        f"Host *\n  IdentityFile {key}\n  UserKnownHostsFile {os.devnull}\n"
        "  StrictHostKeyChecking no\n  LogLevel ERROR\n"
    )
    options = ["--domain", address, "--tls", "files"]
    options += ["--certificate", str(folder / "cert.pem"), "--key", str(folder / "key.pem")]
    return Server(name, address, project, folder, manager, host=address, setup_options=options)


def remove(name: str) -> None:
    """Remove a server and its network."""
    for command in (["rm", "-f", "-v", name], ["network", "rm", name]):
        subprocess.run(["docker", *command], check=False, capture_output=True)


def certificate_for(server: Server) -> None:
    """Make an authority, and a certificate of it for the server's address."""
    folder = server.folder
    new_key = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (
        [*new_key, "-x509", "-days", "90", "-subj", "/CN=Test authority", "-keyout", "ca.key",
         "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign"],
        [*new_key, "-subj", "/CN=Test server", "-keyout", "key.pem", "-out", "request.pem"],
    ):  # fmt: skip
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "names").write_text(f"subjectAltName=IP:{server.address}\n")
    subprocess.run(
        ["openssl", "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
         "-days", "90", "-extfile", "names", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


class Load:
    """Requests at a steady rate over kept connections, and a stream of tasks, from threads.

    The page and both health checks are asked in turn: all is well all the time.
    """

    CONNECTIONS = 5

    def __init__(self, server: Server, requests_per_second: int, tasks_per_second: int) -> None:
        self._server = server
        self._stop = threading.Event()
        self._paths = itertools.cycle(("/", "/readyz", "/healthz"))
        pause = self.CONNECTIONS / requests_per_second
        self._threads = [
            threading.Thread(target=self._repeat, args=(self._get, pause))
            for _ in range(self.CONNECTIONS)
        ]
        if tasks_per_second:
            self._threads.append(
                threading.Thread(target=self._repeat, args=(self._start, 1 / tasks_per_second))
            )
        self.answered = 0
        self.slowest = 0.0
        self.failures: list[str] = []
        self.tasks: list[str] = []
        self._lock = threading.Lock()
        self._done: set[str] = set()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def tasks_to_do(self) -> set[str]:
        """Return the tasks that were accepted and are not done yet."""
        for task in set(self.tasks) - self._done:
            if self._server.task_is_done(task):
                self._done.add(task)
        return set(self.tasks) - self._done

    def _repeat(self, action: Callable[[http.client.HTTPConnection], None], pause: float) -> None:
        connection = self._server.connect()
        due = time.monotonic()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                action(connection)
            except (OSError, http.client.HTTPException, AssertionError) as error:
                with self._lock:
                    self.failures.append(repr(error))
                connection.close()
                connection = self._server.connect()
            took = time.monotonic() - began
            with self._lock:
                self.answered += 1
                self.slowest = max(self.slowest, took)
            due = max(due + pause, time.monotonic() - pause)
            self._stop.wait(max(0.0, due - time.monotonic()))
        connection.close()

    def _get(self, connection: http.client.HTTPConnection) -> None:
        path = next(self._paths)
        answer = ask(connection, self._server.host, "GET", path)
        assert answer.status == 200, (path, answer)

    def _start(self, connection: http.client.HTTPConnection) -> None:
        host = self._server.host
        answer = ask(connection, host, "POST", "/api/v1/start-task", {"duration": 0.2})
        if answer.status == 429:
            # The smoke suite of a release tries the limits, and it comes from this address too.
            return
        assert answer.status == 202, answer
        self.tasks.append(answer.json()["task_id"])
