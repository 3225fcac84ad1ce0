"""The tests that a new owner gets pass out of the box, on the Pythons that are to be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import support

BACKGROUND = "tests/background"
#: What does not depend on the answers, and takes most of the time.
SAME_FOR_ALL = (BACKGROUND, "tests/integration/test_flask_dev.py")
#: Most of it is skipped where the extra `flower` is not installed.
FLOWER = "tests/background/test_flower.py"


def test_the_layer_for_background_work_passes_its_tests(
    generated: Path, report: support.Report
) -> None:
    report.add("own suite", f"default answers, {BACKGROUND}: {_pytest(generated, BACKGROUND)}")


def test_all_else_passes_with_the_default_answers(generated: Path, report: support.Report) -> None:
    report.add("own suite", f"default answers: {_pytest(generated, f'--ignore={BACKGROUND}')}")


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


def test_flower_works_where_it_is_installed(render: Callable[[support.Answers], Path]) -> None:
    project = render({})
    support.succeed("uv", "sync", "--quiet", "--locked", "--extra", "flower", cwd=project)
    assert _pytest(project, FLOWER).startswith("1 passed")


def _pytest(project: Path, *arguments: str) -> str:
    """Run the project's suite; return pytest's last line."""
    output = support.succeed("uv", "run", "--quiet", "pytest", "-q", *arguments, cwd=project)
    return output.splitlines()[-1]
