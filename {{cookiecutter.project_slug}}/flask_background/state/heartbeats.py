"""What each worker said last. Reading all of them is one command of Redis.

Asking the workers themselves (``celery inspect ping``) takes a second and a process.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..base import scripts
from ..base.records import readable, whole
from ..core import Core

#: Seconds of silence after which a worker counts as gone.
LOST_AFTER = 30
#: How many of its running tasks a worker names.
MOST_TASKS = 20
#: Seconds for which a silent worker is still shown.
_FORGET_AFTER = 3600


@dataclass(frozen=True)
class Heartbeat:
    """What a worker said last: ``age`` seconds ago, with ``active`` tasks at work.

    ``tasks`` are the ids of those tasks, but no more than ``MOST_TASKS``. ``processed`` tasks have
    ended since the worker began. ``locked``: the task at work holds the interpreter's lock, and the
    cluster speaks for the worker.
    """

    name: str
    pid: int
    queues: tuple[str, ...]
    age: float
    active: int
    processed: int
    concurrency: int = 1
    tasks: tuple[str, ...] = ()
    locked: bool = False

    @property
    def alive(self) -> bool:
        """Whether the worker has beaten within the last 30 seconds."""
        return self.age < LOST_AFTER


def latest(core: Core) -> list[Heartbeat]:
    """Read the last heartbeat of each worker. Raises ``redis.exceptions.RedisError``."""
    with core.redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(core.keys.workers)
        (seconds, microseconds), records = pipe.execute()
    now = seconds + microseconds / 1e6
    found = (readable(_read, str(name), record, now) for name, record in records.items())
    beats = [beat for beat in found if beat and beat.age < _FORGET_AFTER]
    return sorted(beats, key=lambda beat: beat.name.split("@"))  # a worker before its other places


def _read(name: str, record: str, now: float) -> Heartbeat:
    at, _, text = record.partition(" ")
    said = json.loads(text)
    return Heartbeat(
        name=name,
        pid=whole(said["pid"]),
        queues=tuple(map(str, said["queues"])),
        age=max(0.0, now - float(at)),
        active=whole(said["active"]),
        processed=whole(said["processed"]),
        concurrency=whole(said.get("concurrency", 1)),
        tasks=tuple(str(task) for task in said.get("tasks", ()) if task),
        locked=bool(said.get("locked")),
    )


def write(core: Core, name: str, said: dict[str, Any], held: Iterable[str] = ()) -> set[str]:
    """Say it for a worker; return which of its tasks were cancelled. Raises ``RedisError``."""
    ids = list(held)
    keys = [core.keys.workers, *map(core.keys.cancelled, ids)]
    return set(scripts.call(core.redis, "beat", keys, name, json.dumps(said), *ids))


def cover(core: Core, name: str, task_id: str) -> set[str]:
    """Repeat a worker's last word, with the task that keeps it from it; else as ``write``."""
    last = str(core.redis.hget(core.keys.workers, name) or "").partition(" ")[2]
    if not last:
        return set()
    said = json.loads(last) | {"active": 1, "tasks": [task_id], "locked": True}
    return write(core, name, said, [task_id])
