"""``flask smoke URL``: prove a running deployment by using it from outside (see ``smoke/``)."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
from flask import current_app
from flask.cli import with_appcontext


@click.command("smoke", context_settings={"ignore_unknown_options": True})
@click.argument("url", default="http://127.0.0.1:8000")
@click.option("--api-token", envvar="API_TOKEN", help="The deployment's token; else API_TOKEN.")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
@with_appcontext
def smoke(url: str, api_token: str | None, pytest_arguments: tuple[str, ...]) -> None:
    """Check the deployment at URL from outside; by default the one that `flask dev` runs.

    More arguments go to pytest, such as --ca FILE or --insecure. Ends with code 0 if all is well.
    """
    project = Path(current_app.root_path).parent
    if find_spec("pytest") is None or not (project / "smoke").is_dir():
        raise click.ClickException(
            "flask smoke needs a development installation. Run `uv sync` in the project's folder."
        )
    command = [sys.executable, "-m", "pytest", "smoke", "--quiet", "--no-header", "--no-summary"]
    command += ["--tb=no", "-p", "no:cacheprovider", "--base-url", url, *pytest_arguments]
    environment = {**os.environ, "API_TOKEN": api_token or ""}
    sys.exit(subprocess.run(command, cwd=project, env=environment, check=False).returncode)  # noqa: S603
