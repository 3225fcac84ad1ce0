"""Runs the examples of docs/background.md: what the page shows is what happens."""

import concurrent.futures
import doctest
import importlib
import os
import queue
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from {{ cookiecutter.project_slug }} import background
from {{ cookiecutter.project_slug }}.dev.child import Child

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "background.md"
PACKAGE = "docs_app"

#: An application around the page's functions, as small as Flask allows.
FACTORY = """
import os
from flask import Flask
from . import sums
from .extensions import celery

def create_app():
    app = Flask(__name__)
    app.config["REDIS_URL"] = os.environ["DOCS_REDIS_URL"]
    celery.init_app(app)
    return app
"""


@pytest.fixture
def docs_app(tmp_path: Path, empty_redis: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """Write the page's first block into an application of its own, and make that application."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text(FACTORY)
    (folder / "background.py").write_text(f"from {background.__name__} import *\n")
    (folder / "extensions.py").write_text(
        "from .background import FlaskCelery\n\ncelery = FlaskCelery()\n"
    )
    (folder / "sums.py").write_text(blocks("python")[0])
    monkeypatch.setenv("DOCS_REDIS_URL", empty_redis)
    monkeypatch.setenv("FLASK_APP", PACKAGE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(PROJECT)]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(PACKAGE).create_app()
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def docs_worker(docs_app: Flask) -> Iterator[Child]:
    """The workers of that application."""
    command = [sys.executable, "-m", "flask", "celery", "cluster"]
    child = Child("docs", command, cwd=PROJECT, on_line=print)
    try:
        celery = docs_app.extensions["celery"]
        while not celery.heartbeats():
            assert not child.wait(0.1), "The worker ended; see its output."
        yield child
    finally:
        child.stop()
        assert child.wait(30)


def test_each_example_of_the_page_gives_what_the_page_shows(
    docs_app: Flask, docs_worker: Child
) -> None:
    names = {
        **vars(importlib.import_module(f"{PACKAGE}.sums")),
        "concurrent": concurrent,
        "queue": queue,
    }
    examples = "\n".join(blocks("pycon"))
    test = doctest.DocTestParser().get_doctest(examples, names, PAGE.name, str(PAGE), 0)
    report: list[str] = []

    with docs_app.app_context():
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)

    assert result.attempted > 20
    assert not result.failed, "".join(report)


def blocks(language: str) -> list[str]:
    """The code blocks of the page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
