"""``flask smoke URL``: prove a running deployment by using it from outside (see ``smoke/``)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

import click

from .application import PROJECT


@click.command(
    "smoke",
    short_help="Use a running deployment from outside, and say what works.",
)
@click.argument("url", default="http://127.0.0.1:8000")
@click.option(
    "--api-token",
    envvar="API_TOKEN",
    metavar="TOKEN",
    help="The deployment's API token; else the variable API_TOKEN.",
)
@click.option("--ca", metavar="FILE", help="The authority that signed the certificate.")
@click.option("--insecure", is_flag=True, help="Accept any certificate.")
@click.option("--connect", metavar="ADDRESS", help="Speak to this address, wherever DNS leads.")
@click.option("--wait", metavar="SECONDS", help="How long it may take to become ready (10).")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def smoke(
    url: str,
    api_token: str | None,
    insecure: bool,
    pytest_arguments: tuple[str, ...],
    **options: str | None,
) -> None:
    """Check the deployment at URL from outside; by default the one that `flask dev` runs.

    What stands behind -- goes to pytest: flask smoke URL -- -k page. The exit code is 0 if all is
    well.
    """
    arguments = [f"--{name}={value}" for name, value in options.items() if value]
    arguments += ["--insecure"] if insecure else []
    sys.exit(run_suite(url, api_token or "", [*arguments, *pytest_arguments]))


def run_suite(url: str, token: str, arguments: Sequence[str]) -> int:
    """Run the suite with more arguments of pytest; return its exit code.

    Raises ``click.ClickException`` where pytest or the suite is missing.
    """
    with started(url, token, arguments) as go:
        return go()


@contextmanager
def started(url: str, token: str, arguments: Sequence[str]) -> Iterator[Callable[[], int]]:
    """Start the suite, which takes seconds, and hand out the function that lets it begin.

    That returns its exit code. Raises ``click.ClickException`` as ``run_suite`` does.
    """
    if find_spec("pytest") is None or not (PROJECT / "smoke").is_dir():
        raise click.ClickException(
            "flask smoke needs a development installation. Run `uv sync` in the project's folder."
        )
    command = [sys.executable, "-m", "pytest", "smoke", "--quiet", "--no-header", "--no-summary"]
    command += ["--tb=no", "-p", "no:cacheprovider", "-p", "devtools.smoke_steps"]
    command += ["--capture=no", "-o", "console_output_style=classic", "--base-url", url, *arguments]
    # The suite needs no plugin, and all those of the libraries take half of its start.
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **os.environ, "API_TOKEN": token}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdin=subprocess.PIPE) as suite:  # noqa: S603

        def go() -> int:
            suite.communicate(b"go")
            return suite.returncode

        try:
            yield go
        finally:
            suite.kill()
