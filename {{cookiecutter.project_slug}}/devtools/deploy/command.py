"""``flask deploy``: set a server up, release to it, go back, look at it."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NoReturn
from urllib.parse import urlsplit

import click

from ..application import package_name
from ..sections import SectionedGroup
from ..smoke import started
from ..steps import Steps
from .backups import backup, drill, restore
from .git import archive, name_release
from .options import (
    host_argument,
    log_options,
    read_settings,
    read_site_settings,
    release_options,
    site_options,
)
from .server import Server, addresses_of

_PASS_ON: dict[str, Any] = {"ignore_unknown_options": True, "allow_interspersed_args": False}


_SECTIONS = {
    "Bring it there": ("setup", "release", "rollback"),
    "Look after it": ("status", "logs", "run"),
    "Backups": ("backup", "restore", "drill"),
}


@click.group(
    cls=SectionedGroup,
    sections=_SECTIONS,
    short_help="Run it on a server: setup, release, rollback, status, logs.",
)
@click.option("--ssh-config", metavar="FILE", help="Settings of ssh, instead of ~/.ssh/config.")
@click.pass_context
def deploy(ctx: click.Context, ssh_config: str | None) -> None:
    """Run the application on a server of your own.

    HOST is [user@]name[:port]; the user is root, or one that may use sudo without a password.
    docs/deploy-to-a-server.md tells the whole way; deploy/vps/settings.toml holds the settings.
    """
    ctx.obj = ssh_config


for _command in (backup, restore, drill):
    deploy.add_command(_command)


class NoCertificate(click.ClickException):
    """The server is set up, and the site speaks HTTP, because it has no certificate yet."""

    exit_code = 3


_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@deploy.command()
@host_argument
@click.option(
    "--process-manager",
    type=click.Choice(["systemd", "supervisor"]),
    help="What keeps the processes running.",
)
@site_options
@_dry_run
def setup(server: Server, dry_run: bool, **options: str | None) -> None:
    """Make HOST ready for the application.

    What no option says is taken from deploy/vps/settings.toml. A second run changes only what is
    not as it should be. The exit code is 3 when all is done but for the certificate.
    """
    _need_pyinfra()
    settings = _check_settings(server.project, options)
    for name in ("certificate", "key"):
        path = options[name]
        options[name] = str(Path(path).resolve()) if path else None
    server.apply("setup", options, dry_run=dry_run)
    if dry_run:
        return
    if settings["tls"] == "certbot":
        _get_certificate(server, settings["domain"], options)
    click.echo(f"{server.name} is ready. Next: uv run flask deploy release {server}")


@deploy.command()
@host_argument
@release_options
@_dry_run
def release(
    server: Server, allow_dirty: bool, no_smoke: bool, ca: str | None, dry_run: bool
) -> None:
    """Bring the last commit to HOST and switch to it.

    It is checked with the smoke suite; what does not work gives way to the release before.
    """
    name = name_release(server.project, allow_dirty=allow_dirty)
    keep = read_settings(server.project, {})["keep_releases"]
    # Where there is a database, a step brings it to what the release needs.
    built = 4 + (server.project / "deploy" / "database").is_dir()
    steps = built + (2 if no_smoke else 3)
    folder = f"/opt/{package_name()}/releases/{name}"
    switch = (
        f"cd {folder} && STEP=2 STEPS={steps} deploy/vps/build && "
        f"STEP={built} STEPS={steps} deploy/vps/activate {name} {keep}"
    )
    if dry_run:
        click.echo(f"The files of {name} would go to {server.name}; then this would run:\n{switch}")
        return
    began = time.monotonic()
    with Steps(steps).step(f"The files go to {server.name}"):
        url, token = _upload(server, folder)
    with _smoke(server, url, token, ca) if not no_smoke else nullcontext() as smoke:
        if server.run(switch) != 0:
            raise click.ClickException(f"{name} was not released; the lines above say why.")
        if smoke:
            click.echo(f"{steps}/{steps} The smoke suite uses {url} from outside")
            _say_where_dns_leads(server, url)
            if smoke() != 0:
                _give_up(server, name)
    click.echo(f"Released {name} in {time.monotonic() - began:.0f} s.")


@deploy.command()
@host_argument
@_dry_run
def rollback(server: Server, dry_run: bool) -> None:
    """Go back to the release before the running one, and remove that."""
    if dry_run:
        click.echo(f"This would run on {server.name}: {_go_back()}")
    else:
        sys.exit(server.run(_go_back()))


@deploy.command()
@host_argument
def status(server: Server) -> None:
    """Say what runs on HOST; exit code 1 if something is not well."""
    sys.exit(server.run(f"/opt/{package_name()}/current/deploy/vps/status"))


@deploy.command()
@host_argument
@log_options
def logs(server: Server, follow: bool, lines: int) -> None:
    """Show the log lines of web, workers and Redis."""
    name = package_name()
    more = " -f" if follow else ""
    journal = f"journalctl -u '{name}*' -n {lines} --no-pager -o cat{more}"
    files = f"tail -n {lines}{more} /var/log/{name}/*.log"
    supervised = f"test -e /etc/supervisor/conf.d/{name}.conf"
    sys.exit(server.run(f"if {supervised}; then {files}; else {journal}; fi"))


@deploy.command(context_settings=_PASS_ON)
@host_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(server: Server, command: tuple[str, ...]) -> None:
    """Run a command in the release on HOST.

    For example: flask deploy run HOST -- flask celery status
    """
    command = command[1:] if command[0] == "--" else command
    name = package_name()
    current = f"/opt/{name}/current"
    sys.exit(
        server.run(
            f"systemd-run --quiet --collect --wait --pipe --uid={name} --gid={name} "
            f"--working-directory={current} --property=EnvironmentFile=/etc/{name}/env "
            f"--setenv=PATH={current}/.venv/bin:/usr/bin:/bin /usr/bin/env {shlex.join(command)}"
        )
    )


for _found in iter_modules([str(Path(__file__).parent)]):
    # A folder beside this file is another way to deploy, which a project has or has not.
    if _found.ispkg:
        deploy.add_command(
            getattr(import_module(f"{__package__}.{_found.name}.command"), _found.name)
        )


def _check_settings(project: Path, options: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the settings of a set-up. Raises ``click.UsageError`` for what cannot work."""
    settings = read_site_settings(project, options)
    if settings["tls"] == "files" and not (options["certificate"] and options["key"]):
        raise click.UsageError("--tls files needs --certificate FILE and --key FILE.")
    if not (project / "deploy" / settings["process_manager"]).is_dir():
        raise click.UsageError(f"This project has no folder deploy/{settings['process_manager']}.")
    return settings


