"""What Redis holds about a task, and the result backend that writes it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import states
from celery.backends.cache import CacheBackend
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendError
from celery.utils.serialization import UnpickleableExceptionWrapper
from kombu.exceptions import OperationalError
from redis import BlockingConnectionPool
from redis.exceptions import RedisError

from ..base.errors import TaskError
from .failures import remember

logger = logging.getLogger(__name__)

#: States in which the task's function is not at work.
_NOT_RUNNING = states.READY_STATES | {states.PENDING, states.RECEIVED, states.RETRY}


#: Seconds to wait for a free connection.
_POOL_WAIT = 5

# The application says it once when it starts (redis_client.py); Celery would for each process.
logging.getLogger("celery.backends.redis").addFilter(
    lambda record: "ssl_cert_reqs=CERT_NONE" not in str(record.msg)
)


# KEYS: key. ARGV: value, seconds. Its first command needs no memory, so that a full Redis lets the
# rest pass: workers must be able to end their tasks, or nothing becomes free.
_STORE = """
redis.call('PERSIST', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[1])
"""


class _Telling:
    """For a result backend: what it stores tells the task's name and where it runs."""

    def _get_result_meta(self, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        meta = super()._get_result_meta(result, state, *args, **kwargs)  # type: ignore[misc]
        request = kwargs.get("request") or (args[1] if len(args) > 1 else None)
        if request:
            if state in (states.STARTED, "PROGRESS") and not hasattr(request, "started_at"):
                request.started_at = time.time()
            meta["name"] = getattr(request, "shadow", None) or getattr(request, "task", None)
            meta["worker"] = getattr(request, "hostname", None)
            meta["queue"] = (getattr(request, "delivery_info", None) or {}).get("routing_key")
            meta["started_at"] = getattr(request, "started_at", None)
        return meta


class EagerBackend(_Telling, CacheBackend):
    """Keeps the results of eager tasks in this process."""


class ResultBackend(_Telling, RedisBackend):
    """Celery's Redis backend, which also keeps the task's name, and does not subscribe early.

    Celery subscribes to the result of every task at the moment it is sent, in case that somebody
    waits. Most web requests never do; a Future subscribes when it is waited for.
    """

    app: Any
    expires: int | None

    def _get_pool(self, **params: Any) -> BlockingConnectionPool:
        # Who finds all connections in use waits for one, where Celery would raise.
        return BlockingConnectionPool(timeout=_POOL_WAIT, **params)  # type: ignore[no-untyped-call]

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store a task's state; one on the way, such as STARTED, only if that is possible.

        Celery would fail the task before it ran, when its start cannot be noted.
        """
        try:
            return super().store_result(task_id, result, state, *args, **kwargs)
        except (BackendError, OperationalError, RedisError) as error:
            if state in states.READY_STATES:
                raise
            logger.warning("The state %s of %s could not be stored: %s", state, task_id, error)
            return result

    def _set(self, key: Any, value: Any, expires: float | None = None) -> None:
        seconds = int(expires or self.expires or 0)
        if seconds:
            self.client.eval(_STORE, 1, key, value, seconds)
        else:
            super()._set(key, value)  # type: ignore[misc]

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing, where Celery would subscribe to the result's channel."""

    def add_pending_result(self, result: Any, weak: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Listen for the end of a task as long as somebody holds its result object.

        Celery would hold those that a chord makes for itself, and listen for them, forever.
        """
        return super().add_pending_result(result, True, *args, **kwargs)

    def mark_as_failure(self, task_id: str, exc: Exception, *args: Any, **kwargs: Any) -> None:
        """Store the failure, and keep the message so that the task can be run again."""
        request = kwargs.get("request") or (args[1] if len(args) > 1 else None)
        if request:
            # First, so that whoever sees the failure can run it again.
            remember(self.app, request, exc)
        super().mark_as_failure(task_id, exc, *args, **kwargs)


@dataclass(frozen=True)
class TaskInfo:
    """One task as the result backend knows it.

    ``state`` is one of Celery's states, or ``PROGRESS``; ``progress`` is what the task reported
    last; ``result`` is a JSON value; ``error`` reads ``"ValueError: the message"``.
    """

    id: str
    state: str
    name: str | None = None
    result: Any = None
    progress: Mapping[str, Any] | None = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    worker: str | None = None
    queue: str | None = None
    started_at: datetime | None = None
    date_done: datetime | None = None

    @property
    def done(self) -> bool:
        """Whether the task has ended: with a result, with an error, or cancelled."""
        return self.state in states.READY_STATES

    @property
    def running(self) -> bool:
        """Whether the task's function is at work now."""
        return self.state not in _NOT_RUNNING

    @property
    def seconds(self) -> float | None:
        """How long the task took, once it has ended."""
        if self.started_at is None or self.date_done is None:
            return None
        return max(0.0, (self.date_done - self.started_at).total_seconds())


def info_from_meta(task_id: str, meta: Mapping[str, Any]) -> TaskInfo:
    """Read the JSON object that the result backend holds for a task."""
    state, result = str(meta.get("status", states.PENDING)), meta.get("result")
    error_type, message = None, ""
    if state in states.EXCEPTION_STATES and isinstance(result, Mapping):
        error_type, message = _error_parts(result)
    started, done = meta.get("started_at"), meta.get("date_done")
    return TaskInfo(
        id=task_id,
        state=state,
        name=meta.get("name"),
        result=result if state == states.SUCCESS else None,
        progress=result if state == "PROGRESS" and isinstance(result, Mapping) else None,
        error=f"{error_type}: {message}".rstrip(": ") if error_type else None,
        error_type=error_type,
        traceback=meta.get("traceback"),
        worker=meta.get("worker"),
        queue=meta.get("queue"),
        started_at=datetime.fromtimestamp(started, UTC) if started else None,
        date_done=datetime.fromisoformat(done) if done else None,
    )


def exception_from_meta(meta: Mapping[str, Any]) -> Exception:
    """Make the exception that a task ended with, from its type's name and its message.

    Nothing is unpickled or imported for it. The type is taken where this process has it already:
    a builtin, or an exception of a loaded module that can be made from the message; everything
    else becomes a ``TaskError`` that carries both.
    """
    result = meta.get("result")
    if not isinstance(result, Mapping):
        return TaskError("Exception", str(result))
    result = _unwrapped(result)
    type_name, message = _error_parts(result)
    kind = getattr(sys.modules.get(str(result.get("exc_module"))), type_name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        arguments = result.get("exc_message")
        try:
            return kind(*arguments) if isinstance(arguments, (list, tuple)) else kind(message)
        except Exception:  # its constructor wants something else
            return TaskError(type_name, message)
    return TaskError(type_name, message)


def _unwrapped(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Undo what Celery wraps around an exception that could not be pickled."""
    parts = result.get("exc_message")
    if result.get("exc_type") != UnpickleableExceptionWrapper.__name__:
        return result
    if not isinstance(parts, (list, tuple)) or len(parts) < 3:
        return result
    module, type_name, arguments = parts[:3]
    return {"exc_module": module, "exc_type": type_name, "exc_message": arguments}


def _error_parts(result: Mapping[str, Any]) -> tuple[str, str]:
    result = _unwrapped(result)
    message = result.get("exc_message")
    if isinstance(message, (list, tuple)):
        message = ", ".join(str(part) for part in message)
    return str(result.get("exc_type", "Exception")), str(message or "")
