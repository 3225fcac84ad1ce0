"""Every private name of Celery and Kombu that the engine touches, under names of ours.

An upgrade of them is this one file to read. :func:`missing` says which of the names the installed
versions lack; a test calls it.
"""

import heapq
import inspect
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from celery import Celery
from kombu.asynchronous.timer import Timer
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import ConnectionError as RedisConnectionError

#: The private names, by the module and class that they belong to.
NAMES = {
    "celery.app.base:Celery": "_backend_cache _local _pool _tasks",
    "celery.app.task:Task": "_exec_options",
    "celery.backends.redis:RedisBackend": "_get_pool _get_result_meta _store_result",
    "kombu.asynchronous.timer:Timer": "_queue",
    "kombu.transport.virtual.base:Channel": "_lookup _get_message_priority",
    "kombu.transport.virtual.base:Message": "_raw",
    "kombu.transport.virtual.base:QoS": "_delivered _dirty",
    "kombu.transport.virtual.base:Transport": "_deliver",
    "kombu.transport.redis:Channel": "_brpop_read _brpop_sent_at _brpop_start _connparams _delete "
    "_deliver_fanout_message _expires _flush_brpop_reauth _get_publish_topic _handle_message "
    "_in_listen _in_poll _purge _put _put_fanout _q_for_pri _queue_cycle _receive",
    "kombu.transport.redis:MultiChannelPoller": "_register_LISTEN",
}


def missing() -> list[str]:
    """Name what the installed versions lack: no attribute, and no word of the class's source."""
    lacking = []
    for place, names in NAMES.items():
        module, _, class_name = place.partition(":")
        owner = getattr(import_module(module), class_name)
        known = "".join(map(inspect.getsource, owner.__mro__[:-1]))
        lacking += [f"{place}.{name}" for name in names.split() if name not in known]
    return lacking


# The application


def bind_tasks(celery: Celery) -> None:
    """Let the tasks that are registered so far follow the settings, without looking for more."""
    registered: Any = celery
    for task in list(registered._tasks.values()):
        task._exec_options = None  # where each keeps its limits, queue and so on for messages
        task.bind(celery)


def drop_connections(celery: Celery) -> None:
    """Have Celery connect anew: after a fork, or with other settings."""
    owner: Any = celery
    owner._pool = None
    owner._backend_cache = None
    owner._local = threading.local()  # where Celery keeps the backend of each thread
    owner.__dict__.pop("amqp", None)


# The worker's event loop and its pool


def drop_cancelled_timers(timer: Any) -> None:
    """Drop the entries of the event loop's timer that were cancelled.

    Kombu keeps each until its time comes. The time limit of every task is such an entry, so a busy
    worker would hold those of the last minutes: half a megabyte for a thousand tasks.
    """
    queue: Any = timer._queue if isinstance(timer, Timer) else None
    if isinstance(queue, list):  # that of gevent is a set, and has none of them
        queue[:] = [event for event in queue if not event.entry.canceled]
        heapq.heapify(queue)


# Messages


def raw(message: Any) -> dict[str, Any]:
    """Return a message as it stands in Redis."""
    content: dict[str, Any] = message._raw
    return content


class QoS(kombu_redis.QoS):
    """What a channel has taken and not acknowledged."""

    _delivered: Any
    _dirty: Any

    @property
    def held(self) -> dict[str, Any]:
        """The messages in this process's hands, by tag."""
        delivered, dirty = list(self._delivered.items()), self._dirty
        return {tag: message for tag, message in delivered if tag not in dirty}

    def hold(self, message: Any, tag: str) -> None:
        """Remember a message here and not in Redis."""
        virtual.QoS.append(self, message, tag)

    def forget(self, tag: str) -> None:
        """Let a message go without a word to Redis: it comes back when its lease ends."""
        virtual.QoS.ack(self, tag)

    def forget_all(self) -> None:
        """Let all go."""
        self._delivered.clear()


