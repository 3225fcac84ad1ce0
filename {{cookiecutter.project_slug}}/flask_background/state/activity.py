"""What the tasks did: the ids of the latest, counts by task and outcome, and how each end is told.

All is bounded: the list of the latest has ``KEPT`` entries, and there is one counter for each
task's name and outcome.

The end of a task takes one trip to Redis: its record, the counts, and its message, which Redis may
forget then. So a task whose end is known does not run again, whenever its worker is lost.
"""

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

from celery import Task, signals, states
from redis.exceptions import RedisError

from ..base import scripts
from ..base.records import readable, whole
from ..core import SUBMITTED, Core

logger = logging.getLogger(__name__)

#: How many of the latest tasks are remembered.
KEPT = 100
#: Tags of messages that were let go of here lately: they need not be acknowledged again.
LET_GO: deque[str] = deque(maxlen=100)
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


def goes_with_result(core: Core, request: Any, state: str) -> bool:
    """Tell whether nothing that matters comes after a result, so that its message can go with it.

    A chord, the tasks and the errors' callbacks that follow a failure, and the task's own handlers
    come after: the message goes after them.
    """
    task = core.tasks.get(request.task)
    if task is None or request.chord or not _may_let_go(task, state):
        return False
    if state == states.FAILURE and (request.chain or request.errbacks):
        return False
    handlers = ("after_return", "on_success" if state == states.SUCCESS else "on_failure")
    return all(getattr(type(task), name) is getattr(Task, name) for name in handlers)


def store(
    core: Core,
    client: Any,
    request: Any,
    state: str,
    *,
    record: tuple[str, Any, int] = ("", "", 0),
    ended: bool,
    let_go: bool,
) -> None:
    """Store a record (its key, its text, its seconds), and tell of an end. Raises ``RedisError``.

    ``ended``: the task has ended, and is counted. ``let_go``: its message is done with.
    """
    key, text, seconds = record
    keys, tag = core.keys, _tag(request) if let_go else ""
    names = [keys.unacked, keys.unacked_index, key, keys.counters]
    counts = _counts(request, state) if ended else []
    scripts.call(client, "store", names, tag, text, seconds, *counts)
    if tag:
        LET_GO.append(tag)


def _tag(request: Any) -> str:
    return str((request.properties or {}).get("delivery_tag") or "")


def _may_let_go(task: Any, state: str | None) -> bool:
    if state == states.FAILURE:
        return bool(task.acks_on_failure and task.acks_on_timeout)
    return state in (states.SUCCESS, states.RETRY)


def _begun(task: Any, **_: Any) -> None:
    request = task.request
    request.started_at = time.time()
    # A submitted function's name stands in `shadow`. What else stands there may differ from call
    # to call, and would make counters without end.
    request.counted_as = (request.shadow if task.name == SUBMITTED else None) or task.name


def _ended(task: Any, state: str | None = None, **_: Any) -> None:
    """Tell of the end of a task if its result has not."""
    core, request = task.app, task.request
    if not isinstance(core, Core) or core.conf.task_always_eager or request.is_eager:
        return
    if state is None or getattr(request, "told", False):
        return
    try:
        store(core, core.redis, request, state, ended=True, let_go=_may_let_go(task, state))
    except RedisError as error:
        # Fail no task: bookkeeping is worth less than the work.
        logger.warning("A task was not counted, for Redis did not answer: %s", error)


def _counts(request: Any, state: str) -> list[Any]:
    """Name the counters that the end of a task raises; the last one by its seconds."""
    started = getattr(request, "started_at", None)
    if started is None:
        return []
    name, seconds = request.counted_as, max(0.0, time.time() - started)
    bound = next(bound for bound in BUCKETS if seconds <= bound)
    written = "+Inf" if bound == float("inf") else f"{bound:g}"
    kinds = (f"ended|{name}|{state}", f"bucket|{name}|{written}", f"seconds|{name}")
    return [*kinds, seconds]
