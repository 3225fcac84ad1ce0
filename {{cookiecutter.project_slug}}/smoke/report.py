"""The last words of the suite: what works, what is broken, and where to look."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import pytest

#: Where each part of a deployment writes its log, by kind of deployment.
LOGS = {
    "web": (
        "docker compose logs web",
        "journalctl -u '*-web'",
        "supervisorctl tail web",
        {% if cookiecutter.use_heroku == "yes" %}
        "heroku logs --process-type web",
        {% endif %}
    ),
    "worker": (
        "docker compose logs worker",
        "journalctl -u '*-worker'",
        "supervisorctl tail worker",
        {% if cookiecutter.use_heroku == "yes" %}
        "heroku logs --process-type worker",
        {% endif %}
    ),
    "nginx": (
        "docker compose logs nginx",
        "journalctl -u nginx",
        "/var/log/nginx/error.log",
    ),
}


@dataclass
class Failure:
    """A check that failed: what it proves, why it failed, whose log tells more."""

    what: str
    why: str
    part: str


@dataclass
class Report:
    """What the checks of one run found."""

    base_url: str
    stopped: str = ""
    passed: int = 0
    failures: list[Failure] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def note(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Take in one phase of one check."""
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            self.left_out[reason] = self.left_out.get(reason, 0) + 1
        elif report.failed:
            marker = item.get_closest_marker("log")
            part = marker.args[0] if marker else "web"
            self.failures.append(Failure(_promise(item), _reason(report), part))
        elif report.when == "call":
            self.passed += 1

    def lines(self) -> list[str]:
        """Put it in words; the last line is the verdict. Empty if there is nothing to say."""
        if self.stopped:
            return [f"Smoke suite: nothing was checked. {self.stopped}"]
        if not self.passed and not self.failures:
            return []
        lines = [f"Left out ({count}): {reason}." for reason, count in self.left_out.items()]
        for failure in self.failures:
            lines += [f"Broken: {failure.what}", f"  {failure.why}"]
        for part in dict.fromkeys(failure.part for failure in self.failures):
            lines += [f"Look into the log of {part}, one of:", *(f"  {log}" for log in LOGS[part])]
        if self.failures:
            total = self.passed + len(self.failures)
            broken = f"{len(self.failures)} of {total} checks failed against {self.base_url}."
            return [*lines, f"Smoke suite: {broken}"]
        return [
            *lines,
            f"Smoke suite: {self.passed} checks passed against {self.base_url}: everything works.",
        ]


def _promise(item: pytest.Item) -> str:
    """Return the first line of the check's docstring, which says what should be so."""
    if not isinstance(item, pytest.Function):
        return item.name
    text = (inspect.getdoc(item.function) or item.name).partition("\n")[0]
    return f"{text} [{item.callspec.id}]" if hasattr(item, "callspec") else text


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    first = str(text).partition("\n")[0]
    for kind in ("AssertionError: ", "smoke.client.Unreachable: "):
        first = first.removeprefix(kind)
    return first.strip()
