"""The latest failed tasks, with what it takes to run them again.

Celery forgets a task's message when the task has ended. Here the messages of the last failures are
kept in one short list in Redis, so that somebody can run them again once the reason is gone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger
from kombu.exceptions import EncodeError
from kombu.utils.json import dumps, loads
from redis.exceptions import RedisError

from ..base import keys

if TYPE_CHECKING:
    from ..app import FlaskCelery

logger = get_logger(__name__)

#: How many failures are remembered, and for how long (seconds).
KEPT = 50
TTL = 24 * 3600
#: Larger messages (bytes) are not kept, so the list takes less than a megabyte.
_LARGEST = 16 * 1024


@dataclass(frozen=True)
class Failure:
    """A task that failed ``at`` that time. ``error`` reads ``"ValueError: the message"``."""

    id: str
    name: str
    error: str
    at: datetime
    again: Mapping[str, Any] | None

    @property
    def can_run_again(self) -> bool:
        """Whether the message was kept: not too large, and not a part of a chain or a group."""
        return self.again is not None


def remember(app: FlaskCelery, request: Any, error: BaseException) -> None:
    """Note that the task of ``request`` failed. It never raises: the result is what counts."""
    task_id, task = getattr(request, "id", None), getattr(request, "task", None)
    task = getattr(task, "name", task)  # a worker's request has the task itself
    if not task_id or not task or getattr(request, "is_eager", False):
        return
    record = {
        "id": task_id,
        "name": getattr(request, "shadow", None) or task,
        "error": f"{type(error).__name__}: {error}".rstrip(": ")[:500],
        "at": time.time(),
        "again": None,
    }
    try:
        with app.redis.pipeline(transaction=False) as pipeline:
            pipeline.lpush(keys.FAILURES, _with_message(record, task, request))
            pipeline.ltrim(keys.FAILURES, 0, KEPT - 1)
            pipeline.expire(keys.FAILURES, TTL)
            pipeline.execute()
    except RedisError as problem:
        logger.warning("The failure of %s was not noted: %s", task_id, problem)


def _with_message(record: dict[str, Any], task: str, request: Any) -> str:
    """Write the record with the task's message, if it can be sent again as it is."""
    bare = dumps(record)
    parts = ("group", "chord", "chain", "callbacks")
    args, kwargs = getattr(request, "args", None), getattr(request, "kwargs", None)
    if args is None or kwargs is None or any(getattr(request, part, None) for part in parts):
        return bare
    again = {
        "name": task,
        "args": args,
        "kwargs": kwargs,
        "shadow": getattr(request, "shadow", None),
        "queue": (getattr(request, "delivery_info", None) or {}).get("routing_key"),
    }
    try:
        whole = dumps({**record, "again": again})
    except (EncodeError, TypeError, ValueError):
        return bare
    return whole if len(whole) <= _LARGEST else bare


def read_failures(app: FlaskCelery) -> list[Failure]:
    """Read the latest failures, newest first. Raises ``redis.exceptions.RedisError``."""
    return [_parse(text) for text in _read(app)]


def take(app: FlaskCelery, task_id: str) -> tuple[Failure, str] | None:
    """Take a failure that can run again off the list; None if it is not there (any more).

    Of two callers at the same moment one gets it. Raises ``redis.exceptions.RedisError``.
    """
    for text in _read(app):
        failure = _parse(text)
        if failure.id == task_id and failure.can_run_again:
            return (failure, text) if app.redis.lrem(keys.FAILURES, 1, text) else None
    return None


def put_back(app: FlaskCelery, text: str) -> None:
    """Undo :func:`take`."""
    try:
        app.redis.lpush(keys.FAILURES, text)
    except RedisError as problem:
        logger.warning("A failed task cannot be run again from the list: %s", problem)


def _read(app: FlaskCelery) -> list[str]:
    return [str(text) for text in app.redis.lrange(keys.FAILURES, 0, -1)]


def _parse(text: str) -> Failure:
    record = loads(text)
    return Failure(
        id=record["id"],
        name=record["name"],
        error=record["error"],
        at=datetime.fromtimestamp(record["at"], UTC),
        again=record["again"],
    )
