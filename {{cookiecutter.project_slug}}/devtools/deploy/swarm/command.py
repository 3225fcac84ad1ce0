"""``flask deploy swarm``: set machines up, release to them, go back, look at them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from ...application import PROJECT
from ...smoke import run_suite
from ..git import name_release
from ..options import (
    host_argument,
    hosts_argument,
    log_options,
    machine_argument,
    read_settings,
    read_site_settings,
    release_options,
    site_options,
)
from ..server import Server
from .cluster import MOST_MANAGERS, Machine, Swarm, own_address
from .images import bring, bring_files, build, for_all, lacking

#: What a machine needs that was away during a release
_MISSED = "the next release brings it what it lacks, or setup, which releases nothing."


@click.group(
    short_help="Run it on several machines: setup, release, rollback, status, logs, remove."
)
def swarm() -> None:
    """Run the application on several machines, any one of which may be lost.

    HOST is [user@]name[:port] of any machine that lives. docs/swarm.md tells the whole way;
    deploy/vps/settings.toml has the domain, deploy/swarm/stack.yaml what runs.
    """


@swarm.command()
@hosts_argument
@click.option("--network", metavar="CIDR", help="Where the machines reach each other.")
@site_options
def setup(servers: list[Server], network: str | None, **options: str | None) -> None:
    """Make the machines ready and join them; give all of them, three or more.

    A second run changes only what is not as it should be. A machine that is new in the list is
    added, and gets the release that runs; a new certificate takes the place of the old one.
    """
    files = [options.pop(name) for name in ("certificate", "key")]
    if any(files) != all(files):
        raise click.UsageError("--certificate FILE and --key FILE belong together.")
    if len({server.name for server in servers}) < MOST_MANAGERS:
        raise click.UsageError("Give three machines or more: of two, neither survives the other.")
    if all(files):
        options["tls"] = "files"
    settings = read_site_settings(PROJECT, options)
    addresses = [own_address(server, network) for server in servers]
    data = {"machines": ",".join(addresses), **options}
    for_all(lambda server: server.apply("machine", data, folder="swarm"), servers)
    asked = "docker info -f '{{.Swarm.ControlAvailable}}'"
    managers = [server for server in servers if server.read(asked).strip() == "true"]
    if not managers:
        servers[0].read(
            f"docker swarm init --advertise-addr {addresses[0]} --listen-addr {addresses[0]}"
        )
        managers = servers[:1]
    swarm = Swarm(managers[0])
    for server, address in zip(servers, addresses, strict=True):
        swarm.join(server, address)
    swarm.add_secrets()
    pieces = [Path(file).read_text() for file in files if file]
    swarm.add_certificate(settings["domain"], "\n".join(pieces))
    if release := swarm.running():
        # Machines that are new, or were away when it was released
        others = [server for server in servers if server is not managers[0]]
        _bring(swarm, release, others, source=managers[0])
        if not swarm.up(release):
            raise click.ClickException(f"{release} does not run everywhere.")
    click.echo(f"The machines are ready. Next: uv run flask deploy swarm release {servers[0]}")


@swarm.command()
@host_argument
@release_options
def release(server: Server, allow_dirty: bool, no_smoke: bool, ca: str | None) -> None:
    """Bring the last commit to all machines and switch to it, one machine after the other.

    Each is checked with the smoke suite; what does not work gives way to the release before.
    """
    name = name_release(PROJECT, allow_dirty=allow_dirty)
    swarm = Swarm(server)
    before, machines = swarm.running(), _living(swarm)
    build(name, swarm.docker("version -f '{{.Server.Os}}/{{.Server.Arch}}'").strip())
    _bring(swarm, name, [one.server for one in machines])
    good = swarm.up(name)
    if good and not swarm.get_certificate():
        click.echo("There is no new certificate; the lines above say why.", err=True)
    if good and not no_smoke:
        good = _smoke(swarm, machines, ca)
    if good:
        keep = read_settings(PROJECT, {})["keep_releases"]
        for_all(lambda one: swarm.forget_old(one.server, keep), machines)
        click.echo(f"Released {name}.")
        return
    if not before:
        raise click.ClickException(f"{name} does not work. It is the first release, so it stays.")
    click.echo(f"{name} does not work: back to {before}.", err=True)
    swarm.up(before)
    raise click.ClickException(f"{name} was not released; {before} runs again.")


@swarm.command()
@host_argument
def rollback(server: Server) -> None:
    """Go back to the release before the running one."""
    swarm = Swarm(server)
    now = swarm.running()
    older = [it for it in swarm.manager.read(f"ls {swarm.folder('')}").split() if it < now]
    if not older:
        raise click.ClickException("There is no release to go back to.")
    if not swarm.up(max(older)):
        raise click.ClickException(f"{max(older)} does not run everywhere.")
    click.echo(f"{max(older)} runs.")


@swarm.command()
@host_argument
def status(server: Server) -> None:
    """Say what runs on which machine; exit code 1 if something is not well."""
    swarm = Swarm(server)
    release = swarm.running()
    click.echo(f"{release or 'No release'}\n")
    click.echo(swarm.docker("node ls"))
    click.echo(swarm.docker(f"stack services {swarm.name} || true"))
    until, soon = swarm.shown_until(), datetime.now(UTC) + timedelta(days=14)
    ends = bool(until) and datetime.fromisoformat(until) < soon
    certificate = f"The certificate ends: {until}" if until else "No certificate: plain HTTP"
    click.echo(certificate, err=ends)
    bad = []
    for one in swarm.machines():
        if not one.ready:
            bad.append(f"{one.server.name} does not answer.")
        elif release and lacking(release, one.server):
            bad.append(f"{one.server.name} lacks {release}: {_MISSED}")
    replicas = swarm.docker(f"stack services {swarm.name} --format '{{{{.Replicas}}}}'").split()
    short = [it for it in replicas if len(set(it.split("/"))) > 1]
    for line in bad:
        click.echo(line, err=True)
    sys.exit(1 if bad or short or ends or not replicas else 0)


@swarm.command()
@host_argument
@log_options
def logs(server: Server, follow: bool, lines: int) -> None:
    """Show the log lines of all machines."""
    more = "-f" if follow else ""
    services = f"$(docker stack services {Swarm(server).name} --format '{{{{.Name}}}}')"
    sys.exit(
        server.run(
            f"for it in {services}; do docker service logs --tail {lines} {more} $it & done; wait"
        )
    )


@swarm.command()
@host_argument
@machine_argument
def remove(server: Server, machine: Server) -> None:
    """Take MACHINE away, whether it lives or is lost."""
    swarm = Swarm(server)
    found = [one for one in swarm.machines() if str(one.server) == str(machine)]
    if not found or str(server) == str(machine):
        raise click.ClickException(f"{machine} is not one of the other machines.")
    swarm.remove(found[0])
    click.echo(
        f"{machine.name} is no part any more. If it lives: docker swarm leave --force there."
    )


def _living(swarm: Swarm) -> list[Machine]:
    machines = swarm.machines()
    for one in machines:
        if not one.ready:
            click.echo(f"{one.server.name} does not answer, and is left out.", err=True)
            click.echo(f"When it is back: {_MISSED}", err=True)
    return [one for one in machines if one.ready]


def _bring(swarm: Swarm, name: str, servers: list[Server], source: Server | None = None) -> None:
    """Bring a release to machines, from here or from another machine; what they have stays."""
    lack = {image: None for server in servers for image in lacking(name, server)}
    if lack:
        to = [server for server in servers if lacking(name, server)]
        click.echo(f"{', '.join(lack)} to {', '.join(server.name for server in to)}")
        bring(list(lack), to, source)
    for_all(lambda server: bring_files(swarm.folder(name), server, source), servers)


def _smoke(swarm: Swarm, machines: list[Machine], ca: str | None) -> bool:
    """Run the smoke suite against each machine itself, wherever DNS leads."""
    certificate, token = swarm.certificate(), swarm.token()
    url = f"{'https' if certificate.digest else 'http'}://{certificate.domain}"
    for one in machines:
        # The last of them all tries the limit, which is common to the machines.
        arguments = [] if one is machines[-1] else ["-k", "not rate_limit"]
        arguments += ["--connect", one.server.address or one.address]
        arguments += ["--ca", ca] if ca else []
        click.echo(f"\n{one.server.name}")
        if run_suite(url, token, arguments):
            return False
    return True
