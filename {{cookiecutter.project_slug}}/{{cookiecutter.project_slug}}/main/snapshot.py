"""What Redis knows about the background at one moment, sorted as the page shows it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from .. import activity
from flask_background import Failure, Heartbeat, ScheduleStatus, TaskInfo, dead_letters
from flask_background.state.failed import DeadLetter
from flask_background.worker.beat import MOST_TASKS
from ..extensions import celery

#: How many tasks of each kind the page shows.
MOST_RUNNING = 20
MOST_WAITING = 8
MOST_ENDED = 12
MOST_FAILED = 8

#: Seconds between a task's own start and the moment when its worker's heartbeat must name it.
_MARGIN = timedelta(seconds=2)


@dataclass(frozen=True)
class TaskView:
    """A task with what the page says besides its record."""

    info: TaskInfo
    sent_at: datetime | None = None
    #: Its worker died or was stopped while it ran; it goes back into its queue.
    interrupted: bool = False

    @property
    def label(self) -> str:
        """The last part of the task's name."""
        return short_name(self.info.name or self.info.id)


@dataclass(frozen=True)
class Snapshot:
    """The background at one moment; empty and not ``reachable`` while Redis is away."""

    reachable: bool = True
    running: list[TaskView] = field(default_factory=list)
    waiting: list[TaskView] = field(default_factory=list)
    ended: list[TaskView] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    #: How many failed or were given up, shown or not.
    failed_count: int = 0
    queues: dict[str, int] = field(default_factory=dict)
    workers: list[Heartbeat] = field(default_factory=list)
    schedule: list[ScheduleStatus] = field(default_factory=list)

    @property
    def waiting_count(self) -> int:
        """How many tasks wait in all queues."""
        return sum(self.queues.values())

    @property
    def alive_count(self) -> int:
        """How many workers have beaten lately."""
        return sum(worker.alive for worker in self.workers)

    @property
    def next_run_at(self) -> datetime | None:
        """When the schedule sends its next task."""
        times = [entry.next_run_at for entry in self.schedule if entry.next_run_at]
        return min(times, default=None)


def take() -> Snapshot:
    """Ask Redis, nine round trips in all. Raises ``redis.exceptions.RedisError``."""
    # The heartbeats come first: what they do not name, though it began before, runs no more.
    workers = celery.heartbeats()
    sent = activity.recent_times()
    working = {task_id for worker in workers if worker.alive for task_id in worker.tasks}
    tasks = [
        TaskView(info, _moment(sent.get(info.id)))
        for info in read_tasks([*sent, *(working - sent.keys())])
    ]
    running = [task for task in tasks if task.info.running]
    dead = dead_letters.latest(celery, MOST_FAILED)
    given_up = {letter.id for letter in dead}
    failures = [failure for failure in celery.failures() if failure.id not in given_up]
    return Snapshot(
        running=[_check(task, workers) for task in _newest(running, MOST_RUNNING)],
        waiting=[task for task in reversed(tasks) if _waits(task.info)][:MOST_WAITING],
        ended=_newest((task for task in tasks if _ended(task.info)), MOST_ENDED),
        failures=failures[:MOST_FAILED],
        dead=dead,
        failed_count=len(failures) + dead_letters.count(celery),
        queues=celery.queue_lengths(),
        workers=workers,
        schedule=celery.schedule_status(),
    )


def read_tasks(task_ids: list[str]) -> Iterable[TaskInfo]:
    """Read the records of tasks in one round trip; those that expired are left out."""
    if not task_ids:
        return
    keys = [celery.backend.get_key_for_task(task_id) for task_id in task_ids]
    for task_id, text in zip(task_ids, celery.redis.mget(keys), strict=True):
        if text and (info := celery.task_info(task_id, json.loads(text))):
            yield info


def short_name(name: str) -> str:
    """Return the last part of a task's name."""
    return name.rpartition(".")[2]


def _check(task: TaskView, workers: list[Heartbeat]) -> TaskView:
    """Mark a task whose worker died or was replaced while it ran."""
    worker = next((one for one in workers if one.name == task.info.worker), None)
    if worker is None or not worker.alive:
        return replace(task, interrupted=True)
    beaten_at = datetime.now(UTC) - timedelta(seconds=worker.age)
    since = task.info.started_at
    gone = (
        since is not None
        and since + _MARGIN < beaten_at
        and len(worker.tasks) < MOST_TASKS
        and task.info.id not in worker.tasks
    )
    return replace(task, interrupted=gone)


def _waits(info: TaskInfo) -> bool:
    return not info.done and not info.running


def _ended(info: TaskInfo) -> bool:
    return info.done and info.state != "FAILURE"


def _newest(tasks: Iterable[TaskView], most: int) -> list[TaskView]:
    """Sort by when each began or ended, newest first."""
    oldest = datetime.min.replace(tzinfo=UTC)

    def moment(task: TaskView) -> datetime:
        return task.info.date_done or task.info.started_at or oldest

    return sorted(tasks, key=moment, reverse=True)[:most]


def _moment(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
