"""A project under Docker Compose for tests: brings it up, hurts it, uses it, removes it."""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import support

#: Seconds; generous, because the machine has other things to do.
PATIENCE = 120.0

DEVELOPMENT = "compose.yaml"
PRODUCTION = "compose.production.yaml"

#: Requests per minute: enough for several runs of the smoke suite, few enough to reach in one.
RATE = 280

#: Run in a container: lists pid, parent and command line of each process there.
LIST_PROCESSES = """
import json, pathlib
found = []
for path in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        command = (path / "cmdline").read_text().replace("\\0", " ")
    except OSError:
        continue
    found.append([int(path.name), parent, command])
print(json.dumps(found))
"""


def unique_slug() -> str:
    """Return a project name that no other run uses: images and containers are named after it."""
    return f"t{secrets.token_hex(4)}"


def wait_until(is_true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Look again and again until ``is_true``; fail with ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, f"Waited {seconds:.0f} s in vain until {what}."
        time.sleep(0.25)


@dataclass(frozen=True)
class Process:
    """A process in a container."""

    pid: int
    parent: int
    command: str


@dataclass
class Stack:
    """A generated project, run by Compose from one of its two files; a context manager."""

    project: Path
    file: str
    settings: dict[str, str] = field(default_factory=dict)
    overrides: Sequence[Path] = ()
    scheme: str = "http"

    def __post_init__(self) -> None:
        """Choose ports, and write them and the test's settings behind those in .env."""
        self.port, self.tls_port = support.free_port(), support.free_port()
        settings = {"PORT": str(self.port)}
        if self.file == PRODUCTION:
            settings = {
                "HTTP_PORT": str(self.port),
                "HTTPS_PORT": str(self.tls_port),
                "DOMAIN_NAME": "localhost",
                "REDIS_PASSWORD": secrets.token_hex(16),
                "DATABASE_PASSWORD": secrets.token_hex(16),
                "PUBLIC_DEMO": "yes",
            }
        settings |= {"RATELIMIT_ENQUEUE": f"{RATE} per minute", **self.settings}
        with (self.project / ".env").open("a") as env:
            env.writelines(f"{name}={value}\n" for name, value in settings.items())

    @property
    def slug(self) -> str:
        """The project's name."""
        return self.project.name

    @property
    def name(self) -> str:
        """What Compose calls it; volumes and containers begin with it."""
        return self.slug if self.file == DEVELOPMENT else f"{self.slug}-production"

    @property
    def images(self) -> list[str]:
        """The images that are built for it."""
        if self.file == DEVELOPMENT:
            return [f"{self.slug}:development"]
        return [f"{self.slug}:latest", f"{self.slug}-nginx:latest"]

    @property
    def url(self) -> str:
        """The address of the application."""
        port = self.port if self.scheme == "http" else self.tls_port
        return f"{self.scheme}://localhost:{port}"

    def __enter__(self) -> Stack:
        """Bring it up."""
        try:
            self.up()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove all of it."""
        self.remove()

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run ``docker compose`` for it; return its output."""
        files = [item for file in (self.file, *self.overrides) for item in ("-f", str(file))]
        done = support.run("docker", "compose", *files, *arguments, cwd=self.project)
        output = done.stdout + done.stderr
        assert not check or done.returncode == 0, (
            f"docker compose {' '.join(arguments)}\n{output}\n{self.logs()}"
        )
        return output

    def database(self, command: str, given: bytes = b"") -> bytes:
        """Have the service `backup` do something with the database; return what it prints."""
        compose = ["docker", "compose", "-f", self.file]
        done = subprocess.run(
            [*compose, "run", "--rm", "-T", "--no-deps", "backup", command],
            cwd=self.project, input=given, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def up(self) -> str:
        """Build and start it, and wait until all of it is healthy."""
        return self.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "120")

    def down(self) -> None:
        """Stop it; its data stays."""
        self.compose("down")

    def remove(self) -> None:
        """Remove containers, networks, volumes and images."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)
        label = f"label=org.opencontainers.image.title={self.slug}"
        listed = support.run("docker", "images", "--quiet", "--filter", label, cwd=self.project)
        built = sorted({*self.images, *listed.stdout.split()})
        subprocess.run(["docker", "rmi", "--force", *built], check=False, capture_output=True)

    def logs(self) -> str:
        """Return the last lines of all services."""
        files = [item for file in (self.file, *self.overrides) for item in ("-f", str(file))]
        return support.run(
            "docker", "compose", *files, "logs", "--no-color", "--tail", "40", cwd=self.project
        ).stdout

    def services(self) -> list[str]:
        """Return the names of its services."""
        return self.compose("config", "--services").split()

    def python(self, service: str, code: str, *arguments: str) -> str:
        """Run Python code in a service's container; return its output."""
        return self.compose("exec", "-T", service, "python3", "-c", code, *arguments)

    def processes(self, service: str) -> list[Process]:
        """Return the processes of a service's container."""
        return [Process(*entry) for entry in json.loads(self.python(service, LIST_PROCESSES))]

    def cluster(self) -> list[Process]:
        """Return the processes of `flask celery cluster`, without what watches the code."""
        found = self.processes("worker")
        return [
            it
            for it in found
            if "cluster" in it.command and "watchfiles" not in it.command and it.parent != 0
        ]

    def kill(self, service: str, pid: int) -> None:
        """Kill a process of a container from inside: the engine takes it for a crash."""
        code = "import os, sys; os.kill(int(sys.argv[1]), 9)"
        # Where the container ends by it, this command may end as well.
        self.compose("exec", "-T", service, "python3", "-c", code, str(pid), check=False)

    def kill_main_process(self, service: str) -> None:
        """Kill what process 1, the init, was started for; wait until the container is another."""
        before = self.started_at(service)
        main = next(it for it in self.processes(service) if it.parent == 1)
        self.kill(service, main.pid)
        wait_until(lambda: self.started_at(service) != before, f"{service} is started again")

    def kill_place(self) -> None:
        """Kill the process in which the worker runs its tasks; wait until there is another."""

        def find() -> int | None:
            """Return a process whose parent is the cluster."""
            cluster = {it.pid: it for it in self.cluster()}
            return next((it.pid for it in cluster.values() if it.parent in cluster), None)

        # After the fault before this one the worker may only just have begun.
        wait_until(lambda: find() is not None, "the cluster has a place")
        before = find()
        assert before
        self.kill("worker", before)
        wait_until(lambda: find() not in (None, before), "the cluster has another place")

    def started_at(self, service: str) -> str:
        """Return when the service's container was started last."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return support.succeed(
            "docker", "inspect", "--format", "{{.State.StartedAt}}", container, cwd=self.project
        )

    def smoke(self, *options: str, only: str = "not rate_limit") -> str:
        """Run some checks of the smoke suite against it; return what it says."""
        return self.full_smoke(*options, "--", "-k", only)

    def full_smoke(self, *arguments: str) -> str:
        """Run the whole smoke suite against it; return what it says."""
        done = support.run(
            "uv", "run", "--quiet", "flask", "smoke", self.url, "--wait", "60", *arguments,
            cwd=self.project,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"{output}\n{self.logs()}"
        return output


class Stream:
    """Starts a short task twice a second, and knows which were accepted; a context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.accepted: list[str] = []
        self.refused = 0

    def __enter__(self) -> Stream:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; no further task is started."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            request = urllib.request.Request(
                f"{self._url}/api/v1/start-task",
                b'{"duration": 0.2}',
                {"Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    if answer.status == 202:
                        self.accepted.append(json.load(answer)["task_id"])
            except OSError:
                # Refused or cut off, so not accepted: the client would try again.
                self.refused += 1

    def state(self, task_id: str) -> str:
        """Return the state of a task."""
        url = f"{self._url}/api/v1/task-status/{task_id}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return str(json.load(answer)["status"])
        except urllib.error.HTTPError as error:
            return f"answered with {error.code}"

    def wait_until_all_succeeded(self) -> None:
        """Wait until each accepted task has succeeded; fail if one does not."""
        left = dict.fromkeys(self.accepted, "")

        def all_done() -> bool:
            for task_id in list(left):
                left[task_id] = self.state(task_id)
                if left[task_id] == "SUCCESS":
                    del left[task_id]
            return not left

        try:
            wait_until(all_done, "all accepted tasks have succeeded")
        except AssertionError:
            raise AssertionError(
                f"Of {len(self.accepted)} accepted tasks these are lost: {left}"
            ) from None


def install(project: Path) -> Path:
    """Install the project's dependencies, for its smoke suite, and return it."""
    support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
    return project
