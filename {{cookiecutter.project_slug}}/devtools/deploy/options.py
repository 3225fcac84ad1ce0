"""What the commands for one server and for several take: HOST, options, settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ..application import PROJECT
from .server import Server
from .settings import read

Decorator = Callable[[Any], Any]


def _parse(ctx: click.Context, _: click.Parameter, host: str | tuple[str, ...]) -> Any:
    if isinstance(host, str):
        return Server.parse(host, PROJECT, ctx.obj)
    return [Server.parse(one, PROJECT, ctx.obj) for one in host]


def _together(*decorators: Decorator) -> Decorator:
    def decorate(command: Any) -> Any:
        for one in reversed(decorators):
            command = one(command)
        return command

    return decorate


#: The server of a command; ``flask deploy`` has put the file of ``--ssh-config`` into ``obj``.
host_argument = click.argument("server", metavar="HOST", callback=_parse)
hosts_argument = click.argument(
    "servers", metavar="HOST...", nargs=-1, required=True, callback=_parse
)
machine_argument = click.argument("machine", metavar="MACHINE", callback=_parse)

site_options = _together(
    click.option("--domain", metavar="NAME", help="The name that people type."),
    click.option(
        "--tls",
        type=click.Choice(["certbot", "files", "none"]),
        help="The certificate: from Let's Encrypt, from two files, or none.",
    ),
    click.option(
        "--certificate", type=click.Path(exists=True), help="With --tls files: full chain."
    ),
    click.option("--key", type=click.Path(exists=True), help="With --tls files: private key."),
    click.option("--acme-server", metavar="URL", help="Another authority than Let's Encrypt."),
)
release_options = _together(
    click.option("--allow-dirty", is_flag=True, help="Release although files are not committed."),
    click.option("--no-smoke", is_flag=True, help="Do not run the smoke suite against it."),
    click.option("--ca", metavar="FILE", help="The authority that signed its certificate."),
)
log_options = _together(
    click.option("--follow", "-f", is_flag=True, help="Go on as lines come."),
    click.option("--lines", "-n", default=100, show_default=True, help="So many of the last ones."),
)


def read_settings(project: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings. Raises ``click.UsageError`` for a wrong one."""
    try:
        return read(project, options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def read_site_settings(project: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a set-up. Raises ``click.UsageError`` where certbot cannot work."""
    settings = read_settings(project, options)
    if settings["tls"] == "certbot" and settings["domain"].endswith("example.com"):
        raise click.UsageError(
            f"Nobody gets a certificate for {settings['domain']}. Write your domain into "
            "deploy/vps/settings.toml, or begin without one: --tls none."
        )
    return settings
