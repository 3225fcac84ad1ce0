"""``flask smoke URL``: prove a running deployment by using it from outside (see ``smoke/``)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import click

from .application import PROJECT


@click.command(
    "smoke",
    short_help="Use a running deployment from outside, and say what works.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("url", default="http://127.0.0.1:8000")
@click.option("--api-token", envvar="API_TOKEN", help="The deployment's token; else API_TOKEN.")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def smoke(url: str, api_token: str | None, pytest_arguments: tuple[str, ...]) -> None:
    """Check the deployment at URL from outside; by default the one that `flask dev` runs.

    More arguments go to pytest, such as --ca FILE or --insecure. Ends with code 0 if all is well.
    """
    sys.exit(run_suite(url, api_token or "", pytest_arguments))


def run_suite(url: str, token: str, arguments: Sequence[str]) -> int:
    """Run the suite with more arguments of pytest; return its exit code.

    Raises ``click.ClickException`` where pytest or the suite is missing.
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
    return subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode  # noqa: S603
