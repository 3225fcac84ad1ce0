"""The tests that a new owner gets pass out of the box, on the Pythons that are to be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import support

#: What does not depend on the answers, and takes most of the time.
SAME_FOR_ALL = ("tests/background", "tests/integration/test_flask_dev.py")


def test_all_of_the_suite_passes_with_the_default_answers(
    generated: Path, report: support.Report
) -> None:
    report.add("own suite", f"default answers: {_pytest(generated)}")


@pytest.mark.parametrize(
    "answers",
    [{"include_examples": "no"}, {"python_version": "3.12"}],
    ids=lambda answers: support.named(answers),
)
def test_the_suite_passes_with_other_answers(
    answers: support.Answers,
    render: Callable[[support.Answers], Path],
    report: support.Report,
) -> None:
    project = render(answers)
    support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
    ignored = [f"--ignore={path}" for path in SAME_FOR_ALL]
    report.add("own suite", f"{support.named(answers)}: {_pytest(project, *ignored)}")


def _pytest(project: Path, *arguments: str) -> str:
    """Run the project's suite; return pytest's last line."""
    output = support.succeed("uv", "run", "--quiet", "pytest", "-q", *arguments, cwd=project)
    return output.splitlines()[-1]
