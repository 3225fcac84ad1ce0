"""Machines joined in a Docker Swarm for tests: boots them, releases to them, breaks them."""

from __future__ import annotations

import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import support
import urllib3
from machine import VPS
from targets.authority import build_acme_image, write_acme_settings
from targets.compose import install, unique_slug
from targets.server import wait_until

IMAGE = "node:debian-13"
DOMAIN = "swarm.example.org"
#: The certificate authority, as the machines know it
AUTHORITY = "acme.example.org"
#: Seconds for the Swarm to be whole again; generous, because the machine has other things to do
PATIENCE = 240.0
#: Seconds that a request may take
BOUND = 2.0
_SSH = """\
Host *
  IdentityFile ~/.ssh/id_ed25519
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  LogLevel ERROR
"""
#: What the owner of the project would add to the environment in stack.yaml
_SETTINGS = """\
    PUBLIC_DEMO: "yes"
    RATELIMIT_ENQUEUE: 100000 per minute
"""
#: Seconds from one tick of the schedule to the next; one that comes this much later is late.
TICK, LATE = 5, 3
#: A task on the schedule, which notes in Redis that it ran, and when it was sent
_TICKS = f"""\
import time

from celery.signals import before_task_publish
from flask_background import connect_redis, current_task

from .extensions import celery


@before_task_publish.connect
def note_when(headers, **_) -> None:
    headers["test_sent"] = time.time()


@celery.schedule({TICK}, name="test-tick")
def tick() -> None:
    with connect_redis(celery.redis_url, timeout=2) as redis:
        it = current_task.request
        redis.rpush("test-ticks", f"{{it.id}} {{time.time()}} {{it.get('test_sent')}}")
"""


@dataclass(frozen=True)
class Node:
    """A machine: a container with systemd and an engine of its own."""

    name: str
    address: str

    def run(self, *command: str) -> str:
        """Run a command in it; return what it prints."""
        return support.succeed("docker", "exec", self.name, *command, cwd=Path("/"))

    def docker(self, action: str) -> None:
        """Do to the machine what docker does to a container: stop, kill, start, pause."""
        support.succeed("docker", action, self.name, cwd=Path("/"))


