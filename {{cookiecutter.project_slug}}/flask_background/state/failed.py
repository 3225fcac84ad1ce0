"""What did not work out: tasks that failed, and messages that were given up.

All are kept for a person, with what it takes to run them again. A task that *failed* raised an
error; Celery forgets its message then, so it is kept here. One that was *given up* is a dead
letter: it ended its worker each time, or no worker could read it. One that was *refused* is a dead
letter that this application cannot have sent: no valid signature, or no message at all.
"""

import contextlib
import logging
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Self

from kombu.exceptions import EncodeError
from kombu.utils.json import dumps, loads
from redis.exceptions import RedisError

from ..base import scripts
from ..base.errors import BackgroundError, GivenUp, UnknownTask
from ..base.keys import ISSUED_TTL, Keys
from ..base.records import LONGEST_NAME, error_text, pending, readable
from ..core import Core

logger = logging.getLogger(__name__)

FAILED, GIVEN_UP, REFUSED = "failed", "given up", "refused"
#: How many of each kind are kept, and for how many seconds.
KEPT = {FAILED: (50, 24 * 3600), GIVEN_UP: (1000, None), REFUSED: (100, None)}
#: Larger messages (bytes) of failed tasks are not kept, so their list takes less than a megabyte.
_LARGEST = 16 * 1024


@dataclass(frozen=True)
class FailedTask:
    """A task that failed, was given up, or was refused.

    ``id`` and ``name`` are the task's as far as they could be read. ``reason`` reads
    ``"ValueError: the message"`` for a task that failed, and is a sentence for one that was given
    up. ``at`` is in seconds since 1970. ``args`` and ``kwargs`` are Celery's short form for people.
    ``message`` is the whole message of one that was given up, ``list`` the list in Redis that it
    came from; ``again`` is what to send for one that failed, sealed.
    """

    id: str
    name: str
    reason: str
    at: float
    kind: str = GIVEN_UP
    args: str = ""
    kwargs: str = ""
    list: str = ""
    message: str = ""
    again: str | None = None

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what :meth:`to_json` wrote, of this version or another."""
        known = {field.name for field in fields(cls)}
        read = {name: value for name, value in dict(loads(text)).items() if name in known}
        return cls(**read | {"at": float(read["at"])})

    def to_json(self) -> str:
        """Write it for Redis. Raises ``EncodeError``."""
        return str(dumps(asdict(self)))

    @property
    def date(self) -> datetime:
        """When it failed or was given up."""
        return readable(datetime.fromtimestamp, self.at, UTC) or datetime.fromtimestamp(0, UTC)

    @property
    def can_run_again(self) -> bool:
        """Whether its message was kept: not too large, and not a part of a chain or a group."""
        return self.kind == GIVEN_UP or self.again is not None


def order_of(keys: Keys, kind: str) -> str:
    """Name the sorted set that has the ids of a kind."""
    return {FAILED: keys.failures, GIVEN_UP: keys.dead, REFUSED: keys.refused}[kind]


# Keeping


def note_failure(core: Core, request: Any, error: BaseException) -> None:
    """Keep a task that failed. It never raises: the result is what counts."""
    task_id, task = getattr(request, "id", None), getattr(request, "task", None)
    task = getattr(task, "name", task)  # a worker's request has the task itself
    if not task_id or not task or getattr(request, "is_eager", False):
        return
    if isinstance(error, GivenUp):
        return  # it is kept already
    failed = FailedTask(
        id=task_id,
        name=str(getattr(request, "shadow", None) or task)[:LONGEST_NAME],
        reason=error_text(error)[:500],
        at=time.time(),
        kind=FAILED,
    )
    try:
        keep(core, failed, _with_message(core, failed, task, request))
    except RedisError as problem:
        logger.warning("The failure of %s was not noted: %s", task_id, problem)


def _with_message(core: Core, failed: FailedTask, task: str, request: Any) -> str:
    """Write it down with the task's message, if that can be sent again as it is."""
    bare = failed.to_json()
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
        whole = replace(failed, again=core.seal.seal(dumps(again))).to_json() if core.seal else bare
    except (EncodeError, TypeError, ValueError):
        return bare
    return whole if len(whole) <= _LARGEST else bare


