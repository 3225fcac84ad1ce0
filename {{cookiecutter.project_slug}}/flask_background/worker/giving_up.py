"""When a worker gives a message up: it becomes a dead letter, see state/failed.py."""

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from celery import states
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps, loads
from redis.exceptions import RedisError

from .. import celery_internals
from ..base.errors import GivenUp
from ..base.records import read
from ..core import Core
from ..state.failed import GIVEN_UP, REFUSED, FailedTask, count_refused, keep

logger = logging.getLogger(__name__)


def bury(
    core: Core, tag: str, key: str, text: str, reason: str, kind: str = GIVEN_UP, task_id: str = ""
) -> FailedTask:
    """Give up a message that a worker holds as ``tag``; ``key`` is the list it came from.

    ``task_id``: what it is kept under, if its own word can be trusted. Raises ``RedisError``.
    """
    headers = _headers(text)
    letter = FailedTask(
        id=task_id or tag,
        name=_short(headers.get("shadow") or headers.get("task")),
        reason=reason[:1000],
        at=time.time(),
        kind=kind,
        args=_short(headers.get("argsrepr")),
        kwargs=_short(headers.get("kwargsrepr")),
        list=key,
        message=text,
    )
    keep(core, letter, letter.to_json(), tag)
    logger.error("%s %s is a dead letter now. %s", letter.name or "A message", letter.id, reason)
    return letter


def refuse(core: Core, tag: str, key: str, text: str, reason: str) -> None:
    """Give up a message that this application cannot have sent. Raises ``RedisError``."""
    bury(core, tag, key, text, reason, kind=REFUSED)
    # When it was taken, Redis took its word that it is a task, which would seem to run now.
    record = core.keys.record(_short(_headers(text).get("id")))
    if (read(core.redis.get(record) or "") or {}).get("status") == states.STARTED:
        core.redis.delete(record)
    count_refused(core)


def give_up(core: Core, message: Any, reason: str, request: Any = None) -> None:
    """Give up a message, and say so where its task's result is looked up.

    ``request`` is the task's, if it could be read. Raises ``RedisError``.
    """
    channel, content = message.channel, celery_internals.raw(message)
    key = channel.list_for(str(message.delivery_info.get("routing_key") or ""), content)
    task_id = _short(message.headers.get("id"))
    text, key = str(dumps(content)), core.keys.prefix + key
    letter = bury(core, message.delivery_tag, key, text, reason, task_id=task_id)
    channel.qos.forget(message.delivery_tag)
    error = GivenUp(f"{reason} See: flask celery dead show {letter.id}")
    if message.headers.get("id") == letter.id and not message.headers.get("ignore_result"):
        with contextlib.suppress(OperationalError, RedisError):
            core.backend.mark_as_failure(letter.id, error, request=request)


def _headers(text: str) -> Mapping[str, Any]:
    try:
        headers = loads(text)["headers"]
    except Exception:  # whatever somebody wrote into the list
        return {}
    return headers if isinstance(headers, Mapping) else {}


def _short(value: object) -> str:
    return "" if value is None else str(value)[:300]