@dataclass
class Machines:
    """Three machines and the project that is deployed to them; a context manager."""

    project: Path
    folder: Path
    name: str = field(default_factory=lambda: f"swarm-{secrets.token_hex(3)}")
    nodes: list[Node] = field(default_factory=list)

    def __enter__(self) -> Machines:
        """Boot the machines, in a network in which they keep their addresses."""
        try:
            self._boot()
        except BaseException:
            self.remove()
            raise
        (self.folder / "ssh_config").write_text(_SSH)
        self._prepare()
        return self

    def _prepare(self) -> None:
        """Set the project up for the tests, and commit it."""
        package = self.project / self.project.name
        (package / "ticks.py").write_text(_TICKS)
        with (package / "__init__.py").open("a") as file:
            file.write("\nfrom . import ticks as ticks  # noqa: E402\n")
        stack = self.project / "deploy/swarm/stack.yaml"
        text, mark = stack.read_text(), '    TRUSTED_PROXIES: "1"\n'
        assert mark in text
        stack.write_text(text.replace(mark, mark + _SETTINGS))
        support.git_commit_all(self.project, "Begin")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove all of it."""
        self.remove()

    def _boot(self) -> None:
        here = VPS.parent
        known = support.run("docker", "image", "inspect", IMAGE, cwd=here)
        if known.returncode:
            support.succeed("docker", "build", "--quiet", "-t", IMAGE, "images/node", cwd=here)
        subnet = f"10.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}"
        support.succeed(
            "docker", "network", "create", "--subnet", f"{subnet}.0/24", self.name, cwd=here
        )
        self.nodes = [Node(f"{self.name}-{it}", f"{subnet}.1{it}") for it in (1, 2, 3)]
        acme = self.folder / "acme"
        acme.mkdir()
        write_acme_settings(acme, AUTHORITY, (80, 443), days=25)

        def boot(node: Node) -> None:
            hosts = ("--add-host", f"{AUTHORITY}:{subnet}.9")
            options = ("--network", self.name, "--ip", node.address, *hosts)
            support.succeed(VPS, node.name, *options, cwd=here, VPS_IMAGE=IMAGE)
            trusted = "/usr/local/share/ca-certificates"
            node.run("mkdir", "-p", trusted)
            support.succeed(
                "docker", "cp", acme / "ca.pem", f"{node.name}:{trusted}/acme.crt", cwd=here
            )
            node.run("sh", "-c", "! command -v update-ca-certificates || update-ca-certificates")

        with ThreadPoolExecutor() as pool:
            list(pool.map(boot, self.nodes))
        self._start_authority(f"{subnet}.9", acme)

    def _start_authority(self, address: str, folder: Path) -> None:
        """Start pebble, which asks the last machine for the domain; clients trust its root."""
        image = f"{self.name}-acme"
        build_acme_image(image)
        support.succeed(
            "docker", "run", "--detach", "--name", image, "--network", self.name, "--ip", address,
            "--add-host", f"{DOMAIN}:{self.nodes[-1].address}", "--env", "PEBBLE_VA_NOSLEEP=1",
            "--volume", f"{folder}:/acme:ro", image, "pebble", "-config", "/acme/pebble.json",
            cwd=folder,
        )  # fmt: skip
        http = urllib3.PoolManager(
            ca_certs=f"{folder}/ca.pem", server_hostname=AUTHORITY, retries=False, timeout=10
        )

        def root() -> bool:
            try:
                answer = http.request("GET", f"https://{address}:15000/roots/0")
            except urllib3.exceptions.HTTPError:
                return False
            (self.folder / "ca.pem").write_bytes(answer.data)
            return True

        wait_until(root, "the certificate authority answers")

    def remove(self) -> None:
        """Remove machines, network and images."""
        names = [*(node.name for node in self.nodes), f"{self.name}-acme"]
        subprocess.run(["docker", "rm", "-f", "-v", *names], check=False, capture_output=True)
        subprocess.run(["docker", "network", "rm", self.name], check=False, capture_output=True)
        label = f"label=org.opencontainers.image.title={self.project.name}"
        built = support.run("docker", "images", "-q", "--filter", label, cwd=self.folder)
        subprocess.run(
            ["docker", "rmi", "--force", f"{self.name}-acme", *set(built.stdout.split())],
            check=False,
            capture_output=True,
        )

    def flask(self, command: str, *arguments: str, code: int = 0) -> str:
        """Run ``flask deploy swarm``, which exits with ``code``; return what it prints."""
        options = ("--ssh-config", f"{self.folder}/ssh_config", "swarm", command, *arguments)
        done = support.run("uv", "run", "--quiet", "flask", "deploy", *options, cwd=self.project)
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}\n{self.state()}"
        return done.stdout + done.stderr

    def setup(self) -> str:
        """Set the machines up; certbot gets the certificate at the first release."""
        authority = f"https://{AUTHORITY}:14000/dir"
        site = ("--domain", DOMAIN, "--tls", "certbot", "--acme-server", authority)
        return self.flask("setup", *site, *(f"root@{node.address}" for node in self.nodes))

    def release(self, *options: str) -> str:
        """Release the last commit."""
        ca = ("--ca", f"{self.folder}/ca.pem")
        return self.flask("release", *ca, *options, f"root@{self.nodes[0].address}")

    def smoke(self) -> str:
        """Run the smoke suite against each machine; return the last line of the last one."""
        for node in self.nodes:
            web = self.container(node, "web")
            token = node.run("docker", "exec", web, "cat", "/run/secrets/API_TOKEN")
            done = support.run(
                "uv", "run", "--quiet", "flask", "smoke", f"https://{DOMAIN}", "--ca",
                f"{self.folder}/ca.pem", "--connect", node.address, "--", "-k", "not rate_limit",
                cwd=self.project, API_TOKEN=token,
            )  # fmt: skip
            assert done.returncode == 0, f"{node}\n{done.stdout}{done.stderr}\n{self.state()}"
        return done.stdout.strip().splitlines()[-1]

    def state(self) -> str:
        """Say what runs where, for a failure."""
        said = ""
        for node in self.nodes:
            done = support.run(
                "docker", "exec", node.name, "sh", "-c",
                "docker node ls; "
                "docker stack ps --no-trunc $(docker stack ls --format '{{.Name}}')",
                cwd=self.folder,
            )  # fmt: skip
            said += f"{node.name}\n{done.stdout[-6000:]}{done.stderr[-500:]}\n"
            if done.returncode == 0:
                break
        return said

    def certificate(self, node: Node) -> str:
        """Return the certificate that a machine shows; fails if the authority did not sign it."""
        context = ssl.create_default_context(cafile=f"{self.folder}/ca.pem")
        with (
            socket.create_connection((node.address, 443), 10) as plain,
            context.wrap_socket(plain, server_hostname=DOMAIN) as secure,
        ):
            return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")

    def container(self, node: Node, service: str) -> str:
        """Return the id of a service's container on a machine."""
        name = f"name={self.project.name}_{service}"
        return node.run("docker", "ps", "-q", "-f", name).split()[0]

    def primary(self, ask: Node) -> Node | None:
        """Return the machine with Redis' primary, as the sentinel of one of them knows it."""
        try:
            said = node_says(ask, self.container(ask, "sentinel"), self.project.name)
        except (AssertionError, IndexError):
            return None
        return next((node for node in self.nodes if node.address == said), None)

    def leader(self, ask: Node) -> Node:
        """Return the machine that leads the Swarm."""
        form = "{{.Hostname}}:{{.ManagerStatus}}"
        lines = ask.run("docker", "node", "ls", "--format", form).split()
        return next(it for it in self.nodes if f"{it.name}:Leader" in lines)

    def scheduler(self) -> Node:
        """Return the machine whose scheduler leads."""
        container = self.redis("get", f"{self.project.name}:background:scheduler:lease")
        return next(
            node
            for node in self.nodes
            if container.partition(":")[0].startswith(self.container(node, "worker")[:12])
        )

    def redis(self, *command: str) -> str:
        """Return the primary's answer to a command."""
        node = self.primary(self.nodes[0])
        assert node
        line = f"REDISCLI_AUTH=$(cat /run/secrets/REDIS_PASSWORD) redis-cli {' '.join(command)}"
        return node.run("docker", "exec", self.container(node, "redis"), "sh", "-c", line)

    def ticks(self, since: int = 0) -> Ticks:
        """Return which ticks of the schedule ran, but for the first ones."""
        said = self.redis("lrange", "test-ticks", f"{since}", "-1")
        return Ticks([line.split() for line in said.splitlines() if line])

    def ready(self, nodes: list[Node]) -> bool:
        """Tell whether each of the machines answers that it is ready, with all the workers."""
        http = self.http()
        for node in nodes:
            try:
                answer = http.request("GET", f"https://{node.address}/readyz")
            except urllib3.exceptions.HTTPError:
                return False
            if answer.status != 200 or answer.json()["workers"] < len(nodes):
                return False
        return True

    def wait_until_whole(self) -> float:
        """Wait until all machines are ready; return how long it took."""
        began = time.monotonic()
        wait_until(lambda: self.ready(self.nodes), "all machines are ready", PATIENCE)
        return time.monotonic() - began

    def http(self) -> urllib3.PoolManager:
        """Return a client that takes each machine for the domain."""
        return urllib3.PoolManager(
            ca_certs=f"{self.folder}/ca.pem",
            server_hostname=DOMAIN,
            headers={"Host": DOMAIN, "Accept": "application/json"},
            timeout=10,
            retries=False,
        )