def count_refused(core: Core) -> None:
    """Count a message or a command without a valid signature."""
    with contextlib.suppress(RedisError):
        core.redis.hincrby(core.keys.counters, "refused", 1)


def keep(core: Core, failed: FailedTask, record: str, tag: str = "") -> None:
    """Write one down; ``tag``: a worker holds its message. Raises ``RedisError``."""
    keys = core.keys
    most, seconds = KEPT[failed.kind]
    since = failed.at - seconds if seconds else 0
    names = [keys.failed, order_of(keys, failed.kind), keys.unacked, keys.unacked_index]
    scripts.call(core.redis, "keep", names, failed.id, record, f"{failed.at:.6f}", most, since, tag)


# Looking


def latest(core: Core, kind: str, most: int | None = None) -> list[FailedTask]:
    """Return those of a kind, the latest first, ``most`` of them or all. Raises ``RedisError``."""
    seconds = KEPT[kind][1]
    oldest = time.time() - seconds if seconds else 0
    order = order_of(core.keys, kind)
    ids: Any = core.redis.zrevrangebyscore(order, "+inf", oldest, start=0, num=most or -1)
    texts: Any = core.redis.hmget(core.keys.failed, ids) if ids else []
    found = (readable(FailedTask.from_json, text) for text in texts)
    return [one for one in found if one]


def find(core: Core, task_id: str) -> FailedTask | None:
    """Return all of one, or None. Raises ``RedisError``."""
    return readable(FailedTask.from_json, core.redis.hget(core.keys.failed, task_id))


def count(core: Core, kind: str) -> int:
    """Return how many of a kind there are. Raises ``RedisError``."""
    return int(core.redis.zcard(order_of(core.keys, kind)))


# Running again


def send_again(core: Core, failed: FailedTask, *, unsigned: bool = False) -> tuple[str, str] | None:
    """Send its task once more. Returns id and name of what was sent, None if it was gone already.

    One that failed gets a new id, others keep theirs. ``unsigned``: sign one that was refused, too.
    Raises ``RedisError``, ``UnknownTask``, and ``BackgroundError`` for a message that no worker
    could read, or that may not be sent.
    """
    if failed.kind == REFUSED and not unsigned:
        raise BackgroundError(
            f"{failed.id} has no valid signature: somebody else may have written it. Read it: "
            f"flask celery dead show {failed.id}. To run it all the same: "
            f"flask celery dead requeue --unsigned {failed.id}"
        )
    if failed.kind != FAILED:
        return (failed.id, failed.name) if _requeue(core, failed) else None
    if failed.again is None or not drop(core, failed):
        return None
    text = core.seal.open(failed.again) if core.seal else None
    try:
        if text is None:
            raise BackgroundError(f"What is kept of {failed.id} is not of this application.")
        message = loads(text)
        task = core.tasks.get(message.pop("name"))
        if task is None:
            raise UnknownTask(f"There is no task {failed.name!r} in this version.")
        return str(task.apply_async(**message).id), failed.name
    except Exception:
        with contextlib.suppress(RedisError):
            keep(core, failed, failed.to_json())
        raise


def _requeue(core: Core, failed: FailedTask) -> bool:
    """Put the message back into its list, as if it were new."""
    try:
        payload = loads(failed.message)
        for part in (payload["headers"], payload["properties"]["delivery_info"]):
            part.pop("redelivered", None)
        task_id = payload["headers"]["id"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackgroundError(
            f"The dead letter {failed.id} is no task that could be sent: {failed.reason}"
        ) from error
    if failed.kind == REFUSED and core.seal:
        core.seal.sign(payload)
    key = core.backend.get_key_for_task(task_id)
    core.redis.set(key, pending(task_id, failed.name), ex=ISSUED_TTL)
    return drop(core, failed, str(dumps(payload)))


def drop(core: Core, failed: FailedTask, message: str = "") -> bool:
    """Take one out, and send ``message`` at once; False if it was gone. Raises ``RedisError``."""
    keys, order = core.keys, order_of(core.keys, failed.kind)
    names = [keys.failed, order, keys.deliveries(failed.id), failed.list]
    return bool(scripts.call(core.redis, "release", names, failed.id, message))
