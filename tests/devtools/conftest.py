"""A small project that a test may change."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from sample_project import Flask, make_project, run_flask


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The application `sample`, with a copy of the tools."""
    return make_project(tmp_path / "project")


@pytest.fixture
def flask(project: Path) -> Flask:
    """Run a command in the project: ``flask("dev", "--help", NAME="value of a variable")``."""
    return functools.partial(run_flask, project)
