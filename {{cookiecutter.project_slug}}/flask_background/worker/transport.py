"""How messages travel between Redis and the workers: at each moment Redis knows where one is.

Kombu's own transport for Redis loses or doubles messages on a bad day, in three ways that settings
cannot mend. This one changes just that; queues, priorities and publishers stay as they are.

- Kombu takes a message off its list and then notes, with a second command, that a worker has it.
  Whoever dies in between, or is cut off, loses it. Here one script does both.
- A message that its worker does not acknowledge comes back after the visibility timeout: for a
  dead worker's tasks that must be short, for long tasks and those that wait for their time it must
  be long. Here it is a lease: short, and renewed by the worker as long as it holds the message.
- Each worker's own clock writes and judges these times. Here it is the clock of Redis.

The channel is in one of three states: it asked for a message (the script ``take``), it waits for a
call to wake because there was none (``BRPOP``), or it is silent for a moment because Redis refused.
https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#caveats
"""

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .. import celery_internals
from ..base import scripts
from ..base.errors import BrokerUnavailable, NotCopied, NotWritable
from ..base.redis_urls import sentinel_parameters
from ..base.signing import Seal, without_callbacks
from ..core import Core, core_of
from ..state import failed
from . import giving_up
from .leases import QoS

logger = logging.getLogger(__name__)

#: After a queue's name: the list that wakes workers which wait for that queue.
_WAKE = ".wake"
#: How many calls to wake are kept for workers that are just about to wait.
_WAKES_KEPT = 32
#: Answers to control commands go to queues with this exchange, and for so many seconds: whoever
#: asked may be gone.
_ANSWERS, _ANSWERS_KEPT = "reply.", 60
#: How the name of the exchange for commands to the workers ends.
_COMMANDS = ".pidbox"
_UNSIGNED = "It carries no valid signature: it was not sent by this application (SECRET_KEY)."
#: Seconds before Redis is asked again after it refused, because its disk is full for example.
_REFUSED_PAUSE = 1.0
#: Milliseconds for which a replica may take to confirm a message, where there are replicas.
_COPIED_WITHIN = 300
#: Seconds for which Redis may take to confirm a subscription; then the connection is made anew.
CONFIRMED_WITHIN = 5.0


