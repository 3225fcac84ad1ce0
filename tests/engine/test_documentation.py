"""Runs the examples of the projects' docs/background.md: what the page shows is what happens."""

from __future__ import annotations

import concurrent.futures
import doctest
import importlib
import os
import queue
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import PROJECT, Running, flask_celery, wait_until
from flask import Flask
from flask_background import FlaskCelery

PAGE = PROJECT / "docs" / "background.md"
PACKAGE = "docs_app"

#: An application around the page's functions, as small as Flask allows.
FILES = {
    "__init__.py": """
import os
from flask import Flask
from . import sums
from .extensions import celery

def create_app():
    app = Flask(__name__)
    app.config.update(SECRET_KEY="of the page", REDIS_URL=os.environ["DOCS_REDIS_URL"])
    celery.init_app(app)
    return app
""",
    "extensions.py": "from flask_background import FlaskCelery\n\ncelery = FlaskCelery()\n",
}


@pytest.fixture
def docs_app(
    tmp_path: Path, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flask]:
    """Write the page's first block into an application of its own, and make that application."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    for name, text in {**FILES, "sums.py": blocks("python")[0]}.items():
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("DOCS_REDIS_URL", own_redis.url)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(PACKAGE).create_app()
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def docs_worker(docs_app: Flask, tmp_path: Path) -> Iterator[None]:
    """The workers of that application."""
    path = os.pathsep.join([str(tmp_path), str(PROJECT)])
    running = Running(
        flask_celery("cluster"),
        {},
        environ={"FLASK_APP": PACKAGE, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
    )
    celery: FlaskCelery = docs_app.extensions["celery"]
    try:
        wait_until(celery.heartbeats, "the worker")
        yield
    finally:
        running.end()


@pytest.mark.usefixtures("docs_worker")
def test_each_example_of_the_page_gives_what_the_page_shows(docs_app: Flask) -> None:
    names: dict[str, Any] = {
        **vars(importlib.import_module(f"{PACKAGE}.sums")),
        "Decimal": Decimal,
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
    """Return the code blocks of the page in one language."""
    page = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
