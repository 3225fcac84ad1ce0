"""What Redis holds about a task, and how it is read. Nothing is unpickled or imported for it."""

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import states
from kombu.utils.json import object_hook

from .errors import TaskError

#: States in which the task's function is not at work.
_NOT_RUNNING = states.READY_STATES | {states.PENDING, states.RECEIVED, states.RETRY}

#: Characters of a task's name that are shown.
LONGEST_NAME = 200

#: The result of a task that was cancelled; the shape of Celery's own exceptions.
CANCELLED = {
    "exc_type": "TaskRevokedError",
    "exc_message": ["cancelled"],
    "exc_module": "celery.exceptions",
}


def pending(task_id: str, name: str) -> str:
    """Write the record of a task that waits."""
    record = {"status": states.PENDING, "result": None, "task_id": task_id, "name": name}
    return json.dumps(record)


def readable[T](make: Callable[..., T], *arguments: Any) -> T | None:
    """Return what ``make`` makes of something that Redis holds; None if it is nothing of ours.

    Whoever can write to Redis may have put it there, and it must hide nothing but itself.
    """
    try:
        return make(*arguments)
    except (ArithmeticError, LookupError, OSError, RecursionError, TypeError, ValueError):
        return None


def whole(value: Any) -> int:
    """Read a count; no larger than what all who get it can hold. Raises ``ValueError`` and such."""
    return min(int(value), 2**53)


def read(text: str | bytes) -> dict[str, Any] | None:
    """Read a record, with the dates, decimals, UUIDs and bytes that it was written from."""
    found = readable(lambda: json.loads(text, object_hook=_real_value))
    return found if isinstance(found, dict) and isinstance(found.get("status"), str) else None


def _real_value(read: dict[str, Any]) -> Any:
    try:
        return object_hook(read)
    except Exception:  # it only looks like one of those
        return read


@dataclass(frozen=True)
class TaskInfo:
    """One task as the result backend knows it.

    ``state`` is one of Celery's states, or ``PROGRESS``; ``progress`` is what the task reported
    last; ``result`` is what the task returned; ``error`` reads ``"ValueError: the message"``.
    ``meta`` is what came with a state on the way (``update_state``); ``info["current"]`` is short
    for ``info.meta["current"]``.
    """

    id: str
    state: str
    name: str | None = None
    result: Any = None
    progress: Mapping[str, Any] | None = None
    meta: Any = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    worker: str | None = None
    queue: str | None = None
    started_at: datetime | None = None
    date_done: datetime | None = None

    def __getitem__(self, name: str) -> Any:
        return (self.meta or {})[name]

    @property
    def done(self) -> bool:
        """Whether the task has ended: with a result, with an error, or cancelled."""
        return self.state in states.READY_STATES

    @property
    def running(self) -> bool:
        """Whether the task's function is at work now."""
        return self.state not in _NOT_RUNNING

    @property
    def plain_result(self) -> Any:
        """The result as plain JSON: a date or the like is its text."""
        return json.loads(json.dumps(self.result, default=str))

    @property
    def seconds(self) -> float | None:
        """How long the task took, once it has ended."""
        if self.started_at is None or self.date_done is None:
            return None
        return max(0.0, (self.date_done - self.started_at).total_seconds())


def info_from_meta(task_id: str, meta: Mapping[str, Any]) -> TaskInfo:
    """Read the JSON object that the result backend holds for a task."""
    state, result = str(meta.get("status", states.PENDING)), meta.get("result")
    error = exception_from_meta(meta) if state in states.EXCEPTION_STATES else None
    traceback, worker, queue = (meta.get(name) for name in ("traceback", "worker", "queue"))
    return TaskInfo(
        id=task_id,
        state=state,
        # The header `shadow` decides it, and may hold anything.
        name=str(name)[:LONGEST_NAME] if (name := meta.get("name")) is not None else None,
        result=result if state == states.SUCCESS else None,
        meta=None if state in _NOT_RUNNING else result,
        progress=result if state == "PROGRESS" and isinstance(result, Mapping) else None,
        error=error_text(error) if error else None,
        error_type=getattr(error, "type_name", type(error).__name__) if error else None,
        traceback=traceback if isinstance(traceback, str) else None,
        worker=worker if isinstance(worker, str) else None,
        queue=queue if isinstance(queue, str) else None,
        started_at=readable(datetime.fromtimestamp, meta.get("started_at"), UTC),
        date_done=readable(lambda: datetime.fromisoformat(meta["date_done"]).astimezone(UTC)),
    )


def exception_from_meta(meta: Mapping[str, Any]) -> Exception:
    """Make the exception that a task ended with, from its type's name and its arguments.

    Nothing is unpickled or imported for it. The type is taken where this process has it already:
    a builtin, or an exception of a loaded module that can be made from these; everything else
    becomes a ``TaskError``.
    """
    result = meta.get("result")
    if not isinstance(result, Mapping):
        return TaskError("Exception", str(result))
    type_name, parts = str(result.get("exc_type", "Exception")), result.get("exc_message")
    if not isinstance(parts, (list, tuple)):
        parts = [parts] if parts else []
    kind = getattr(sys.modules.get(str(result.get("exc_module"))), type_name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(Exception):  # its constructor may want something else
            return kind(*parts)
    return TaskError(type_name, ", ".join(map(str, parts)))


def arguments_of(error: BaseException) -> tuple[Any, ...]:
    """Say what an exception is made from, or else its text."""
    if isinstance(error, OSError) and error.filename is not None:
        return error.errno, error.strerror, error.filename
    if isinstance(error, BaseExceptionGroup):
        return (f"{error.message}: {', '.join(map(repr, error.exceptions))}",)
    return error.args or ((text,) if (text := str(error)) else ())


def error_text(error: BaseException) -> str:
    """Write ``ValueError: the message``."""
    named = str(error) if isinstance(error, TaskError) else f"{type(error).__name__}: {error}"
    return named.rstrip(": ")
