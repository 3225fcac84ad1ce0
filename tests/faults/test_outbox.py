"""Break what tasks need that are sent on commit: a commit alone decides whether a task runs.

The sample application of the engine's tests with real workers, Redis and databases. The rows of
the database say what was committed, the ledger of the tasks what ran.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from devtools.dev.redis_server import EmbeddedRedis
from devtools.dev.services.postgres import Server
from engine_support import empty_database, frozen, run_code, with_database, workers_of
from faults.load import Answer, Load, events, judge
from faults.scenarios import BEFORE
from faults.stack import Stack, wait_until
from sample_app import celery, create_app
from sample_models import commit_rows, db, names, write_on
from support import Report

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

#: How many transactions are committed, each with a task.
TASKS = 300
#: Seconds without Redis or without the database.
AWAY = 60.0
#: How many processes or threads commit at once.
SIDE_BY_SIDE = 2
#: Seconds until all has run after the fault.
PATIENCE = 120.0

NAMES = [f"row{number}" for number in range(TASKS)]


@dataclass
class Ground:
    """Where a test takes place: all of it real, and all of it its own."""

    kind: str
    folder: Path
    redis: EmbeddedRedis
    postgres: Server | None

    @property
    def settings(self) -> dict[str, object]:
        """The settings of the sample application."""
        address = self.postgres.url if self.postgres else f"sqlite:///{self.folder / 'rows.db'}"
        return with_database(self.redis.url, address)

    @property
    def ledger(self) -> str:
        """The file that the tasks write."""
        return str(self.folder / "ledger")


@pytest.fixture(params=["sqlite", "postgresql"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """An empty database of either kind, a Redis, and two places for tasks."""
    kind = str(request.param)
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(tmp_path / "redis"))
        server = Server(tmp_path / "postgres") if kind == "postgresql" else None
        ground = Ground(kind, tmp_path, redis, server and stack.enter_context(server))
        stack.enter_context(empty_database(ground.settings))
        stack.enter_context(workers_of(ground.settings, 2))
        yield ground


def kill_again_and_again(ground: Ground) -> None:
    """Kill each process after its fifteenth commit, before it can send that task."""

    def commit(first: int) -> int:
        part = NAMES[first : first + 15]
        code = f"m.commit_rows({ground.ledger!r}, {part!r}, die_at=15)"
        return run_code(ground.settings, code)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        assert set(pool.map(commit, range(0, TASKS, 15))) == {-signal.SIGKILL}


def stop_redis(ground: Ground) -> None:
    """Stop Redis while all commit, and start it again."""
    with committing(ground):
        ground.redis.stop()
        time.sleep(AWAY)
        ground.redis.start()


def lose_database(ground: Ground) -> None:
    """Hold the writer's lock of SQLite; let PostgreSQL stand still, and then kill it."""
    with committing(ground):
        if ground.postgres is None:
            other = sqlite3.connect(ground.folder / "rows.db", isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(AWAY)
            other.close()
            return
        with frozen(ground.postgres) as processes:
            time.sleep(AWAY / 2)
            for process in processes:
                process.kill()
            time.sleep(AWAY / 2)
        ground.postgres.__exit__()
        ground.postgres.__enter__()


@contextmanager
def committing(ground: Ground) -> Iterator[None]:
    """Commit all the time, from a little before the fault until after it."""
    app = create_app(ground.settings)

    def commit(first: int) -> None:
        with app.app_context():
            commit_rows(ground.ledger, NAMES[first::SIDE_BY_SIDE], pause=0.4)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        done = pool.map(commit, range(SIDE_BY_SIDE))
        time.sleep(BEFORE)
        yield
        list(done)


@pytest.mark.long
@pytest.mark.parametrize("fault", [kill_again_and_again, stop_redis, lose_database])
def test_what_was_committed_runs_and_nothing_else(
    fault: Callable[[Ground], None], ground: Ground, report: Report
) -> None:
    fault(ground)

    stack = Stack(Path(), ground.folder)
    committed = set(names())
    db.session.rollback()

    def ended() -> set[str]:
        return {ref for _, event, ref in events(stack) if event != "start"}

    wait_until(lambda: ended() >= committed, PATIENCE, "all tasks to run")
    wait_until(lambda: db.outbox.waiting() == 0, PATIENCE, "the rows to go")

    assert committed == set(NAMES)
    assert ended() == committed, "Something ran that was rolled back."
    assert not [ref for _, event, ref in events(stack) if event == "alone"]
    outcome = judge(f"{fault.__name__}, {ground.kind}", Load(stack, answers=answers(ground)), 0)
    outcome.tell(report)
    assert outcome.lost == 0


def answers(ground: Ground) -> list[Answer]:
    """Return the commits, each with its time and how long it took."""
    rows = [line.split() for line in Path(f"{ground.ledger}.commits").read_text().splitlines()]
    return [Answer(name, float(at), 202, float(seconds), "") for name, at, seconds in rows]


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.long)])
def test_web_threads_and_workers_write_at_once(
    seconds: float, ground: Ground, report: Report
) -> None:
    """Each reads before it writes, with which SQLite by itself ends in "database is locked"."""
    app = create_app(ground.settings)

    def write(_: int) -> int:
        with app.app_context():
            return write_on("web", seconds)

    futures = [celery.submit(write_on, "worker", seconds) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        by_web = sum(pool.map(write, range(2)))
    by_workers = sum(future.result(timeout=PATIENCE) for future in futures)

    db.session.rollback()
    assert by_web and by_workers
    assert Counter(names()) == {"web": by_web, "worker": by_workers}
    text = f"{by_web} rows by 2 web threads, {by_workers} by 2 workers in {seconds} s, 0 errors"
    report.add("faults", f"{ground.kind}: {text}")
