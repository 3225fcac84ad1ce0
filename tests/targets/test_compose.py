"""Both Compose files, with the examples and without: up, used, hurt, and used again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import support
from targets.compose import (
    DEVELOPMENT,
    PRODUCTION,
    Stack,
    Stream,
    install,
    unique_slug,
    without_engine,
)

pytestmark = pytest.mark.skipif(bool(without_engine()), reason=without_engine())


@dataclass
class Used:
    """A stack, and the tasks that were started while it was hurt (None without the examples)."""

    stack: Stack
    stream: Stream | None


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((PRODUCTION, "yes"), id="production"),
        pytest.param((DEVELOPMENT, "yes"), id="development"),
        pytest.param((PRODUCTION, "no"), id="production without examples"),
        pytest.param((DEVELOPMENT, "no"), id="development without examples"),
    ],
)
def used(
    request: pytest.FixtureRequest, render: Callable[[support.Answers], Path]
) -> Iterator[Used]:
    """Bring a new project up, and start tasks all the time."""
    file, examples = request.param
    project = install(render({"project_slug": unique_slug(), "include_examples": examples}))
    settings = {}
    if file == PRODUCTION and examples == "yes":
        settings["MANIFEST_URL"] = "http://web:8000/sample-manifest.json"
    with contextlib.ExitStack() as after:
        stack = after.enter_context(Stack(project, file, settings))
        stream = after.enter_context(Stream(stack.url)) if examples == "yes" else None
        yield Used(stack, stream)


def restart(service: str) -> Callable[[Stack], None]:
    """Return the fault that a service is restarted."""

    def fault(stack: Stack) -> None:
        if service not in stack.services():
            pytest.skip(f"{stack.file} has no {service}")
        stack.compose("restart", service)

    return fault


def down_and_up(stack: Stack) -> None:
    """Remove the containers and make them again; the data is in volumes."""
    stack.down()
    stack.up()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda stack: None, id="start"),
        pytest.param(lambda stack: stack.kill_main_process("worker"), id="killed worker"),
        pytest.param(lambda stack: stack.kill_pool_child(), id="killed pool child"),
        pytest.param(restart("redis"), id="restart of redis"),
        pytest.param(restart("web"), id="restart of web"),
        pytest.param(restart("worker"), id="restart of worker"),
        pytest.param(restart("nginx"), id="restart of nginx"),
        pytest.param(down_and_up, id="down and up"),
    ],
)
def test_the_smoke_suite_is_green_after(
    used: Used, fault: Callable[[Stack], None], report: support.Report
) -> None:
    """Whatever happened, the application is whole again, and everything works."""
    fault(used.stack)
    report.add("compose", f"{used.stack.file}: {used.stack.smoke().strip().splitlines()[-1]}")


def test_every_accepted_task_has_succeeded(used: Used, report: support.Report) -> None:
    """No task that was answered with 202 is lost, whatever was killed or restarted meanwhile."""
    if used.stream is None:
        pytest.skip("without the examples there is no task to start")
    used.stream.__exit__()
    assert len(used.stream.accepted) > 10, f"Only {used.stream.accepted} were accepted."
    used.stream.wait_until_all_succeeded()
    report.add(
        "compose",
        f"{used.stack.file}: {len(used.stream.accepted)} tasks accepted while it was hurt, all "
        f"succeeded ({used.stream.refused} requests got no answer)",
    )


def test_the_whole_smoke_suite_is_green(used: Used) -> None:
    """The limit on what puts tasks in a queue holds; it is used up now, so this comes last."""
    used.stack.full_smoke()
