"""How messages travel between Redis and the workers: at each moment Redis knows where one is.

Kombu's own transport for Redis loses or doubles messages on a bad day, in three ways that settings
cannot mend. This one changes just that; queues, priorities and publishers stay as they are.

- Kombu takes a message off its list and then notes, with a second command, that a worker has it.
  Whoever dies in between, or is cut off, loses it. Here one script does both.
- A message that its worker does not acknowledge comes back after the visibility timeout: for a
  dead worker's tasks that must be short, for long tasks and those that wait for their time it must
  be long. Here it is a lease: short, and renewed by the worker as long as it holds the message.
- Each worker's own clock writes and judges these times. Here it is the clock of Redis.

https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#caveats
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from ..state import failed as dead_letters

logger = logging.getLogger(__name__)

#: After a queue's name: the list that wakes workers which wait for that queue.
_WAKE = ".wake"
#: How many calls to wake are kept for workers that are just about to wait.
_WAKES_KEPT = 32
#: Answers to control commands go to queues with this exchange, and for so many seconds: whoever
#: asked may be gone.
_ANSWERS, _ANSWERS_KEPT = "reply.", 60
#: Seconds before Redis is asked again after it refused, because its disk is full for example.
_REFUSED_PAUSE = 1.0
#: How many messages of lost workers are put back in one go.
_AT_ONCE = 200

# Scripts run as a whole or not at all. A script may write into a Redis whose memory is full if its
# first write does not need memory; so each one begins with such a command.
# https://redis.io/docs/latest/develop/programmability/lua-api/#script_flags

# KEYS: unacked, index, then the lists in order, then the wake lists. ARGV: tag, number of lists.
# The value is what Kombu stores: message, exchange (here the default one), routing key.
_TAKE = """
local lists = tonumber(ARGV[2])
for i = 3, 2 + lists do
  local message = redis.call('RPOP', KEYS[i])
  if message then
    local now = redis.call('TIME')
    redis.call('HSET', KEYS[1], ARGV[1], '[' .. message .. ',"",' .. ARGV[i] .. ']')
    redis.call('ZADD', KEYS[2], now[1] .. '.' .. string.format('%06d', now[2]), ARGV[1])
    return {KEYS[i], message}
  end
end
for i = 3 + lists, #KEYS do redis.call('DEL', KEYS[i]) end
return false
"""

# KEYS: index. ARGV: tags. Returns the tags that are not ours any more.
_RENEW = """
local now = redis.call('TIME')
local lost = {}
redis.call('ZREMRANGEBYRANK', KEYS[1], 1, 0)
for _, tag in ipairs(ARGV) do
  if redis.call('ZSCORE', KEYS[1], tag) then
    redis.call('ZADD', KEYS[1], now[1] .. '.' .. string.format('%06d', now[2]), tag)
  else
    lost[#lost + 1] = tag
  end
end
return lost
"""

# KEYS: index. ARGV: lease, limit.
_EXPIRED = """
local now = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] - ARGV[1], 'LIMIT', 0, ARGV[2])
"""

# KEYS: unacked, index, list. ARGV: tag, message, LPUSH or RPUSH, lease (0: whatever its age).
_PUT_BACK = """
local lease = tonumber(ARGV[4])
if lease > 0 then
  local since = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if since and tonumber(since) > redis.call('TIME')[1] - lease then return 0 end
