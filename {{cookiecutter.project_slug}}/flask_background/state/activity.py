"""What the tasks did: the ids of the latest, and counts by task and outcome.

It holds for every task, however it was sent, and it is bounded: the list has ``KEPT`` entries, and
there is one counter for each task's name and outcome.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from celery import signals
from redis.exceptions import RedisError

from ..base.records import readable, whole
from ..core import SUBMITTED, Core

logger = logging.getLogger(__name__)

#: How many of the latest tasks are remembered.
KEPT = 100
#: Upper bounds of the classes that durations are counted in, in seconds.
BUCKETS = (0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, float("inf"))


@dataclass
class TaskStatistics:
    """How the calls of one task ended, and how long they ran.

    ``ended`` counts by Celery's state, ``durations`` by the upper bound of a class of ``BUCKETS``;
    ``seconds`` is the sum of all durations.
    """

    name: str
    ended: dict[str, int] = field(default_factory=dict)
    durations: dict[float, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    seconds: float = 0.0


def connect_signals() -> None:
    """Begin to count. Calling it again changes nothing."""
    signals.task_prerun.connect(_begun)
    signals.task_postrun.connect(_ended)


def latest(core: Core) -> dict[str, float]:
    """Return when each of the latest tasks was sent, by id, newest first. Raises ``RedisError``."""
    found: Any = core.redis.zrange(core.keys.recent, 0, KEPT - 1, desc=True, withscores=True)
    return {str(task_id): float(at) for task_id, at in found}


def statistics(core: Core) -> list[TaskStatistics]:
    """Return the counts of each task, by name. Raises ``RedisError``."""
    counters = cast("dict[str, str]", core.redis.hgetall(core.keys.counters))
    found: dict[str, TaskStatistics] = {}
    for key, value in sorted(counters.items()):
        kind, _, rest_of_key = key.partition("|")
        if not rest_of_key:
            continue  # the count of refused messages
        name, _, rest = rest_of_key.partition("|")
        one = found.setdefault(name, TaskStatistics(name))
        if kind == "ended":
            one.ended[rest] = readable(whole, value) or 0
        elif kind == "bucket" and (bound := readable(float, rest.lstrip("+"))) in one.durations:
            one.durations[bound] = readable(whole, value) or 0
        elif kind == "seconds":
            one.seconds = readable(float, value) or 0.0
    return list(found.values())


def note_sent(core: Core, task_id: str) -> None:
    """Remember that a task was sent: one round trip."""
    if core.conf.task_always_eager:
        return
    with _harmless(), core.redis.pipeline(transaction=False) as pipe:
        _remember(core, pipe, task_id)
        pipe.execute()


def _begun(task: Any, **_: Any) -> None:
    task.request.started_at = time.time()


def _ended(task_id: str, task: Any, state: str | None = None, **_: Any) -> None:
    """Count the end of a task: one round trip."""
    core = task.app
    if not isinstance(core, Core) or core.conf.task_always_eager or task.request.is_eager:
        return
    # A submitted function's name stands in `shadow`. What else stands there may differ from call
    # to call, and would make counters without end.
    name = (task.request.shadow if task.name == SUBMITTED else None) or task.name
    seconds = max(0.0, time.time() - task.request.started_at)
    bound = next(bound for bound in BUCKETS if seconds <= bound)
    written = "+Inf" if bound == float("inf") else f"{bound:g}"
    counters = core.keys.counters
    with _harmless(), core.redis.pipeline(transaction=False) as pipe:
        _remember(core, pipe, task_id)
        pipe.hincrby(counters, f"ended|{name}|{state}", 1)
        pipe.hincrby(counters, f"bucket|{name}|{written}", 1)
        pipe.hincrbyfloat(counters, f"seconds|{name}", seconds)
        pipe.execute()


def _remember(core: Core, pipe: Any, task_id: str) -> None:
    # NX: the time of the first mention stays.
    pipe.zadd(core.keys.recent, {task_id: time.time()}, nx=True)
    pipe.zremrangebyrank(core.keys.recent, 0, -KEPT - 1)


@contextmanager
def _harmless() -> Iterator[None]:
    """Fail no task: bookkeeping is worth less than the work."""
    try:
        yield
    except RedisError as error:
        logger.warning("A task was not counted, for Redis did not answer: %s", error)