class Channel(kombu_redis.Channel):
    """Kombu's channel. Its hooks call ``publish``, ``ask`` and ``read`` of ours.

    ``parameters_of`` returns what connections need to a URL that Kombu does not read;
    ``count_and_drop_delayed`` drops what a queue has besides its lists. A message to all who listen
    at an exchange is shown to ``before_broadcast``, and taken if it is one that this ``hears``.
    """

    parameters_of: Callable[[str], dict[str, Any]]
    count_and_drop_delayed: Callable[[str], int]
    before_broadcast: Callable[[str, dict[str, Any]], None]
    hears: Callable[[str, dict[str, Any]], bool]

    # What the types of Kombu do not tell.
    connection_errors: tuple[type[Exception], ...]
    unacked_restore_interval: float
    _expires: Any
    _flush_brpop_reauth: Any
    _get_publish_topic: Any
    _q_for_pri: Any
    _queue_cycle: Any
    _receive: Any
    #: Whether Redis has confirmed the latest subscription.
    _listens = False

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        self.publish(queue, message, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        self.ask(timeout)

    def _brpop_read(self, **options: Any) -> bool:
        return self.read(**options)

    def _purge(self, queue: str) -> int:
        purged: int = super()._purge(queue)
        return purged + self.count_and_drop_delayed(queue)

    def _put_fanout(
        self, exchange: str, message: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        self.before_broadcast(exchange, message)
        super()._put_fanout(exchange, message, *args, **kwargs)  # type: ignore[misc]

    def _deliver_fanout_message(self, message: dict[str, Any], exchange: str) -> bool:
        heard = self.hears(exchange, message)
        return heard and bool(super()._deliver_fanout_message(message, exchange))  # type: ignore[misc]

    def _handle_message(self, client: Any, answer: Any) -> Any:
        if answer[0] == b"psubscribe":
            self._listens = True
        return super()._handle_message(client, answer)  # type: ignore[misc]

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        # Celery 5.7.0 closes a lost connection twice; at the second time its client is gone.
        # Callers expect this error; an AttributeError would end the worker.
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("The connection to the broker is closed.")
        own = self.parameters_of(f"redis+{self.connection.client.hostname}")
        # Kombu makes a class of its own from this one.
        self.connection_class = own.pop("connection_class", self.connection_class)
        return super()._connparams(*args, **kwargs) | own  # type: ignore[misc]

    def publish(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Put a message into a queue."""
        super()._put(queue, message, **kwargs)

    def ask(self, timeout: float | None = None) -> None:
        """Send the command that asks for a message."""
        super()._brpop_start(timeout)  # type: ignore[misc]

    def read(self, **options: Any) -> bool:
        """Read the answer. Raises ``Empty`` if it holds no message."""
        return bool(super()._brpop_read(**options))  # type: ignore[misc]

    def listeners(self, exchange: str) -> int:
        """Count who listens at an exchange. They are sent an empty message, which is none."""
        with self.conn_or_acquire() as client:
            return int(client.publish(self._get_publish_topic(exchange, ""), ""))

    def listen(self, seconds: float) -> bool:
        """Subscribe to what is sent to all, and wait whether Redis confirms it."""
        self._listens = False
        self._in_listen = None
        poller: Any = self.connection.cycle
        poller._register_LISTEN(self)
        end = time.monotonic() + seconds
        while not self._listens:
            if not self.subclient.connection.can_read(timeout=max(0, end - time.monotonic())):
                return False
            self._receive()
        return True

    def send(self, *command: Any) -> None:
        """Send a command whose answer the event loop will find."""
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command(*command)

    def receive(self) -> Any:
        """Read the answer to :meth:`send`, as it came."""
        try:
            return self.client.connection.read_response()
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    @property
    def sent_at(self) -> float:
        """When :meth:`send` was called last (``time.monotonic()``)."""
        return float(self._brpop_sent_at or 0)

    def next_queues(self) -> list[str]:
        """Return the queues to take from, the one whose turn it is first."""
        return list(self._queue_cycle.consume(len(self.active_queues)))

    def had_its_turn(self, queue: str) -> None:
        """Move a queue behind all others."""
        self._queue_cycle.rotate(queue)

    def deliver(self, payload: Any, queue: str) -> None:
        """Hand a message to whoever consumes the queue."""
        self.connection._deliver(payload, queue)

    def list_for(self, queue: str, message: dict[str, Any]) -> str:
        """Name the list of a queue that a message belongs into, by its priority."""
        return str(self._q_for_pri(queue, self._get_message_priority(message, reverse=False)))

    def list_of(self, queue: str, step: int) -> str:
        """Name the list of a queue for a priority step."""
        return str(self._q_for_pri(queue, step))

    def queues_of(self, exchange: str, routing_key: str) -> list[str]:
        """Name the queues that a message goes to."""
        return list(self._lookup(exchange, routing_key))

    def expires(self, queue: str) -> bool:
        """Whether a queue is one that vanishes by itself."""
        return queue in (self._expires or ())

    def delete_queue(self, queue: str, exchange: str) -> None:
        """Delete a queue, and its entry at its exchange."""
        self._delete(queue, exchange, "", "")


class ResultHooks:
    """For a result backend: ``describe`` says what a record tells of the task's request."""

    describe: Callable[[Any], dict[str, Any]]

    def _get_result_meta(
        self, result: Any, state: str, traceback: Any, request: Any, *how: Any, **also: Any
    ) -> dict[str, Any]:
        hook: Any = super()
        meta: Any = hook._get_result_meta(result, state, traceback, request, *how, **also)
        return dict(meta) | (self.describe(request) if request else {})


class RedisResultHooks(ResultHooks):
    """The same for the backend on Redis: ``make_pool`` makes the pool of connections, and ``write``
    stores a record. Celery would read the record before, to see that it is none of a success.
    """

    make_pool: Callable[..., Any]
    write: Callable[..., None]
    encode: Callable[..., Any]

    def _get_pool(self, **params: Any) -> Any:
        return self.make_pool(**params)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, **options: Any
    ) -> Any:
        request = options.get("request")
        meta = self._get_result_meta(result, state, traceback, request) | {"task_id": task_id}
        self.write(task_id, state, self.encode(meta), request)
        return result
