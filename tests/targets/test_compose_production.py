"""compose.production.yaml, with the examples and without: up, used, hurt, and used again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support
from machine import needs
from targets import compose_faults, migrations
from targets.compose import PRODUCTION, Stack
from targets.compose_faults import Used

pytestmark = needs("engine")

FAULTS: dict[str, Callable[[Stack], None]] = {
    **compose_faults.FAULTS,
    "restart of nginx": compose_faults.restart("nginx"),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param("yes", id="examples"), pytest.param("no", id="no examples")],
)
def used(
    request: pytest.FixtureRequest, render: Callable[[support.Answers], Path]
) -> Iterator[Used]:
    """Bring a new project up, and start tasks all the time."""
    with compose_faults.use(PRODUCTION, request.param, render) as it:
        yield it


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_smoke_suite_is_green_after(used: Used, fault: Callable[[Stack], None]) -> None:
    """Whatever happened, the application is whole again, and everything works."""
    fault(used.stack)
    used.stack.smoke()


def test_a_migration_that_fails_leaves_the_old_version_running(used: Used) -> None:
    """It is tried while that runs; `migrate` is what stands before `up` in docs/docker.md."""
    stack = used.stack
    migrations.write(stack.project, migrations.BAD)
    before = stack.started_at("web")
    said = stack.compose("run", "--build", "--rm", "migrate", check=False)
    assert "syntax error" in said
    assert stack.started_at("web") == before
    stack.smoke(only="health")


def test_a_migration_and_a_backup_of_before(used: Used) -> None:
    """The backup has no table of the migration, and is migrated when it is restored."""
    stack = used.stack
    before = stack.database("save")
    tables = migrations.tables(stack.database("drill", before))
    migrations.write(stack.project, migrations.GOOD)
    stack.compose("run", "--build", "--rm", "migrate")
    stack.up()
    assert count(stack) == tables + 1

    stack.database("load", before)
    stack.compose("stop", "web", "worker")
    stack.database("swap")
    assert count(stack) == tables
    stack.up()
    assert count(stack) == tables + 1
    stack.smoke()


def test_a_backup_is_made_at_night(used: Used) -> None:
    """The night is near; a service that is told to end does so."""
    night = used.stack.compose("exec", "-T", "nightly", "date", "-d", "10 seconds", "+%T").strip()
    said = run_nightly(used.stack, night)
    assert said.count("Backup in ") == 1, said


def test_a_night_that_is_no_time_is_refused(used: Used) -> None:
    """Else it would make one backup after the other."""
    said = run_nightly(used.stack, "3 in the night")
    assert 'BACKUP_AT is "3 in the night": give a time of the day' in said
    assert "Backup in " not in said


def run_nightly(stack: Stack, night: str) -> str:
    """Run the service for half a minute with another time; return what it says."""
    return stack.compose(
        *("run", "--rm", "-T", "--no-deps", "-e", f"BACKUP_AT={night}"),
        *("--entrypoint", "timeout", "nightly", "30", "sh", "/nights.sh"),
        check=False,
    )


def count(stack: Stack) -> int:
    """Return how many tables the database has, by a backup and a drill."""
    return migrations.tables(stack.database("drill", stack.database("save")))


def test_every_accepted_task_has_succeeded(used: Used, report: support.Report) -> None:
    """No task that was answered with 202 is lost, whatever was killed or restarted meanwhile."""
    compose_faults.check_tasks(used, report)


def test_the_whole_smoke_suite_is_green(used: Used, report: support.Report) -> None:
    """The limit on what puts tasks in a queue holds; it is used up now, so this comes last."""
    verdict = used.stack.full_smoke().strip().splitlines()[-1]
    report.add("compose", f"{used.stack.file}, after {len(FAULTS) - 1} faults: {verdict}")
