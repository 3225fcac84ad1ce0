"""What there is to see at one moment: readiness, and what waits, runs, ended and failed."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from redis.exceptions import RedisError

from ..base.reasons import reason_of
from ..base.records import TaskInfo, info_from_meta, read, readable
from ..core import Core
from . import activity, failed, heartbeats
from .failed import FAILED, GIVEN_UP, REFUSED, FailedTask
from .heartbeats import LOST_AFTER, MOST_TASKS, Heartbeat
from .schedule import ScheduleStatus, schedule_status

#: Seconds between a task's own start and the moment when its worker's heartbeat must name it.
_MARGIN = timedelta(seconds=2)


@dataclass(frozen=True)
class Readiness:
    """Whether tasks can be sent and done: ``reason`` is a sentence that says why not, or None."""

    reason: str | None
    workers: int = 0
    dead_letters: int = 0


@dataclass(frozen=True)
class TaskView:
    """A task with what is known besides its record.

    ``interrupted``: its worker died or was stopped while it ran; it goes back into its queue.
    """

    info: TaskInfo
    sent_at: datetime | None = None
    interrupted: bool = False

    @property
    def label(self) -> str:
        """The last part of the task's name."""
        return (self.info.name or self.info.id).rpartition(".")[2]


@dataclass(frozen=True)
class Overview:
    """The background at one moment; empty and not ``reachable`` while Redis is away.

    ``failed_count`` is how many failed or were given up, listed here or not.
    """

    reachable: bool = True
    running: list[TaskView] = field(default_factory=list)
    waiting: list[TaskView] = field(default_factory=list)
    ended: list[TaskView] = field(default_factory=list)
    failures: list[FailedTask] = field(default_factory=list)
    dead: list[FailedTask] = field(default_factory=list)
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


def readiness(core: Core) -> Readiness:
    """Find out whether Redis takes a task and a worker lives."""
    try:
        core.redis.set(core.keys.probe, 1, ex=60)
        dead = failed.count(core, GIVEN_UP) + failed.count(core, REFUSED)
        alive = sum(beat.alive for beat in heartbeats.latest(core))
    except RedisError as error:
        core.log.get_default_logger().warning("Redis is ill: %s", error)
        return Readiness(reason_of(error))
    silent = f"No worker has given a sign of life for {LOST_AFTER} seconds."
    return Readiness(None if alive else silent, alive, dead)


def queue_lengths(core: Core) -> dict[str, int]:
    """Return how many tasks wait in each queue, or for their time. Raises ``RedisError``."""
    lists = core.queue_lists()
    lengths = dict.fromkeys(sorted(lists.values()), 0)
    with core.redis.pipeline(transaction=False) as pipe:
        for name in lists:
            pipe.llen(f"{core.keys.prefix}{name}")
        for queue in lengths:
            pipe.zcard(core.keys.delayed(queue))
        for queue, length in zip([*lists.values(), *lengths], pipe.execute(), strict=True):
            lengths[queue] += length
    return lengths


def take(
    core: Core, running: int = 20, waiting: int = 8, ended: int = 12, failures: int = 8
) -> Overview:
    """Ask Redis, in nine trips; the numbers say how many are listed. Raises ``RedisError``."""
    # The heartbeats come first: what they do not name, though it began before, runs no more.
    workers = heartbeats.latest(core)
    sent = activity.latest(core)
    working = {task_id for worker in workers if worker.alive for task_id in worker.tasks}
    tasks = [
        TaskView(info, readable(datetime.fromtimestamp, sent.get(info.id), UTC))
        for info in _read_tasks(core, [*filter(None, sent), *(working - sent.keys())])
    ]
    at_work = [task for task in tasks if task.info.running]
    waits = [task for task in reversed(tasks) if not (task.info.done or task.info.running)]
    has_ended = (task for task in tasks if task.info.done and task.info.state != "FAILURE")
    dead = failed.latest(core, GIVEN_UP, failures) + failed.latest(core, REFUSED, failures)
    return Overview(
        running=[_check(task, workers) for task in _newest(at_work, running)],
        waiting=waits[:waiting],
        ended=_newest(has_ended, ended),
        failures=failed.latest(core, FAILED, failures),
        dead=dead[:failures],
        failed_count=sum(failed.count(core, kind) for kind in (FAILED, GIVEN_UP, REFUSED)),
        queues=queue_lengths(core),
        workers=workers,
        schedule=schedule_status(core),
    )


def _read_tasks(core: Core, task_ids: list[str]) -> Iterable[TaskInfo]:
    """Read the records of tasks in one round trip; those that expired are left out."""
    texts = core.redis.mget([*map(core.keys.record, task_ids)]) if task_ids else []
    for task_id, text in zip(task_ids, texts, strict=True):
        if text and (meta := read(text)):
            yield info_from_meta(task_id, meta)


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


def _newest(tasks: Iterable[TaskView], most: int) -> list[TaskView]:
    """Sort by when each began or ended, newest first."""
    oldest = datetime.min.replace(tzinfo=UTC)

    def moment(task: TaskView) -> datetime:
        return task.info.date_done or task.info.started_at or oldest

    return sorted(tasks, key=moment, reverse=True)[:most]
