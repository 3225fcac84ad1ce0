"""The tests that a new owner gets pass out of the box, on the Pythons that are to be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import support
from machine import need


def test_the_suite_passes_with_the_default_answers(generated: Path, report: support.Report) -> None:
    check(generated, "default answers", report)


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
    if "python_version" in answers:
        need(f"python {answers['python_version']}")
    project = render(answers)
    support.succeed("uv", "sync", "--quiet", "--locked", cwd=project)
    check(project, support.named(answers), report)


def check(project: Path, answers: str, report: support.Report) -> None:
    """Run the project's suite, and report pytest's last line."""
    output = support.succeed("uv", "run", "--quiet", "pytest", "-q", cwd=project)
    report.add("own suite", f"{answers}: {output.splitlines()[-1]}")
