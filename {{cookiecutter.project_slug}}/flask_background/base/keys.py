"""The names of what this layer keeps in Redis besides Celery's own keys."""

from __future__ import annotations

import hashlib

PREFIX = "background:"
WORKERS = PREFIX + "workers"
SCHEDULER_LEASE = PREFIX + "scheduler:lease"
SCHEDULER_RUNS = PREFIX + "scheduler:runs"
LOCAL_CLUSTER = PREFIX + "local-cluster"
FAILURES = PREFIX + "failures"
PROBE = PREFIX + "probe"
DEAD = PREFIX + "dead"
DEAD_ORDER = PREFIX + "dead:order"

#: Seconds for which an issued task that never ran, or a cancelled one, is remembered.
ISSUED_TTL = 24 * 3600

#: What the result store says of a task that was cancelled; the shape of Celery's own exceptions.
CANCELLED_META = {
    "exc_type": "TaskRevokedError",
    "exc_message": ["cancelled"],
    "exc_module": "celery.exceptions",
}


def cancelled(task_id: str) -> str:
    """Name the mark that a task was cancelled."""
    return f"{PREFIX}cancelled:{task_id}"


def deliveries(task_id: str) -> str:
    """Name the count of a task's deliveries after the first one."""
    return f"{PREFIX}deliveries:{task_id}"


def lock(name: str) -> str:
    """Name the lock of a function that does not overlap itself."""
    return f"{PREFIX}lock:{name}"


def done(name: str, values: str) -> str:
    """Name the note that a function has done its work for some values."""
    digest = hashlib.sha256(values.encode()).hexdigest()
    return f"{PREFIX}done:{name}:{digest}"
