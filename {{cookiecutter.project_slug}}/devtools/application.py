"""The application that the tools are for: its name, and how it is loaded."""

from __future__ import annotations

import os
import tomllib
import traceback
from importlib import import_module
from pathlib import Path

import click
from flask import Flask
from flask.helpers import get_debug_flag

from .dev.redis_address import running_url
from .dev.services import services

PROJECT = Path(__file__).resolve().parents[1]


def package_name(project: Path = PROJECT) -> str:
    """Return the name of the application's package: the project's name in pyproject.toml."""
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["name"]).replace("-", "_")


def load() -> Flask:
    """Make the application, in development with the servers that ``flask dev`` runs, if any.

    Raises ``click.ClickException`` with one sentence when it cannot be loaded; with Flask's
    ``--debug`` the error itself.
    """
    if os.environ.get("FLASK_CONFIG") == "development":
        running = {service.VARIABLE: service.running_url for service in services(PROJECT)}
        for variable, url in {"REDIS_URL": running_url, **running}.items():
            if not os.environ.get(variable):
                os.environ[variable] = url(PROJECT / "instance") or ""
    try:
        app: Flask = import_module(package_name()).create_app()
    except click.ClickException:
        raise  # a setting: it says itself what to do
    except Exception as error:
        if get_debug_flag():
            raise
        raise click.ClickException(f"The application cannot be loaded: {reason(error)}") from None
    return app


def reason(error: Exception) -> str:
    """Say in a sentence what went wrong, and where in the project."""
    if isinstance(error, SyntaxError):
        file, line, text = error.filename or "", error.lineno, error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if _is_own(Path(frame.filename))]
        place = (own or frames)[-1]
        file, line, text = place.filename, place.lineno, str(error).partition("\n")[0]
    path = Path(file)
    name = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    return f"{type(error).__name__} in {name}, line {line}: {text.rstrip('.') or 'no message'}."


def _is_own(file: Path) -> bool:
    """Whether a file is the project's, and not a library's or one of the tools."""
    tools = Path(__file__).parent
    return file.is_relative_to(PROJECT) and not (
        file.is_relative_to(tools) or "site-packages" in file.parts
    )
