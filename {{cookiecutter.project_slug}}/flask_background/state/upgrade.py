"""What a version before 0.2 left in Redis is taken over; this file goes with version 0.3.

Its keys had no prefix, so applications that shared a Redis also shared those. Only what belongs to
this application is taken: tasks that it has, and functions of its packages. The old version may
still run beside this one and send to the old keys, so workers look again and again.
"""

import contextlib
import logging
from typing import Any

from kombu.utils.json import loads
from redis.exceptions import ResponseError

from ..base import scripts
from ..base.keys import Keys
from ..core import SUBMITTED, Core

logger = logging.getLogger(__name__)

_OLD = Keys("")
_OLD_DEAD = "background:dead"
_AT_ONCE = 200


def take_over(core: Core, lease: float) -> None:
    """Move waiting tasks, tasks whose worker is lost, and dead letters. Raises ``RedisError``.

    ``lease``: seconds after which a worker that says nothing is lost.
    """
    if not core.keys.prefix:
        return
    client: Any = core.redis
    lists = core.queue_lists()
    with client.pipeline(transaction=False) as pipe:
        for name in lists:
            pipe.lrange(name, -_AT_ONCE, -1)
        pipe.hvals(_OLD_DEAD)
        *waiting, letters = pipe.execute()
    tags = scripts.call(client, "expired", [_OLD.unacked_index], lease, _AT_ONCE)
    held = client.hmget(_OLD.unacked, tags) if tags else []
    found = [
        *((name, text, text) for name, texts in zip(lists, waiting, strict=True) for text in texts),
        *((None, tag, text) for tag, text in zip(tags, held, strict=True)),
        *((_OLD_DEAD, loads(text)["id"], loads(text)["message"]) for text in letters),
    ]
    moved = sum(_move(core, lists, *one) for one in found)
    if moved:
        logger.warning("%d tasks of the version before were taken over.", moved)


def _move(core: Core, lists: dict[str, str], place: str | None, item: str, text: str) -> bool:
    """Move one and its task's record, unless it is another application's or gone already."""
    task_id = _own_task(core, text)
    if task_id is None:
        return False
    new, client = core.keys, core.redis
    record = core.backend.get_key_for_task(task_id)
    records = [record[len(new.prefix) :], record]
    if place in lists:
        names = [place, f"{new.prefix}{place}", f"{new.prefix}{lists[place]}.wake", *records]
        return bool(scripts.call(client, "adopt", names, item))
    if place is None:
        names = [_OLD.unacked, _OLD.unacked_index, new.unacked, new.unacked_index, *records]
        return bool(scripts.call(client, "adopt_held", names, item))
    names = [_OLD_DEAD, _OLD.dead, new.failed, new.dead, *records]
    return bool(scripts.call(client, "adopt_held", names, item))


def _own_task(core: Core, text: str) -> str | None:
    """Return the id of a message's task if it is one of this application."""
    try:
        message = loads(text)
        headers = (message[0] if isinstance(message, list) else message)["headers"]
        name, shadow = headers["task"], str(headers.get("shadow"))
        task_id = str(headers["id"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if name == SUBMITTED:
        return (
            task_id
            if shadow.startswith(tuple(f"{one}." for one in core.options.submit_packages))
            else None
        )
    return task_id if name in core.tasks and not name.startswith("celery.") else None


def copy_runs(core: Core, client: Any) -> None:
    """Go on with the schedule where the version before stopped. Raises ``RedisError``."""
    names = list(core.conf.beat_schedule)
    if not core.keys.prefix or not names:
        return
    with contextlib.suppress(ResponseError):  # somebody else's key, of another type
        for name, run in zip(names, client.hmget(_OLD.scheduler_runs, names), strict=True):
            if run:
                client.hsetnx(core.keys.scheduler_runs, name, run)


def old_scheduler_leads(client: Any) -> bool:
    """Whether a scheduler of the version before holds its lease. Raises ``RedisError``."""
    return bool(client.exists(_OLD.scheduler_lease))
