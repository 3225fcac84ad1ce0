"""How messages travel between Redis and the workers: at each moment Redis knows where one is.

Kombu's own transport for Redis loses or doubles messages on a bad day, in three ways that settings
cannot mend. This one changes just that; queues, priorities and publishers stay as they are.

- Kombu takes a message off its list and then notes, with a second command, that a worker has it.
  Whoever dies in between, or is cut off, loses it. Here one script does both.
- A message that its worker does not acknowledge comes back after the visibility timeout: for a
  dead worker's tasks that must be short, for long tasks and those that wait for their time it must
  be long. Here it is a lease: short, and renewed by the worker as long as it holds the message.
- Each worker's own clock writes and judges these times. Here it is the clock of Redis.
- A message for later is held by a worker. Here it waits in Redis, and goes to who is free then.

Sending a task takes one trip to Redis (the script ``send``, which also makes it known), taking and
beginning one another (``take``); how its end is told with a third stands in state/activity.py.

The channel is in one of three states: it asked for a message (the script ``take``), it waits for a
call to wake because there was none (``BRPOP``), or it is silent for a moment because Redis refused.
https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#caveats
"""

import logging
import os
import time
from queue import Empty
from typing import Any, NamedTuple

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from ..base import scripts
from ..base.errors import NotWritable
from ..base.keys import ISSUED_TTL
from ..base.signing import without_callbacks
from . import giving_up
from .leases import QoS
from .publishing import PublishingChannel

logger = logging.getLogger(__name__)

_UNSIGNED = "It carries no valid signature: it was not sent by this application (SECRET_KEY)."
#: Seconds before Redis is asked again after it refused, because its disk is full for example.
_REFUSED_PAUSE = 1.0
#: Seconds for which Redis may take to confirm a subscription; then the connection is made anew.
CONFIRMED_WITHIN = 5.0


class Taken(NamedTuple):
    """What taking a message has told: its tag, and how its task stands."""

    tag: str
    state: bytes
    deliveries: int


class Channel(PublishingChannel):
    """Takes messages with one script, and wakes those who wait for one."""

    QoS = QoS
    #: The message that was taken last.
    taken = Taken("", b"", 1)
    _acknowledges = True
    _waits = False
    _tag = ""
    _silent_until = 0.0

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
        keys = self.keys
        if self._waits:
            seconds = self.brpop_timeout if timeout is None else timeout
            self.send("BRPOP", *map(keys.wake, queues), seconds or 0)
            return
        self._tag = uuid()
        names = [keys.unacked, keys.unacked_index]
        names += [name for queue in queues for name in (keys.delayed(queue), keys.wake(queue))]
        for step in self.priority_steps:
            names += [self._key(self.list_of(queue, step)) for queue in queues]
        life = ISSUED_TTL if self.core.conf.task_track_started else 0
        values = [self._tag, self.core.node_name, os.getpid(), life, keys.prefix, *queues]
        self.send(*scripts.evalsha("take", names, values))

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
        key, item, state, deliveries = answer
        self._receive_taken(key.decode(), item, Taken(self._tag, state, deliveries))
        return True

    def _receive_taken(self, key: str, item: bytes, taken: Taken) -> None:
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
            properties["delivery_tag"] = taken.tag
            for part in (payload["headers"], properties["delivery_info"]):
                part.items()  # each is a JSON object, or this fails
            self.Message(payload, channel=self)
            trusted = self._trusts(payload)
        except Exception as error:  # whatever somebody wrote into the list
            self._bury(taken.tag, key, item, error)
            return
        if not trusted:
            giving_up.refuse(self.core, taken.tag, key, _text(item), _UNSIGNED)
        elif taken.state == b"early":
            self.put_back(taken.tag, failed_before=False)
        else:
            self.taken = taken
            self.deliver(payload, queue)

    def _trusts(self, payload: dict[str, Any]) -> bool:
        """Whether a message is signed, or may come without. Raises for what cannot be read."""
        if self.seal is None or self.seal.is_signed(payload):
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

        One whose time has not come is kept for later. ``lease``: only if it was not renewed for so
        many seconds. ``failed_before``: mark it as one whose delivery was tried before.
        """
        with self.conn_or_acquire() as client:
            record = client.hget(self.unacked_key, tag)
        if record is None:
            self._client().zrem(self.keys.unacked_index, tag)
            return False
        try:
            (payload, exchange, routing_key), delay = loads(record), 0.0
            if failed_before:
                payload["headers"]["redelivered"] = True
                payload["properties"]["delivery_info"]["redelivered"] = True
            elif not payload["properties"]["delivery_info"].get("due"):
                delay = self.delay_of(payload)
            (queue,) = self.queues_of(exchange, routing_key)
            places = self.places(queue, self._key(self.list_for(queue, payload)))
            text = dumps(payload)
        except Exception as error:  # whatever somebody wrote into the list
            self._bury(tag, "", record, error)
            return False
        task_id = str(payload["headers"].get("id"))
        names = self.keys
        keys = [*places, names.unacked, names.unacked_index, names.record(task_id)]
        values = [tag, text, command, delay, lease]
        return bool(scripts.call(self._client(), "put_back", keys, *values))


def _text(item: bytes) -> str:
    return item.decode("utf-8", "backslashreplace")


class Transport(kombu_redis.Transport):
    """Redis, without the gaps; what ``redis://`` means to Kombu, see base/settings.py."""

    Channel = Channel
