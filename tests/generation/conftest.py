"""Every combination of the answers that are a choice, made once for all tests of this part."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import support
from matrix import SPECIAL, Project, render_all
from support import Report


@pytest.fixture(scope="session")
def matrix(
    template: Path, tmp_path_factory: pytest.TempPathFactory, report: Report
) -> list[Project]:
    """Return a project for every combination of the answers that are a choice."""
    made = render_all(template, tmp_path_factory.mktemp("matrix"), list(support.combinations()))
    report.add("renders", f"{len(made)}: every combination of the answers that are a choice")
    return made


@pytest.fixture(scope="session")
def special(
    template: Path, tmp_path_factory: pytest.TempPathFactory, report: Report
) -> list[Project]:
    """Return projects with long, short and odd answers."""
    made = render_all(template, tmp_path_factory.mktemp("special"), list(SPECIAL))
    report.add("renders", f"{len(made)} more: longest and shortest names, odd free text")
    return made


@pytest.fixture(scope="session")
def everything(matrix: list[Project], special: list[Project]) -> list[Project]:
    """Return all projects that were made."""
    return matrix + special


@pytest.fixture(scope="session")
def tools(matrix: list[Project]) -> Path:
    """Return the folder of the project's tools, on the Python version that is the default.

    They are installed from the project's lock file, once, and kept in .tools/ for the next run.
    """
    environment = support.ROOT / ".tools" / "project-3.13"
    # The kind of database that brings the most libraries
    kinds = [one for one in matrix if one.answers["database"] == "postgresql"]
    project = next(one for one in kinds if one.python_version == "3.13")
    copy = project.path.with_name("locked")
    copy.mkdir(exist_ok=True)
    for name in ("pyproject.toml", "uv.lock", ".python-version"):
        shutil.copy(project.path / name, copy / name)
    command = ("uv", "sync", "--quiet", "--locked")
    support.succeed(*command, cwd=copy, UV_PROJECT_ENVIRONMENT=str(environment))
    return environment / ("Scripts" if os.name == "nt" else "bin")