end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call(ARGV[3], KEYS[3], ARGV[2])
return 1
"""


class QoS(kombu_redis.QoS):
    """What a channel has taken and not acknowledged; ``lost`` are tags whose lease ran out."""

    channel: Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lost: set[str] = set()
        self._sweep_at = 0.0

    @property
    def held(self) -> list[str]:
        """The tags of the messages that are in this process's hands."""
        delivered: Any = self._delivered
        dirty: Any = self._dirty
        return [tag for tag in list(delivered) if tag not in dirty]

    def append(self, message: Any, delivery_tag: str) -> None:
        """Remember a message; in Redis it is noted since it was taken."""
        if delivery_tag == self.channel.taken:
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Drop a message that is done. If Redis refuses, it comes back, and the worker lives on."""
        try:
            super().ack(delivery_tag)
        except ResponseError as error:
            logger.error("A task that has ended will be done again: %s", error)
            self.forget(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a message back at once, or drop it; if Redis refuses, it comes back later."""
        try:
            super().reject(delivery_tag, requeue)
        except ResponseError as error:
            logger.error("A task comes back only when its lease ends: %s", error)
            self.forget(delivery_tag)

    def renew(self) -> None:
        """Extend the leases of what this channel holds. Raises ``RedisError``."""
        if held := self.held:
            lost = self.channel.script(_RENEW, [self.unacked_index_key], held)
            # One that was acknowledged meanwhile is not lost.
            news = {tag.decode() for tag in lost}.intersection(self.held) - self.lost
            if news:
                logger.warning("%d tasks were given to other workers meanwhile.", len(news))
            self.lost = (self.lost | news).intersection(self.held)

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Put back what workers hold that have not renewed their leases."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + self.channel.unacked_restore_interval / 2
        lease = self.visibility_timeout
        tags = self.channel.script(_EXPIRED, [self.unacked_index_key], [lease, _AT_ONCE])
        restored = sum(self.channel.put_back(tag.decode(), lease=lease) for tag in tags)
        if restored:
            logger.warning("%d tasks of lost workers go back into their queues.", restored)
        if len(tags) == _AT_ONCE:
            self._sweep_at = 0.0

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back whose delivery failed; ``leftmost`` behind all others."""
        self.channel.put_back(tag, command="LPUSH" if leftmost else "RPUSH")

    def restore_unacked(self, client: Any = None) -> None:
        """Put everything back because this worker stops; that is no failed delivery."""
        try:
            for tag in self.held:
                self.channel.put_back(tag, failed=False)
        except RedisError as error:
            logger.warning("Tasks at work come back when their leases end: %s", error)
        delivered: Any = self._delivered
        delivered.clear()

    def forget(self, tag: str) -> None:
        """Let a message go without a word to Redis: it comes back when its lease ends."""
        virtual.QoS.ack(self, tag)


class Channel(kombu_redis.Channel):
    """Takes messages with one script, and wakes those who wait for one."""

    # What the types of Kombu do not tell.
    connection_errors: tuple[type[Exception], ...]
    unacked_restore_interval: float
    _expires: Any
    _flush_brpop_reauth: Any
    _q_for_pri: Any
    _queue_cycle: Any

    QoS = QoS
    #: The tag of the message that was taken last.
    taken = ""
    _acknowledges = True
    _waits = False
    _silent_until = 0.0

    # Publishing

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if kwargs.get("_publish_batch") or queue in (self._expires or ()):
            # Rare: batches, and queues for answers. Nobody waits for their call to wake.
            super()._put(queue, message, **kwargs)
            return
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            pipe.lpush(key, dumps(message))
            if str(message["properties"]["delivery_info"]["exchange"]).startswith(_ANSWERS):
                pipe.expire(key, _ANSWERS_KEPT)
            else:
                pipe.lpush(queue + _WAKE, 1)
                pipe.ltrim(queue + _WAKE, 0, _WAKES_KEPT - 1)
            pipe.execute()

    # Taking

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Begin to take from a queue. Answers to control commands need no acknowledgement."""
        self._acknowledges = not no_ack
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for a message, or, when there was none, wait for the call to wake."""
        if not self._acknowledges:
            super()._brpop_start(timeout)  # type: ignore[misc]
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues or time.monotonic() < self._silent_until:
            return
        wakes = [queue + _WAKE for queue in queues]
        if self._waits:
            seconds = self.brpop_timeout if timeout is None else timeout
            command = ["BRPOP", *map(self._key, wakes), seconds or 0]
        else:
            self._next_tag = uuid()
            pairs = [
                (self._q_for_pri(queue, step), queue)
                for step in self.priority_steps
                for queue in queues
            ]
            keys = [self.unacked_key, self.unacked_index_key, *(key for key, _ in pairs), *wakes]
            names = [dumps(queue) for _, queue in pairs]
            command = ["EVAL", _TAKE, len(keys), *map(self._key, keys)]
            command += [self._next_tag, len(pairs), *names]
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the answer to what `_brpop_start` sent. Raises ``Empty`` if it holds no message."""
        if not self._acknowledges:
            return bool(super()._brpop_read(**options))  # type: ignore[misc]
        waited, self._waits = self._waits, False
        try:
            # Read as it came: the client's own callbacks are for its own commands.
            answer = self.client.connection.read_response()
        except ResponseError as error:
            logger.error("Redis refuses to hand out tasks: %s", error)
            self._silent_until = time.monotonic() + _REFUSED_PAUSE
            raise Empty from None
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if waited:
            raise Empty
        if answer is None:
            self._waits = True
            raise Empty
        key, item = answer
        self._receive_taken(key.decode()[len(self.global_keyprefix) :], item)
        return True

    def _receive_taken(self, key: str, item: bytes) -> None:
        queue = key.rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        tag = self._next_tag
        if time.monotonic() - (self._brpop_sent_at or 0) > self.visibility_timeout / 2:
            # This process stood still. Whether the message is still ours is not known here; if
            # it is, it comes back when its lease ends.
            logger.warning("A task that was taken too long ago is left to others.")
            return
        try:
            payload = loads(item)
            properties = payload["properties"]
            properties["delivery_tag"] = tag
            for part in (payload["headers"], properties["delivery_info"]):
                part.items()  # each is a JSON object, or this fails
            self.Message(payload, channel=self)
        except Exception as error:  # whatever somebody wrote into the list
            dead_letters.bury(self, tag, key, item, f"It is no message: {error!r}")
            return
        self.taken = tag
        self.connection._deliver(payload, queue)

    # Putting back

    def put_back(
        self, tag: str, *, command: str = "RPUSH", lease: float = 0, failed: bool = True
    ) -> bool:
        """Put a message that is not acknowledged back into its queue. Returns whether it was there.

        ``lease``: only if it was not renewed for so many seconds. ``failed``: mark it as one
        whose delivery was tried before.
        """
        with self.conn_or_acquire() as client:
            record = client.hget(self.unacked_key, tag)
        if record is None:
            self.script(_PUT_BACK, [self.unacked_key, self.unacked_index_key, ""], [tag, "", "", 0])
            return False
        try:
            payload, exchange, routing_key = loads(record)
            if failed:
                payload["headers"]["redelivered"] = True
                payload["properties"]["delivery_info"]["redelivered"] = True
            (queue,) = self._lookup(exchange, routing_key)
            key = self._q_for_pri(queue, self._get_message_priority(payload, reverse=False))
        except Exception as error:  # whatever somebody wrote into the list
            dead_letters.bury(self, tag, "", record, f"It is no message: {error!r}")
            return False
        keys = [self.unacked_key, self.unacked_index_key, key]
        return bool(self.script(_PUT_BACK, keys, [tag, dumps(payload), command, lease]))

    def _restore(self, message: Any, leftmost: bool = False) -> None:
        self.put_back(message.delivery_tag, command="LPUSH" if leftmost else "RPUSH")

    def script(self, text: str, keys: Iterable[str], arguments: Iterable[Any]) -> Any:
        """Run a Lua script. Raises ``RedisError``."""
        prefixed = [self._key(key) for key in keys]
        # Not the client's own method: it would prefix the keys in its own way.
        client: Any = Redis(connection_pool=self.pool)
        return client.execute_command("EVAL", text, len(prefixed), *prefixed, *arguments)

    def _key(self, name: str) -> str:
        return f"{self.global_keyprefix}{name}"

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        # Celery 5.7.0 closes a lost connection twice; at the second time its client is gone.
        # Callers expect this error; an AttributeError would end the worker.
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("The connection to the broker is closed.")
        return super()._connparams(*args, **kwargs)  # type: ignore[misc]


class Transport(kombu_redis.Transport):
    """Redis, without the gaps; what ``redis://`` means to Kombu, see settings.py."""

    Channel = Channel
