"""Fixtures that all parts of the tests share: the template, projects made from it, the report."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import support
from machine import Tally
from xdist.scheduler import LoadScopeScheduling

# Compiled files stay out of the template, which the tests import in place, and out of the projects.
# All processes of a run share them, and so need not compile the same modules again.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, os.environ["PYTHONPYCACHEPREFIX"], ignore_errors=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"]
sys.dont_write_bytecode = False

REPORT = pytest.StashKey[support.Report]()
#: Files whose tests take minutes in sum: they begin first.
LONGEST = ("test_swarm", "test_server_s", "test_compose_", "test_fresh_", "test_recovery")
#: Files that need all projects of the matrix, which are made once then.
MATRIX = ("test_commands_agree", "test_heroku_files", "test_matrix")


def pytest_configure(config: pytest.Config) -> None:
    """Start the report of this run."""
    config.stash[REPORT] = support.Report()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the report of a process that tests beside others to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["report"] = session.config.stash[REPORT].lines


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option behind ``bin/test --strict``."""
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test that was skipped fail, where nothing may be skipped."""
    report = yield
    if report.skipped and item.config.getoption("no_skips") and isinstance(report.longrepr, tuple):
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr[2]}: nothing may be skipped with --strict"
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the report of such a process."""
    node.config.stash[REPORT].lines += getattr(node, "workeroutput", {}).get("report", [])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None]:
    """Print the report below pytest's own summary, and last what was tried and what was not."""
    yield
    if hasattr(config, "workerinput"):
        return
    if lines := config.stash[REPORT].lines:
        terminalreporter.section("what was made and checked")
        for line in lines:
            terminalreporter.line(line)
    tally = Tally()
    for outcome in ("passed", "failed", "error", "skipped"):
        tally.add(terminalreporter.getreports(outcome))
    if lines := tally.continued().lines():
        terminalreporter.section("what was tried")
        for line in lines:
            terminalreporter.line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Let tests that share what they start run in one process."""
    return Sharing(config, log)


class Sharing(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out the tests of a file together: they share what it starts.

    So do those files that read the projects made from all answers. The project's own suite is
    something else for each set of answers, and what breaks the outbox has servers of its own.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).stem
        if file == "test_own_suite" or nodeid.startswith("tests/faults/test_outbox"):
            return nodeid
        return "matrix" if file in MATRIX else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that nothing long is left for the end."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> support.Report:
    """Return the report: ``report.add("topic", "text")`` adds a line to the end of the run."""
    return pytestconfig.stash[REPORT]


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