@dataclass
class Ticks:
    """Ticks of the schedule that ran: the task's id and the times, as they were noted."""

    noted: list[list[str]]

    def __len__(self) -> int:
        """Return how many notes there are."""
        return len(self.noted)

    def pauses(self, column: int = 1) -> list[float]:
        """Return the seconds from each tick to the next; one that ran again counts once."""
        first: dict[str, float] = {}
        for note in self.noted:
            first.setdefault(note[0], float(note[column]))
        times = sorted(first.values())
        return [b - a for a, b in pairwise(times)]

    @property
    def shortest(self) -> float:
        """The shortest time from one to the next as they were sent: one may run late."""
        return min(self.pauses(column=2))

    @property
    def late(self) -> list[float]:
        """The pauses at whose end a tick was late."""
        return [pause for pause in self.pauses() if pause > TICK + LATE]

    def line(self) -> str:
        """Say how it went, for the table."""
        pauses = self.pauses()
        late = ", ".join(f"after {pause:.0f} s" for pause in self.late) or "none"
        return f"{len(pauses) + 1} ticks of the schedule, of them late: {late}"


@contextmanager
def deployed(
    render: Callable[[support.Answers], Path], folder: Path, *options: str
) -> Iterator[Machines]:
    """Boot three machines and release a new project to them."""
    project = install(render({"use_swarm": "yes", "project_slug": unique_slug()}))
    with Machines(project, folder) as machines:
        machines.setup()
        machines.release(*options)
        yield machines