def _get_certificate(server: Server, domain: str, options: Mapping[str, str | None]) -> None:
    """Have the server get a certificate, unless it has one. Raises ``NoCertificate``."""
    if server.read(f"cat /etc/{package_name()}/url").startswith("https:"):
        return
    if server.read(f"getent ahosts {shlex.quote(domain)} || true"):
        with suppress(click.ClickException):
            server.apply("certificate", options)
            return
        why, cure = f"the authority gave no certificate for {domain} (see above)", "Mend that"
    else:
        why = f"{domain} has no DNS record yet"
        cure = f"Let it lead to {server.address or server.name}"
    raise NoCertificate(
        f"{server.name} is ready, but the site speaks HTTP: {why}. "
        f"{cure} and run the same command again; a release can come before."
    )


def _need_pyinfra() -> None:
    if find_spec("pyinfra") is None:
        raise click.ClickException(
            "flask deploy needs a development installation. Run `uv sync` in the project's folder."
        )


def _go_back() -> str:
    return f"/opt/{package_name()}/current/deploy/vps/activate --previous"


def _upload(server: Server, folder: str) -> tuple[str, str]:
    """Bring the last commit into a folder there; return the site's address and its API token."""
    settings = f"/etc/{package_name()}"
    script = f"""
if ! [ -e {settings}/url ]; then
  echo "It is not set up. First: flask deploy setup {server}" >&2
  exit 1
fi
# Whoever may write there would run what he likes, so no umask of a login counts.
umask 022
mkdir {folder} || exit
tar -xzf - -C {folder} || {{ rm -rf {folder}; exit 1; }}
cat {settings}/url {settings}/env"""
    with tempfile.TemporaryFile() as file:
        archive(server.project, file)
        file.seek(0)
        text = server.read(script, file)
    url, _, lines = text.partition("\n")
    tokens = [line for line in lines.splitlines() if line.startswith("API_TOKEN=")]
    return url, tokens[-1].partition("=")[2].strip("\"'") if tokens else ""


def _give_up(server: Server, name: str) -> NoReturn:
    """Go back from a release that failed the smoke suite. Raises ``click.ClickException``."""
    if server.read(f"ls /opt/{package_name()}/releases").split() == [name]:
        raise click.ClickException(
            f"{name} failed the smoke suite. It is the first release, so it stays: "
            f"look at flask deploy logs {server}, mend it and release again."
        )
    click.echo(f"{name} failed the smoke suite: back to the release before.", err=True)
    server.run(_go_back())
    raise click.ClickException(f"{name} was not released; the release before it runs again.")


def _smoke(
    server: Server, url: str, token: str, ca: str | None
) -> AbstractContextManager[Callable[[], int]]:
    """Start the smoke suite, for the server itself, wherever DNS leads; see ``smoke.started``."""
    arguments = ["--ca", ca] if ca else []
    arguments += ["--connect", server.address] if server.address else []
    return started(url, token, arguments)


def _say_where_dns_leads(server: Server, url: str) -> None:
    """Tell if visitors do not get to the server that is checked."""
    domain = urlsplit(url).hostname or ""
    leads = addresses_of(domain)
    if server.address and not leads & addresses_of(server.address):
        to = f"leads to {', '.join(sorted(leads))}" if leads else "has no DNS record yet"
        click.echo(f"Notice: {domain} {to}. The checks go to {server.address} all the same.")
