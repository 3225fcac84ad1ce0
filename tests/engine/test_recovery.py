"""What goes on by itself after a fault, though not at once: both faults happen at the beginning.

Together they take about a minute, because nobody may be replaced for a pause that Redis made.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import Running, beats, flask_celery, wait_until
from sample_app import celery, create_app

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@dataclass
class Fault:
    """A cluster that has to get over something, and what was there before."""

    settings: dict[str, Any]
    cluster: Running
    before: Any


@pytest.fixture(scope="module")
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module", autouse=True)
def deaf(tmp_path_factory: pytest.TempPathFactory, running: ExitStack) -> Fault:
    """A worker that lives, but stands still."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("deaf") / "redis")
    settings = {"REDIS_URL": running.enter_context(server).url}
    cluster = start(running, settings)
    (worker,) = wait_until(lambda: beats(settings), "a worker")
    os.kill(worker.pid, signal.SIGSTOP)
    return Fault(settings, cluster, worker.pid)


@pytest.fixture(scope="module", autouse=True)
def leaderless(tmp_path_factory: pytest.TempPathFactory, running: ExitStack) -> Fault:
    """Two clusters, of which the one that schedules is killed after some ticks."""
    folder = tmp_path_factory.mktemp("leaderless")
    ledger = folder / "ledger"
    settings = {
        "REDIS_URL": running.enter_context(EmbeddedRedis(folder / "redis")).url,
        "LEDGER": str(ledger),
        "CELERYBEAT_SCHEDULE": {
            "configured": {
                "task": "sample_app.tick",
                "schedule": 1.0,
                "kwargs": {"line": "configured"},
            }
        },
    }
    first = start(running, {**settings, "CELERY_WORKERS": ["one"]})
    first.wait_for("This scheduler leads")
    second = start(running, {**settings, "CELERY_WORKERS": ["two"]})
    wait_until(lambda: len(beats(settings)) == 2, "two workers")
    wait_until(lambda: min(ticks(ledger, "decorated"), ticks(ledger, "configured")) > 2, "ticks")
    assert "This scheduler leads" not in second.output
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    return Fault(settings, second, ticks(ledger, "decorated"))


def start(running: ExitStack, settings: dict[str, Any]) -> Running:
    cluster = Running(flask_celery("cluster"), settings)
    running.callback(cluster.end)
    return cluster


def ticks(ledger: Path, line: str) -> int:
    return Counter(ledger.read_text().split() if ledger.exists() else [])[line]


def test_another_scheduler_takes_over_and_each_tick_came_once(leaderless: Fault) -> None:
    ledger = Path(leaderless.settings["LEDGER"])
    leaderless.cluster.wait_for("This scheduler leads")
    wait_until(lambda: ticks(ledger, "decorated") > leaderless.before, "ticks after that")

    assert leaderless.cluster.stop() == 0

    with create_app(leaderless.settings).app_context():
        counts = {status.name: status.total_run_count for status in celery.schedule_status()}
        waiting = celery.queue_lengths()["default"]
    # Each tick that was claimed was sent once: it is in the ledger, or waits still. What is not
    # was in the hands of the processes that were killed: one claimed, one at work. (Of the other
    # entry there may be fewer, because its ticks are dropped when they waited for a second.)
    sent, written = counts["configured"], ticks(ledger, "configured")
    assert sent - 2 <= written + waiting
    assert written <= sent
    assert ticks(ledger, "decorated") <= counts["every-second"]


def test_a_worker_that_takes_no_tasks_any_more_is_replaced(
    deaf: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine_support.PATIENCE", 90)

    deaf.cluster.wait_for("lives but takes no tasks any more; it is killed")

    wait_until(lambda: [beat.pid for beat in beats(deaf.settings)] != [deaf.before], "another")
    with create_app(deaf.settings).app_context():
        assert celery.submit(sample_app.add, 1, 2).result(timeout=30) == 3