def node_says(node: Node, sentinel: str, name: str) -> str:
    """Return the address that a sentinel gives for the primary."""
    ask = (
        "REDISCLI_AUTH=$(cat /run/secrets/REDIS_PASSWORD) "
        f"redis-cli -p 26379 --raw sentinel get-master-addr-by-name {name} | head -1"
    )
    return node.run("docker", "exec", sentinel, "sh", "-c", ask).strip()


@dataclass
class Sent:
    """A request that was answered, or was not: status 0."""

    node: Node
    at: float
    seconds: float
    status: int
    task: str = ""


class Load:
    """Clients of each machine, which look at the page and start tasks; a context manager."""

    def __init__(self, machines: Machines, tasks: float = 4, pages: float = 12) -> None:
        self.machines = machines
        self.sent: list[Sent] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(node, action, 1 / rate), daemon=True)
            for node in machines.nodes
            for action, rate in ((self._start, tasks), (self._look, pages))
        ]

    def __enter__(self) -> Load:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, when the last answers are there."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, node: Node, action: Callable[..., Sent], pause: float) -> None:
        http = self.machines.http()
        while not self._stop.wait(pause):
            self.sent.append(action(http, node))

    def _ask(self, http: urllib3.PoolManager, node: Node, *request: str, body: str = "") -> Sent:
        at, status, task = time.monotonic(), 0, ""
        try:
            method, path = request
            headers = {**http.headers, **({"Content-Type": "application/json"} if body else {})}
            url = f"https://{node.address}{path}"
            answer = http.request(method, url, body=body or None, headers=headers)
            status = answer.status
            if status == 202:
                task = answer.json()["task_id"]
        except urllib3.exceptions.HTTPError:
            pass
        return Sent(node, at, time.monotonic() - at, status, task)

    def _look(self, http: urllib3.PoolManager, node: Node) -> Sent:
        return self._ask(http, node, "GET", "/")

    def _start(self, http: urllib3.PoolManager, node: Node) -> Sent:
        return self._ask(http, node, "POST", "/api/v1/start-task", body='{"duration": 0.2}')

    @property
    def accepted(self) -> list[str]:
        """The tasks that were answered with 202."""
        return [one.task for one in self.sent if one.task]

    def accepted_after(self, moment: float) -> bool:
        """Tell whether a task was accepted that was sent after a moment."""
        return any(one.task and one.at > moment for one in self.sent)

    def lost(self, seconds: float = PATIENCE) -> list[str]:
        """Wait until the accepted tasks have succeeded; return those that have not."""
        left, http = self.accepted, self.machines.http()
        end = time.monotonic() + seconds
        while left and time.monotonic() < end:
            left = [task for task in left if not self._succeeded(http, task)]
        return left

    def _succeeded(self, http: urllib3.PoolManager, task: str) -> bool:
        # Not faster than nginx allows one address to ask
        time.sleep(0.012)
        url = f"https://{self.machines.nodes[0].address}/api/v1/task-status/{task}"
        try:
            answer = http.request("GET", url)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200 and answer.json()["status"] == "SUCCESS"

    def line(self, fault: str, hurt: list[Node], began: float, whole: float) -> str:
        """Say what happened, in one line of the table; ``hurt`` are the machines that were lost."""
        living = [one for one in self.sent if one.node not in hurt]
        refused = [one for one in living if one.status not in (200, 202)]
        slow = sum(one.seconds > BOUND for one in living)
        slowest = max((one.seconds for one in living), default=0)
        after = [one.at for one in self.sent if one.task and one.at > began]
        gaps = [b - a for a, b in zip([began, *after], after, strict=False)]
        kinds = ", ".join(sorted({str(one.status) for one in refused})) or "none"
        return (
            f"{fault}: {len(self.accepted)} accepted; of {len(living)} requests to living machines "
            f"{len(refused)} refused ({kinds}), {slow} above 2 s, slowest {slowest:.1f} s; "
            f"longest without an accepted task {max(gaps, default=0):.1f} s; whole {whole:.0f} s "
            "after the machine was back"
        )
