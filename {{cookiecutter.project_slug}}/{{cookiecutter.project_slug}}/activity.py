"""What the tasks did: a short list of the latest, and counts for the metrics. Kept in Redis.

Celery's signals feed it, so it holds for every task, yours included. It is bounded: the list has
``KEPT`` entries, and there is one counter for each task's name and outcome.
https://docs.celeryq.dev/en/stable/userguide/signals.html
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from celery import signals
from flask import current_app, has_app_context
from redis.exceptions import RedisError

from .background.app import SUBMITTED
from .extensions import celery, redis

#: How many of the latest tasks are remembered.
KEPT = 100

#: Upper bounds of the classes that durations are counted in, in seconds.
BUCKETS = (0.05, 0.25, 1, 5, 15, 60, 300)

_log = logging.getLogger(__name__)
_started: dict[str, float] = {}


def connect_signals() -> None:
    """Begin to listen. Calling it again changes nothing."""
    signals.after_task_publish.connect(_published, weak=False, dispatch_uid=f"{__name__}.published")
    signals.task_prerun.connect(_begun, weak=False, dispatch_uid=f"{__name__}.begun")
    signals.task_postrun.connect(_ended, weak=False, dispatch_uid=f"{__name__}.ended")


def recent(count: int = KEPT) -> list[str]:
    """Return the ids of the latest tasks, newest first. Raises ``RedisError``."""
    return cast("list[str]", redis.client.zrange(redis.key("recent"), 0, count - 1, desc=True))


def recent_times() -> dict[str, float]:
    """Return when each of the latest tasks was sent, by id, newest first. Raises ``RedisError``."""
    pairs = redis.client.zrange(redis.key("recent"), 0, KEPT - 1, desc=True, withscores=True)
    return {str(task_id): float(at) for task_id, at in cast("list[tuple[str, float]]", pairs)}


def counters() -> dict[str, str]:
    """Return the counters by field, see ``_ended`` for their names. Raises ``RedisError``."""
    return cast("dict[str, str]", redis.client.hgetall(redis.key("counters")))


def _harmless(handler: Callable[..., None]) -> Callable[..., None]:
    """Make a signal handler that never fails a task: bookkeeping is worth less than the work."""

    @wraps(handler)
    def guarded(**arguments: Any) -> None:
        # Celery sends its signals outside of the application's context in a worker.
        app = current_app if has_app_context() else celery.flask_app
        if app.extensions.get("celery") is not celery:
            return  # another application in this process, with a Celery of its own
        if app.config.get("CELERY_TASK_ALWAYS_EAGER"):
            return
        try:
            with app.app_context():
                handler(**arguments)
        except RedisError as error:
            _log.warning("A task was not counted, for Redis did not answer: %s", error)

    return guarded


def _remember(pipeline: Any, task_id: str) -> None:
    key = redis.key("recent")
    # NX: the time of the first mention stays.
    pipeline.zadd(key, {task_id: time.time()}, nx=True)
    pipeline.zremrangebyrank(key, 0, -KEPT - 1)


@_harmless
def _published(headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers and headers.get("id"):
        with redis.client.pipeline(transaction=False) as pipeline:
            _remember(pipeline, headers["id"])
            pipeline.execute()


def _begun(task_id: str, **_: Any) -> None:
    _started[task_id] = time.perf_counter()


@_harmless
def _ended(task_id: str, task: Any, state: str | None = None, **_: Any) -> None:
    """Count the end of a task: one round trip."""
    begun = _started.pop(task_id, None)
    # A submitted function's name stands in `shadow`. What else stands there may differ from call
    # to call, and would make counters without end.
    name = (task.request.shadow if task.name == SUBMITTED else None) or task.name
    counters = redis.key("counters")
    with redis.client.pipeline(transaction=False) as pipeline:
        _remember(pipeline, task_id)
        pipeline.hincrby(counters, f"ended|{name}|{state}", 1)
        if begun is not None:
            seconds = time.perf_counter() - begun
            bound = next((str(bound) for bound in BUCKETS if seconds <= bound), "+Inf")
            pipeline.hincrby(counters, f"bucket|{name}|{bound}", 1)
            pipeline.hincrbyfloat(counters, f"seconds|{name}", seconds)
        pipeline.execute()
