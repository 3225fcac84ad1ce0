"""compose.yaml, with the examples and without: up, used, hurt, and used again."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support
from machine import needs
from targets import compose_faults
from targets.compose import DEVELOPMENT, Stack, wait_until
from targets.compose_faults import Used

pytestmark = needs("engine")

FAULTS: dict[str, Callable[[Stack], None]] = compose_faults.FAULTS


@pytest.fixture(
    scope="module",
    params=[pytest.param("yes", id="examples"), pytest.param("no", id="no examples")],
)
def used(
    request: pytest.FixtureRequest, render: Callable[[support.Answers], Path]
) -> Iterator[Used]:
    """Bring a new project up, and start tasks all the time."""
    with compose_faults.use(DEVELOPMENT, request.param, render) as it:
        yield it


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_smoke_suite_is_green_after(used: Used, fault: Callable[[Stack], None]) -> None:
    """Whatever happened, the application is whole again, and everything works."""
    fault(used.stack)
    used.stack.smoke()


def test_every_accepted_task_has_succeeded(used: Used, report: support.Report) -> None:
    """No task that was answered with 202 is lost, whatever was killed or restarted meanwhile."""
    compose_faults.check_tasks(used, report)


def test_the_whole_smoke_suite_is_green(used: Used, report: support.Report) -> None:
    """The limit on what puts tasks in a queue holds; it is used up now, so this comes last."""
    verdict = used.stack.full_smoke().strip().splitlines()[-1]
    report.add("compose", f"{used.stack.file}, after {len(FAULTS) - 1} faults: {verdict}")


def test_an_edit_restarts_web_and_worker(used: Used) -> None:
    """What is edited on this machine runs in the containers, without a command."""
    stack = used.stack
    before = {it.pid for it in stack.cluster()}
    with (stack.project / stack.slug / "ops" / "health.py").open("a") as file:
        file.write(
            '\n\n@bp.get("/edited")\ndef edited() -> Response:\n    return jsonify(edited=1)\n'
        )
    wait_until(lambda: answers(f"{stack.url}/edited"), "web has the new code")
    wait_until(lambda: not before & {it.pid for it in stack.cluster()}, "worker has restarted")
    stack.smoke(only="health")


def answers(url: str) -> bool:
    """Tell whether a request succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