class Channel(celery_internals.Channel):
    """Takes messages with one script, and wakes those who wait for one."""

    QoS = QoS
    #: The tag of the message that was taken last.
    taken = ""
    parameters_of = staticmethod(sentinel_parameters)
    _acknowledges = True
    _waits = False
    _tag = ""
    _silent_until = 0.0

    # Publishing

    def publish(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Sign a message, put it into its list, and wake a worker that waits."""
        if self._seal and not self.expires(queue):
            self._seal.sign(message)
        if kwargs.get("_publish_batch") or self.expires(queue):
            # Rare: batches, and queues for answers. Nobody waits for their call to wake.
            super().publish(queue, message, **kwargs)
            return
        key, wake = self._key(self.list_for(queue, message)), self._key(queue + _WAKE)
        text, copied = dumps(message), False
        with self._client().pipeline(transaction=False) as pipe:
            pipe.lpush(key, text)
            if str(message["properties"]["delivery_info"]["exchange"]).startswith(_ANSWERS):
                pipe.expire(key, _ANSWERS_KEPT)
            else:
                pipe.lpush(wake, 1)
                pipe.ltrim(wake, 0, _WAKES_KEPT - 1)
                if copied := "primary" in self.pool.connection_kwargs:
                    pipe.wait(1, _COPIED_WITHIN)
            try:
                answers = pipe.execute()
            except RedisTimeoutError as error:
                if self.core.patient:
                    raise
                # Kombu would try again and again, and whoever waits for it is a request.
                raise BrokerUnavailable(str(error)) from error
        if copied and not answers[-1]:
            with suppress(RedisError):  # if a worker has taken it meanwhile, it runs
                self._client().lrem(key, 1, text)
            raise NotCopied("No replica of Redis has confirmed it in time.")

    def before_broadcast(self, exchange: str, message: dict[str, Any]) -> None:
        """Sign a command to the workers."""
        if self._seal and exchange.endswith(_COMMANDS):
            self._seal.sign_command(message)

    def hears(self, exchange: str, message: dict[str, Any]) -> bool:
        """Drop a command that is not signed, or came before."""
        if not exchange.endswith(_COMMANDS) or not self._seal:
            return True
        try:
            heard = self._seal.is_fresh_command(message)
        except Exception:  # whatever somebody published
            heard = False
        if not heard:
            logger.error("A command to the workers was dropped: it has no valid signature.")
            failed.count_refused(self.core)
        return heard

    @property
    def core(self) -> Core:
        """The application's Celery."""
        core = core_of(self.global_keyprefix)
        assert core is not None  # noqa: S101  (its application made this channel)
        return core

    @property
    def _seal(self) -> Seal | None:
        core = core_of(self.global_keyprefix)
        return core.seal if core else None

    # Taking

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Begin to take from a queue. Answers to control commands need no acknowledgement.

        What is sent to all, as these commands are, is lost before Redis has confirmed that this
        channel listens. Kombu sends the subscription later, from its event loop, and does not wait.
        """
        self._acknowledges = not no_ack
        tag = super().basic_consume(queue, no_ack, *args, **kwargs)
        if queue in self.active_fanout_queues and not self.listen(CONFIRMED_WITHIN):
            logger.warning("Redis does not confirm that this process hears commands.")
            raise RedisConnectionError("The subscription to commands is not confirmed.")
        return tag

    def ask(self, timeout: float | None = None) -> None:
        """Ask for a message, or, when there was none, wait for the call to wake."""
        if not self._acknowledges:
            super().ask(timeout)
            return
        queues = self.next_queues()
        if not queues or time.monotonic() < self._silent_until:
            return
        wakes = [self._key(queue + _WAKE) for queue in queues]
        if self._waits:
            seconds = self.brpop_timeout if timeout is None else timeout
            self.send("BRPOP", *wakes, seconds or 0)
            return
        self._tag = uuid()
        lists = [
            (self._key(self.list_of(queue, step)), dumps(queue))
            for step in self.priority_steps
            for queue in queues
        ]
        keys = [self._key(self.unacked_key), self._key(self.unacked_index_key)]
        keys += [key for key, _ in lists] + wakes
        values = [self._tag, len(lists), *(name for _, name in lists)]
        self.send(*scripts.evalsha("take", keys, values))

    def read(self, **options: Any) -> bool:
        """Read the answer to what `ask` sent. Raises ``Empty`` if it holds no message."""
        if not self._acknowledges:
            return super().read(**options)
        waited, self._waits = self._waits, False
        try:
            answer = self.receive()
        except NoScriptError:
            self._client().script_load(scripts.TEXT)
            raise Empty from None
        except (NotWritable, ResponseError) as error:
            logger.error("Redis refuses to hand out tasks: %s", error)
            self._silent_until = time.monotonic() + _REFUSED_PAUSE
            raise Empty from None
        if waited:
            raise Empty
        if answer is None:
            self._waits = True
            raise Empty
        key, item = answer
        self._receive_taken(key.decode(), item)
        return True

    def _receive_taken(self, key: str, item: bytes) -> None:
        queue = key[len(self.global_keyprefix) :].rsplit(self.sep, 1)[0]
        self.had_its_turn(queue)
        if time.monotonic() - self.sent_at > self.visibility_timeout / 2:
            # This process stood still. Whether the message is still ours is not known here; if
            # it is, it comes back when its lease ends.
            logger.warning("A task that was taken too long ago is left to others.")
            return
        try:
            payload = loads(item)
            properties = payload["properties"]
            properties["delivery_tag"] = self._tag
            for part in (payload["headers"], properties["delivery_info"]):
                part.items()  # each is a JSON object, or this fails
            self.Message(payload, channel=self)
            trusted = self._trusts(payload)
        except Exception as error:  # whatever somebody wrote into the list
            self._bury(self._tag, key, item, error)
            return
        if not trusted:
            giving_up.refuse(self.core, self._tag, key, _text(item), _UNSIGNED)
            return
        self.taken = self._tag
        self.deliver(payload, queue)

    def _trusts(self, payload: dict[str, Any]) -> bool:
        """Whether a message is signed, or may come without. Raises for what cannot be read."""
        if self._seal is None or self._seal.is_signed(payload):
            return True
        options = self.core.options
        if payload["headers"].get("task") in options.unsigned_tasks:
            return without_callbacks(payload)
        return options.accept_unsigned

    def _bury(self, tag: str, key: str, item: bytes, error: Exception) -> None:
        giving_up.refuse(self.core, tag, key, _text(item), f"It is no message: {error!r}")

    # Putting back

    def put_back(
        self, tag: str, *, command: str = "RPUSH", lease: float = 0, failed_before: bool = True
    ) -> bool:
        """Put a message that is not acknowledged back into its queue. Returns whether it was there.

        ``lease``: only if it was not renewed for so many seconds. ``failed_before``: mark it as one
        whose delivery was tried before.
        """
        with self.conn_or_acquire() as client:
            record = client.hget(self.unacked_key, tag)
        keys = [self.unacked_key, self.unacked_index_key]
        if record is None:
            self.script("put_back", [*keys, ""], tag, "", "", 0)
            return False
        try:
            payload, exchange, routing_key = loads(record)
            if failed_before:
                payload["headers"]["redelivered"] = True
                payload["properties"]["delivery_info"]["redelivered"] = True
            (queue,) = self.queues_of(exchange, routing_key)
            key = self.list_for(queue, payload)
        except Exception as error:  # whatever somebody wrote into the list
            self._bury(tag, "", record, error)
            return False
        return bool(self.script("put_back", [*keys, key], tag, dumps(payload), command, lease))

    def restore(self, message: Any, leftmost: bool = False) -> None:
        """Put a message back whose delivery failed; ``leftmost`` behind all others."""
        self.put_back(message.delivery_tag, command="LPUSH" if leftmost else "RPUSH")

    def script(self, command: str, keys: Iterable[str], *values: Any) -> Any:
        """Run a command of ``redis.lua``. Raises ``RedisError``."""
        return scripts.call(self._client(), command, map(self._key, keys), *values)

    def _client(self) -> Redis:
        # Not the channel's own: it prefixes the keys of some commands, and forgets others.
        return Redis(connection_pool=self.pool)

    def _key(self, name: str) -> str:
        return f"{self.global_keyprefix}{name}"


def _text(item: bytes) -> str:
    return item.decode("utf-8", "backslashreplace")


class Transport(kombu_redis.Transport):
    """Redis, without the gaps; what ``redis://`` means to Kombu, see base/settings.py."""

    Channel = Channel
