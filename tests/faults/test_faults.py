"""Break what the generated project relies on, and see that no accepted task is lost by it.

Real processes: the project's web server, workers and Redis; requests over HTTP; a ledger that the
tasks write. Each scenario has a Redis of its own, and a few run side by side, because most of them
only wait. The table at the end has plain Celery beside it, as Flask's documentation sets it up.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.load import Load, Outcome, judge, unfinished
from faults.scenarios import BEFORE, SCENARIOS, Scenario
from faults.stack import Stack
from machine import need
from support import Report

#: How many scenarios run at the same time; two processors carry this many.
SIDE_BY_SIDE = 5
#: How many tasks of two seconds are at work or at hand when something breaks.
AT_HAND = 6
#: Seconds that any request may take while its background is ill: the promise says a few.
LONGEST_REQUEST = 10.0

#: A scenario, and of which kind its stack is.
Run = tuple[Scenario, str]
RUNS: dict[str, Run] = {
    **{one.name: (one, "ours") for one in SCENARIOS},
    **{f"{one.name} (plain)": (one, "plain") for one in SCENARIOS if one.plain},
}


@pytest.fixture(scope="session")
def outcomes(
    generated: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """Run what was selected, side by side."""
    need("taskset")
    folder = tmp_path_factory.mktemp("faults")
    chosen = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and "outcomes" in item.fixturenames
    ]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield {
            name: pool.submit(run, generated, folder / str(number), *RUNS[name])
            for number, name in enumerate(chosen)
        }
        pool.shutdown(cancel_futures=True)


def run(project: Path, folder: Path, scenario: Scenario, kind: str) -> Outcome:
    """Put one stack through one scenario."""
    environ = {"FAULT_VERSION": "2", **scenario.environ}
    stack = Stack(
        project,
        folder,
        kind,
        environ,
        small_disk=scenario.small_disk,
        own_clock=scenario.own_clock,
        several=scenario.several,
    )
    with stack.running(scenario.clusters, scenario.cable):
        load = Load(stack, scenario.rate)
        load.start()
        began = time.monotonic()
        try:
            time.sleep(BEFORE)
            for _ in range(AT_HAND):
                load.post(seconds=2)
            scenario.fault(stack, load)
            time.sleep(max(0.0, scenario.load - (time.monotonic() - began)))
        finally:
            load.stop()
        patience = scenario.patience if kind == "ours" else scenario.plain
        end = time.monotonic() + patience
        while time.monotonic() < end and (
            unfinished(load) or (kind == "ours" and dead_letters(stack) < scenario.dead)
        ):
            time.sleep(0.5)
        outcome = judge(scenario.name, load, time.monotonic())
        outcome.patience = patience
        outcome.dead = dead_letters(stack)
        return outcome


def dead_letters(stack: Stack) -> int:
    """Return how many tasks were given up."""
    return int((stack.redis_says("ZCARD", "my_app:background:dead:order") or ":0")[1:])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if one.long or kind == "plain" else ())
        for name, (one, kind) in RUNS.items()
    ],
)
def test_nothing_accepted_is_lost(
    name: str, outcomes: dict[str, Future[Outcome]], report: Report
) -> None:
    scenario, kind = RUNS[name]
    if scenario.own_clock:
        need("faketime")
    try:
        outcome = outcomes[name].result()
    except subprocess.CalledProcessError as error:
        if scenario.small_disk and error.cmd[0] == "mount":
            pytest.skip("needs root, who alone can make a small disk")
        raise
    outcome.tell(report)

    if kind == "plain":
        return  # it is there to be compared with
    assert outcome.lost == 0, outcome.missing
    assert outcome.accepted > 50
    assert outcome.dead == scenario.dead
    assert outcome.request < LONGEST_REQUEST
