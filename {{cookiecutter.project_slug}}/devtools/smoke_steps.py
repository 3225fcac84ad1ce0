"""The smoke suite's progress, as a plugin of pytest: a step for each of its files."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from .steps import Steps

LEFT_OUT = "left out"


class Progress:
    """Tells of one file after the other: what it checks, and what came of its checks."""

    def __init__(self, items: list[pytest.Item]) -> None:
        """Begin without a step."""
        self._steps = Steps(sum(1 for _ in groupby(items, file_of)))
        self._results: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Iterator[None]:
        """Begin a step with the first check of a file, end it after the last."""
        if not self._results:
            self._steps.start(subject(item))
        try:
            result = yield
        except BaseException:
            self._steps.end("stopped")
            raise
        if nextitem is None or file_of(nextitem) != file_of(item):
            found = ", ".join(f"{count} {what}" for what, count in self._results.items())
            self._steps.end(found)
            self._results.clear()
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what came of a check."""
        if report.skipped:
            self._results[LEFT_OUT] += 1
        elif report.failed:
            self._results["failed"] += 1
        elif report.when == "call":
            self._results["passed"] += 1


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Wait, when all is loaded, until `flask smoke` or a release says that it may begin."""
    try:
        told = sys.stdin.read()
    except KeyboardInterrupt:
        told = ""
    if told != "go":
        os._exit(2)  # the release came to nothing, and says why


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin, now that the checks are known."""
    session.config.pluginmanager.register(Progress(session.items))


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Leave out pytest's own dots."""
    if report.when == "call" or report.skipped or report.failed:
        return report.outcome, "", ""
    return None


def file_of(item: pytest.Item) -> Path:
    """Return the file in which a check stands."""
    return item.path


def subject(item: pytest.Item) -> str:
    """Return the first sentence of the file's docstring, which says what is checked."""
    module = item.getparent(pytest.Module)
    text = inspect.getdoc(module.obj) if module else None
    return (text or item.path.stem).partition("\n")[0].partition(". ")[0].rstrip(".")
