"""A small project with the template's two packages beside it, for what must be run as a program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TEMPLATE = Path(__file__).parents[1] / "{{cookiecutter.project_slug}}"

APPLICATION = '''\
"""An application that needs a setting, has a command of its own, and uses the engine."""

import logging
import os

import click
from flask import Flask, current_app
from flask_background import FlaskCelery

from . import views

celery = FlaskCelery()


def create_app() -> Flask:
    app = Flask(__name__)
    logging.basicConfig(level=logging.INFO)
    if not os.environ.get("SECRET_KEY"):
        raise click.ClickException("SECRET_KEY is not set.")
    app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]
    app.config["REDIS_URL"] = os.environ.get("REDIS_URL") or "redis://127.0.0.1:1/0"
    app.config["CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT"] = 1
    celery.init_app(app)
    app.add_url_rule("/healthz", view_func=views.healthz)
    app.cli.command("greet")(lambda: click.echo(f"redis {current_app.config['REDIS_URL']}"))
    return app
'''

SMOKE_OPTIONS = """\
def pytest_addoption(parser):
    parser.addoption("--base-url")
"""
SMOKE_TEST = """\
from urllib.request import urlopen

def test_it_answers(request):
    urlopen(request.config.getoption("--base-url"))
"""

Flask = Callable[..., subprocess.CompletedProcess[str]]


def make_project(folder: Path) -> Path:
    """Make the application `sample` with a copy of the tools in folder, and return that."""
    for name in ("devtools", "flask_background"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TEMPLATE / name, folder / name, ignore=unwanted)
    shutil.copy(TEMPLATE / ".flaskenv", folder)
    (folder / ".env").write_text("FLASK_CONFIG=development\nSECRET_KEY=for-tests\nMARK=one\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "sample"\n')
    package = folder / "sample"
    package.mkdir()
    (package / "__init__.py").write_text(APPLICATION)
    (package / "views.py").write_text("def healthz() -> str:\n    return 'well'\n")
    smoke = folder / "smoke"
    smoke.mkdir()
    (smoke / "conftest.py").write_text(SMOKE_OPTIONS)
    (smoke / "test_site.py").write_text(SMOKE_TEST)
    return folder


def environment(**variables: str) -> dict[str, str]:
    """Return the variables that a program needs on this machine, without settings of Flask."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_", "UV_", "PYENV_", "PYTHONPYCACHEPREFIX")
    mine = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    return {**mine, **variables}


def run_flask(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``flask`` with arguments in the project, as somebody who types it does."""
    return subprocess.run(
        [sys.executable, "-m", "flask", *arguments],
        cwd=project,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
