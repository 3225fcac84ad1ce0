"""Dead letters: messages that can never be done, kept for a person instead of going in circles.

A task that ends its worker each time comes back each time. After ``CELERY_MAX_DELIVERIES`` it is
put here, and so is whatever no worker can read. ``flask celery dead`` lists them, sends them again
or drops them. Only the latest ``KEPT`` are kept.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from celery import states
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps, loads
from redis.exceptions import RedisError

from ..base import keys
from ..base.errors import BackgroundError

if TYPE_CHECKING:
    from ..app import FlaskCelery
    from ..worker.transport import Channel

logger = logging.getLogger(__name__)

#: How many dead letters are kept; beyond that the oldest is dropped.
KEPT = 1000

# KEYS: unacked, index, letters, order. ARGV: tag, id, letter, time, how many are kept.
_BURY = """
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[2])
for _, oldest in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1 - ARGV[5])) do
  redis.call('HDEL', KEYS[3], oldest)
  redis.call('ZREM', KEYS[4], oldest)
end
"""

# KEYS: letters, order, then for sending again: list, deliveries. ARGV: id, message.
_TAKE_OUT = """
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[2] ~= '' then
  redis.call('DEL', KEYS[4])
  redis.call('LPUSH', KEYS[3], ARGV[2])
end
return 1
"""


class GivenUp(BackgroundError):
    """What a task failed with that no worker survived, or none could read."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up: ``list`` is the Redis list from which it came.

    ``id`` and ``name`` are the task's as far as they could be read; ``args`` and ``kwargs`` are
    Celery's short form for people; ``at`` is in seconds since 1970; ``message`` is all of it.
    """

    id: str
    name: str
    list: str
    reason: str
    at: float
    args: str
    kwargs: str
    message: str

    @property
    def date(self) -> datetime:
        """When it was given up."""
        return datetime.fromtimestamp(self.at, UTC)


def bury(
    channel: Channel, tag: str, key: str, item: bytes | str | Mapping[str, Any], reason: str
) -> str:
    """Move a message that a worker holds as ``tag`` to the dead letters. Returns its id there.

    ``key`` is the list it came from. Raises ``RedisError``.
    """
    if isinstance(item, Mapping):
        item = dumps(item)
    text = item if isinstance(item, str) else item.decode("utf-8", "backslashreplace")
    headers = _headers(text)
    letter = DeadLetter(
        id=_short(headers.get("id")) or tag,
        name=_short(headers.get("shadow") or headers.get("task")),
        list=key,
        reason=reason[:1000],
        at=time.time(),
        args=_short(headers.get("argsrepr")),
        kwargs=_short(headers.get("kwargsrepr")),
        message=text,
    )
    names = [channel.unacked_key, channel.unacked_index_key, keys.DEAD, keys.DEAD_ORDER]
    channel.script(
        _BURY, names, [tag, letter.id, json.dumps(asdict(letter)), f"{letter.at:.6f}", KEPT]
    )
    logger.error("%s %s is a dead letter now. %s", letter.name or "A message", letter.id, reason)
    return letter.id


def give_up(app: Any, message: Any, reason: str, request: Any = None) -> None:
    """Move a message to the dead letters, and say so where its task's result is looked up.

    ``request`` is the task's, if it could be read. Raises ``RedisError``.
    """
    channel = message.channel
    queue = str(message.delivery_info.get("routing_key") or "")
    key = channel._q_for_pri(queue, channel._get_message_priority(message._raw, reverse=False))
    letter_id = bury(channel, message.delivery_tag, key, message._raw, reason)
    message.channel.qos.forget(message.delivery_tag)
    error = GivenUp(f"{reason} See: flask celery dead show {letter_id}")
    if message.headers.get("id") == letter_id and not message.headers.get("ignore_result"):
        with contextlib.suppress(OperationalError, RedisError):
            app.backend.mark_as_failure(letter_id, error, request=request)


def _headers(text: str) -> Mapping[str, Any]:
    try:
        headers = loads(text)["headers"]
    except Exception:  # whatever somebody wrote into the list
        return {}
    return headers if isinstance(headers, Mapping) else {}


def _short(value: object) -> str:
    return "" if value is None else str(value)[:300]


def count_delivery(app: FlaskCelery, task_id: str) -> int:
    """Count a delivery after the first one. Returns how many there were with it."""
    key = keys.deliveries(task_id)
    try:
        with app.redis.pipeline() as pipe:
            pipe.incr(key)
            pipe.expire(key, keys.ISSUED_TTL)
            return int(pipe.execute()[0]) + 1
    except RedisError as error:
        logger.warning("Could not count the deliveries of %s: %s", task_id, error)
        return 1


def read(app: FlaskCelery) -> list[DeadLetter]:
    """Return all dead letters, the latest first. Raises ``RedisError``."""
    letters = [_parse(text) for text in app.redis.hvals(keys.DEAD)]
    return sorted(letters, key=lambda letter: letter.at, reverse=True)


def latest(app: FlaskCelery, most: int) -> list[DeadLetter]:
    """Return the latest ones, but not their messages. Raises ``RedisError``.

    Each is read from Redis once, so this can be asked every second.
    """
    ids = cast(
        "list[tuple[str, float]]",
        app.redis.zrange(keys.DEAD_ORDER, 0, most - 1, desc=True, withscores=True),
    )
    found = (_read_one(app, letter_id, at) for letter_id, at in ids)
    return [letter for letter in found if letter]


@functools.lru_cache(maxsize=64)
def _read_one(app: FlaskCelery, letter_id: str, at: float) -> DeadLetter | None:
    # What was given up again, later, is read anew, because `at` differs.
    text = app.redis.hget(keys.DEAD, letter_id)
    return replace(_parse(text), message="") if text else None


def find(app: FlaskCelery, letter_id: str) -> DeadLetter:
    """Return one. Raises ``BackgroundError`` when there is none of that id, or ``RedisError``."""
    for letter in read(app):
        if letter.id == letter_id:
            return letter
    raise BackgroundError(f"No dead letter has the id {letter_id!r}. See: flask celery dead list")


def _parse(text: str | bytes) -> DeadLetter:
    known = {field.name for field in fields(DeadLetter)}
    return DeadLetter(**{name: value for name, value in json.loads(text).items() if name in known})


def count(app: FlaskCelery) -> int:
    """Return how many there are. Raises ``RedisError``."""
    return int(app.redis.hlen(keys.DEAD))


def requeue(app: FlaskCelery, letter: DeadLetter) -> bool:
    """Send a letter's message again, as if it were new. Returns False when it was gone already.

    Raises ``BackgroundError`` for one that no worker could read, or ``RedisError``.
    """
    try:
        payload = json.loads(letter.message)
        for part in (payload["headers"], payload["properties"]["delivery_info"]):
            part.pop("redelivered", None)
        task_id = payload["headers"]["id"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackgroundError(
            f"The dead letter {letter.id} is no task that could be sent: {letter.reason}"
        ) from error
    record = {"status": states.PENDING, "result": None, "task_id": task_id, "name": letter.name}
    key = app.backend.get_key_for_task(task_id)
    app.redis.set(key, json.dumps(record), ex=keys.ISSUED_TTL)
    return _take_out(app, letter, json.dumps(payload), letter.list, keys.deliveries(task_id))


def drop(app: FlaskCelery, letter: DeadLetter) -> bool:
    """Throw a letter away. Returns False when it was gone already. Raises ``RedisError``."""
    return _take_out(app, letter, "")


def _take_out(app: FlaskCelery, letter: DeadLetter, message: str, *names: str) -> bool:
    all_names = [keys.DEAD, keys.DEAD_ORDER, *names]
    done: Any = app.redis.eval(_TAKE_OUT, len(all_names), *all_names, letter.id, message)
    return bool(done)
