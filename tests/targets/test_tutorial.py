"""docs/add-a-task.md, followed to the letter: its code is taken from its text and run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import support
from targets.stack import Stack, running

TEXT = support.ROOT / support.PROJECT_FOLDER / "docs" / "add-a-task.md"
#: A block of Python, and what is said right before it.
BLOCK = re.compile(r"((?:^.+\n)+)\n```python\n((?s:.+?))^```\n", re.MULTILINE)
FILE = re.compile(r"`([\w/]+/\w+\.py)`")
IMPORT = re.compile(r"^(from|import) .+\n", re.MULTILINE)
LAST_LINE = "    return app\n"


def follow(text: str, project: Path) -> None:
    """Write what the tutorial says, in its order, as somebody would who reads it."""
    path = project
    for said, code in BLOCK.findall(text):
        for name in FILE.findall(said):
            path = project / name
            path.parent.mkdir(exist_ok=True)
            if name.endswith("__init__.py") and not path.exists():
                path.touch()
        before = path.read_text() if path.exists() else ""
        if said.rstrip().endswith("To its imports:"):
            last = [found.end() for found in IMPORT.finditer(before)][-1]
            path.write_text(before[:last] + code + before[last:])
        elif "before `return app`" in said:
            assert LAST_LINE in before
            path.write_text(before.replace(LAST_LINE, code + LAST_LINE))
        elif said.startswith("and at its end"):
            path.write_text(f"{before}\n\n{code}")
        else:
            path.write_text(code)


@pytest.fixture(scope="module")
def tutorial(render: Callable[[support.Answers], Path]) -> Iterator[Stack]:
    """`flask dev` in a new project, in which somebody then follows the tutorial."""
    project = render({})
    steps, _, _ = (project / "docs" / TEXT.name).read_text().partition("## What a task must bear")
    support.succeed("uv", "sync", "--quiet", cwd=project)
    port = support.free_port()
    command = ["uv", "run", "--quiet", "flask", "dev", "--port", str(port)]
    with running(command, project, project.parent, port, {}) as stack:
        follow(steps, project)
        yield stack


def test_the_route_starts_the_task(tutorial: Stack) -> None:
    [path] = re.findall(r"^    curl -X POST http://127\.0\.0\.1:8000(\S+)$", TEXT.read_text(), re.M)

    def start() -> Any:
        status, task = tutorial.request(path, method="POST")
        return task if status == 202 else None

    task = tutorial.wait_until("the new route is there", start)
    assert tutorial.end_of(task["task_id"])[-2:] == ["PROGRESS", "SUCCESS"]
    result = tutorial.request(f"/api/v1/task-status/{task['task_id']}")[1]["result"]
    assert result == "/reports/2026-11.pdf"


def test_the_scheduled_task_runs_and_is_on_the_page(tutorial: Stack) -> None:
    def ran() -> Any:
        entries = tutorial.request("/api/v1/schedule")[1]
        [entry] = [entry for entry in entries if entry["name"] == "latest-report"]
        return entry["last_run_at"]

    tutorial.wait_until("the scheduler ran it", ran)
    assert "latest-report" in tutorial.request("/")[1]


def test_the_tutorials_test_passes_and_so_do_the_projects_own_checks(tutorial: Stack) -> None:
    project = tutorial.project
    [tests] = re.findall(r"^    uv run (pytest \S+)$", TEXT.read_text(), re.M)
    run = ("uv", "run", "--quiet")
    done = support.succeed(*run, *tests.split(), "tests/test_openapi.py", cwd=project)
    assert "3 passed" in done
    for check in ("ruff check --fix", "ruff format --check", "mypy"):
        support.succeed(*run, *check.split(), cwd=project)
