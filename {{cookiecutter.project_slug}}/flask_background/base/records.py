"""What Redis holds about a task, and how it is read. Nothing is unpickled or imported for it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery import states
from celery.utils.serialization import UnpickleableExceptionWrapper

from .errors import TaskError

#: States in which the task's function is not at work.
_NOT_RUNNING = states.READY_STATES | {states.PENDING, states.RECEIVED, states.RETRY}

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
