"""Fixtures that all parts of the tests share: the template, projects made from it, the report."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import support

REPORT = pytest.StashKey[support.Report]()
#: Files whose tests take minutes, begun first: what is left at the end should be short.
LONGEST = ("test_own_suite", "test_server_supervisor", "test_server_systemd", "test_heroku")


def pytest_configure(config: pytest.Config) -> None:
    """Start the report of this run."""
    config.stash[REPORT] = support.Report()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the report of a process that tests beside others to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["report"] = session.config.stash[REPORT].lines


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the report of such a process."""
    node.config.stash[REPORT].lines += getattr(node, "workeroutput", {}).get("report", [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the report below pytest's own summary."""
    lines = config.stash[REPORT].lines
    if lines:
        terminalreporter.section("what was made and checked")
        for line in lines:
            terminalreporter.line(line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell pytest-xdist what belongs together, and begin with what takes longest.

    The tests of a file share what it starts, so one process has them all; so do those that read
    the projects made from all answers, wherever they are.
    """
    for item in items:
        if "matrix" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("matrix"))
        elif item.path.stem != "test_own_suite":  # each of its tests starts something of its own
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> support.Report:
    """Return the report: ``report.add("topic", "text")`` adds a line to the end of the run."""
    return pytestconfig.stash[REPORT]


@pytest.fixture(scope="session", autouse=True)
def no_bytecode() -> Iterator[None]:
    """Keep compiled files out of the projects and of the template while tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the template as it stands in the work tree."""
    return support.copy_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def render(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[support.Answers], Path]:
    """Return a function that makes a new project from answers and returns its folder.

    Questions that are not answered get their default.
    """
    folder = tmp_path_factory.mktemp("projects")
    numbers = itertools.count(1)

    def make(answers: support.Answers) -> Path:
        return support.render(template, folder / str(next(numbers)), answers)

    return make


@pytest.fixture(scope="session")
def generated(render: Callable[[support.Answers], Path]) -> Path:
    """Return a project made with the default answers, its dependencies installed.

    Start its commands with ``uv run`` in that folder. It is shared: leave its files as they are.
    """
    project = render({})
    support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
    return project
