"""The Swarm: which machines it has, and what is asked of it through one of its managers."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import shlex
import tempfile
import time
from dataclasses import dataclass
from typing import NamedTuple

import click

from ...application import PROJECT, package_name
from ..server import Server, addresses_of

#: So many machines manage the Swarm and hold Redis: any one of three may be lost.
MOST_MANAGERS = 3
#: What the application needs to be told in secret
SECRETS = ("SECRET_KEY", "API_TOKEN", "REDIS_PASSWORD")
_RANDOM = "head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'"
#: Seconds for a release to run everywhere
PATIENCE = 900


@dataclass(frozen=True)
class Machine:
    """A machine of the Swarm. ``address`` is where the others reach it."""

    id: str
    server: Server
    address: str
    ready: bool
    manager: bool
    redis: bool


def own_address(server: Server, network: str | None) -> str:
    """Return the address at which the other machines reach this one.

    It is the one that ssh goes to, or the one in ``network``. Raises ``click.ClickException``.
    """
    own = {it for it in server.read("hostname -I").split() if ":" not in it}
    if network:
        inside = ipaddress.ip_network(network)
        found = {it for it in own if ipaddress.ip_address(it) in inside}
    else:
        found = own & addresses_of(server.address or server.name)
    if len(found) != 1:
        raise click.ClickException(
            f"{server.name} has the addresses {', '.join(sorted(own))}. Say in which network the "
            "machines reach each other: --network 10.0.0.0/24"
        )
    return found.pop()


class Certificate(NamedTuple):
    """A secret with a certificate and its key; ``digest`` is empty where it holds none."""

    secret: str
    domain: str
    digest: str


class Swarm:
    """The Swarm as one of its managers sees it."""

    def __init__(self, manager: Server) -> None:
        self.manager = manager
        self.name = package_name()

    def machines(self) -> list[Machine]:
        """Return the machines, in the order of their addresses; those that are lost, too."""
        nodes = json.loads(self.docker("node inspect $(docker node ls -q)"))
        found = []
        for node in nodes:
            labels = node["Spec"].get("Labels", {})
            if "ssh" not in labels:
                continue  # joined a moment ago
            server = Server.parse(labels["ssh"], PROJECT, self.manager.ssh_config)
            found.append(
                Machine(
                    id=node["ID"],
                    server=server,
                    address=labels["address"],
                    ready=node["Status"]["State"] == "ready",
                    manager=node["Spec"]["Role"] == "manager",
                    redis=labels.get("redis") == "yes",
                )
            )
        return sorted(found, key=lambda one: ipaddress.ip_address(one.address))

    def docker(self, command: str) -> str:
        """Return what a docker command prints on the manager. Raises ``click.ClickException``."""
        return self.manager.read(f"docker {command}")

    def join(self, server: Server, address: str) -> None:
        """Have a machine in the Swarm, as a manager while there are fewer than three of them."""
        state = server.read("docker info -f '{{.Swarm.LocalNodeState}} {{.Swarm.NodeID}}'").split()
        managers = self.docker("node ls -q -f role=manager").split()
        role = "manager" if len(managers) < MOST_MANAGERS else "worker"
        if state[0] != "active":
            token = self.docker(f"swarm join-token -q {role}").strip()
            to = self.docker("info -f '{{.Swarm.NodeAddr}}'").strip()
            server.read(
                f"docker swarm join --token {token} --advertise-addr {address} "
                f"--listen-addr {address} {to}:2377"
            )
            click.echo(f"{server.name} joined as a {role}.")
        node = server.read("docker info -f '{{.Swarm.NodeID}}'").strip()
        if role == "manager" and node not in managers:
            self.docker(f"node promote {node}")
        redis = sum(one.redis for one in self.machines() if one.id != node) < MOST_MANAGERS
        labels = {"ssh": str(server), "address": address} | ({"redis": "yes"} if redis else {})
        wanted = " ".join(f"--label-add {shlex.quote(f'{k}={v}')}" for k, v in labels.items())
        self.docker(f"node update {wanted} {node}")

    def add_secrets(self) -> None:
        """Have the secrets: what is there stays as it is."""
        there = self.docker("secret ls --format '{{.Name}}'").split()
        for secret in SECRETS:
            if f"{self.name}_{secret}" not in there:
                self.manager.read(f"{_RANDOM} | docker secret create {self.name}_{secret} -")
                click.echo(f"The secret {self.name}_{secret} is made.")

    def add_certificate(self, domain: str, text: str) -> None:
        """Have a certificate with its key; with no text the one there is for the domain stays."""
        now, digest = self.certificate(), hashlib.sha256(text.encode()).hexdigest() if text else ""
        if now.domain == domain and digest in ("", now.digest):
            return
        create = (
            f"docker secret create --label domain={domain} --label digest={digest} "
            f"{self.name}_certificate_$(date +%s) -"
        )
        # By standard input, a key is in no list of processes.
        with tempfile.TemporaryFile() as file:
            file.write((text or "none").encode())
            file.seek(0)
            self.manager.read(create, given=file)
        click.echo(f"{domain} {'has another certificate' if text else 'has none: plain HTTP'}.")

    def certificate(self) -> Certificate:
        """Return the newest certificate; its name is empty if there is none yet."""
        names = self.docker(f"secret ls -q -f name={self.name}_certificate_").split()
        if not names:
            return Certificate("", "", "")
        found = json.loads(self.docker(f"secret inspect {' '.join(names)}"))
        newest = max((it["Spec"] for it in found), key=lambda it: str(it["Name"]))
        labels = newest["Labels"]
        return Certificate(newest["Name"], labels["domain"], labels["digest"])

    def token(self) -> str:
        """Return the API token, from a container: the Swarm itself does not give it out."""
        return self.manager.read(
            f"docker exec $(docker ps -q -f name={self.name}_web -f health=healthy | head -1) "
            "cat /run/secrets/API_TOKEN"
        )

    def running(self) -> str:
        """Return the release that runs; empty before the first."""
        image = self.manager.read(
            f"docker service inspect -f '{{{{.Spec.TaskTemplate.ContainerSpec.Image}}}}' "
            f"{self.name}_web 2>/dev/null || true"
        )
        return image.strip().partition(":")[2]

    def up(self, release: str) -> bool:
        """Deploy a release that is on the machines; tell whether all of it runs."""
        certificate = self.certificate()
        redis = [one.address for one in self.machines() if one.redis]
        given = {"VERSION": release, "REDIS_MACHINES": ",".join(redis)}
        given |= {"CERTIFICATE": certificate.secret, "DOMAIN_NAME": certificate.domain}
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
        done = self.manager.run(
            f"set -e; cd {self.folder(release)}; export {variables}; "
            "for file in start healthy redis; do digest=$(sha256sum $file.sh | cut -c -12); "
            'export "$(echo $file | tr a-z A-Z)_SH=$digest"; done; '
            "docker stack deploy --detach --prune --quiet --resolve-image never -c stack.yaml "
            f"{self.name}"
        )
        if done or not self.settles():
            return False
        images = self.docker(f"stack services {self.name} --format '{{{{.Image}}}}'").split()
        return sum(image.endswith(f":{release}") for image in images) == 3

    def get_certificate(self) -> bool:
        """Have certbot get the certificate, if it is to and one is due; tell whether all is well.

        The machine that leads does it; the others do nothing.
        """
        program = f"/usr/local/sbin/{self.name}-certificate"
        line = f"if [ -e {program} ]; then {program}; fi"
        managers = [one.server for one in self.machines() if one.manager and one.ready]
        return not any(server.run(line) for server in managers) and self.settles()

    def shown_until(self) -> str:
        """Say until when the certificate holds that nginx shows; empty if it shows none."""
        shown = self.manager.read(
            "openssl s_client -connect 127.0.0.1:443 </dev/null 2>/dev/null "
            f"-servername {shlex.quote(self.certificate().domain)} | "
            "openssl x509 -noout -enddate -dateopt iso_8601 2>/dev/null || true"
        )
        return shown.strip().partition("=")[2]

    def settles(self) -> bool:
        """Wait until nothing changes any more; tell whether it came to that."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(2)  # before the first look, too: the Swarm begins a moment later
            if self._settled():
                return True
        return False

    def _settled(self) -> bool:
        """Tell whether nothing changes any more, and all runs on the machines that live.

        Docker's own waiting does not end while a machine is lost.
        """
        changing = self.docker(
            f"service inspect $(docker stack services -q {self.name}) "
            "-f '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}'"
        ).split()
        tasks = self.docker(
            f"stack ps {self.name} -f desired-state=running --format '{{{{.CurrentState}}}}'"
        ).splitlines()
        wanted = sum(5 if one.redis else 3 for one in self.machines() if one.ready)
        running = sum(task.startswith("Running") for task in tasks)
        return not {"updating", "rollback_started"} & set(changing) and running >= wanted

    def remove(self, machine: Machine) -> None:
        """Take a machine away; if it lives, what runs on it is stopped first."""
        if machine.ready:
            self.docker(f"node update --availability drain {machine.id}")
            left = f"docker node ps -f desired-state=running -q {machine.id} | grep -q ."
            self.manager.read(f"for i in $(seq 60); do {left} || break; sleep 1; done")
        if machine.manager:
            self.docker(f"node demote {machine.id}")
        self.docker(f"node rm --force {machine.id}")
        # The others count how many sentinels there are, and would go on to count it.
        forget = (
            f"docker exec $(docker ps -q -f name={self.name}_sentinel) sh -c "
            "'REDISCLI_AUTH=$(cat /run/secrets/REDIS_PASSWORD) "
            f"redis-cli -p 26379 sentinel reset {self.name}'"
        )
        for one in self.machines():
            if machine.redis and one.redis and one.ready:
                one.server.read(forget)

    def forget_old(self, server: Server, keep: int) -> None:
        """Remove from a machine what is left of releases, but for the newest ones."""
        image = self.name.replace("_", "-")
        server.read(
            f"cd {self.folder('')}; ls -r | tail -n +{keep + 1} | while read old; do rm -r $old; "
            f"docker image rm {image}:$old {image}-nginx:$old; done >/dev/null 2>&1 || true"
        )

    def folder(self, release: str) -> str:
        """Return where a release's files are on each machine."""
        return f"/opt/{self.name}/releases/{release}"
