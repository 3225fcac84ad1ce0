"""Wakes whoever waits for a task: one thread and one connection for any number of futures."""

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from celery import states
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ..base.records import read
from ..base.redis_urls import connect_redis
from ..core import Core
from ..state.lookup import task_meta

logger = logging.getLogger(__name__)

#: Seconds of silence after which the connection is tried with a PING.
_QUIET = 15.0
#: Seconds before the next try to reach a Redis that is away.
_RECONNECT = 1.0


class Waiter(Protocol):
    """Something that waits for the end of a task, such as a future."""

    id: str

    def settle(self, meta: Mapping[str, Any] | None) -> object:
        """Take the record of the task that ended; None for an id that was never issued."""


class ResultListener:
    """Settles futures when the result backend publishes the end of their tasks.

    Celery's Redis backend publishes each state of a task on a channel that has the name of the
    task's key. The order is: subscribe first, then read the key, so that an end which comes in
    between is not missed.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        # Nobody publishes there; it keeps the connection while nothing is waited for.
        self._own_channel = core.keys.listener
        self._lock = threading.Lock()
        self._futures: dict[str, list[Waiter]] = defaultdict(list)
        self._pubsub: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._complained = False

    def watch(self, future: Waiter) -> None:
        """Settle ``future`` when its task ends; now, if it has ended."""
        if self._core.conf.task_always_eager:
            future.settle(task_meta(self._core, future.id))
            return
        channel = self._core.keys.record(future.id)
        with self._lock:
            known = channel in self._futures
            self._futures[channel].append(future)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="result-listener", daemon=True
                )
                self._thread.start()
            elif self._pubsub is not None:
                self._change(self._pubsub.subscribe, channel)
        if known:
            # The subscription stands already, so its confirmation does not come again.
            self._look_up(channel)

    def close(self) -> None:
        """End the thread and its connection; what still waits is not woken any more."""
        self._closed = True
        # In a forked child the thread does not exist, and the connection is the parent's.
        if self._thread is not None and self._thread.is_alive():
            with self._lock:
                if self._pubsub is not None:
                    self._change(self._pubsub.unsubscribe, self._own_channel)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._listen()
            except RedisError as error:
                if not (self._complained or self._closed):
                    logger.warning("Waiting for Redis, to hear of tasks that end: %s", error)
                self._complained = True
            except Exception:
                logger.exception("The listener for results starts anew.")
            with self._lock:
                if not self._futures:
                    self._thread = None  # the next one to wait starts another
                    return
            if not self._closed:
                threading.Event().wait(_RECONNECT)

    def _listen(self) -> None:
        client: Any = connect_redis(
            self._core.conf.result_backend, timeout=5, retry=Retry(NoBackoff(), 0)
        )
        with contextlib.closing(client), contextlib.closing(client.pubsub()) as pubsub:
            with self._lock:
                pubsub.subscribe(self._own_channel, *self._futures)
                self._pubsub = pubsub
            try:
                self._hear(pubsub)
            finally:
                with self._lock:
                    self._pubsub = None  # a closed one would connect again for whoever uses it

    def _hear(self, pubsub: Any) -> None:
        asked = False
        while not self._closed:
            try:
                message = pubsub.get_message(timeout=_QUIET)
            except Exception as error:
                # Of any kind: a thread that subscribes may have closed the lost connection first.
                raise RedisError(f"{type(error).__name__}: {error}") from error
            if message is None:
                if asked:
                    raise RedisError("no answer")
                pubsub.ping()
                asked = True
                continue
            asked = self._complained = False
            if message["type"] == "subscribe":
                self._look_up(message["channel"])
            elif message["type"] == "message":
                self._settle(message["channel"], read(message["data"]))

    def _change(self, change: Callable[[str], object], channel: str) -> None:
        """Subscribe or unsubscribe. Should that fail, the thread notices it and starts anew.

        It may fail with any error: the thread reads from the same connection meanwhile, and closes
        it when it is lost.
        """
        try:
            change(channel)
        except Exception as error:
            logger.debug("Could not change the subscription to %s: %s", channel, error)

    def _look_up(self, channel: str) -> None:
        """Read a task's record, in case that it ended before we listened."""
        futures = self._futures.get(channel)
        if futures:
            self._settle(channel, task_meta(self._core, futures[0].id))

    def _settle(self, channel: str, meta: dict[str, Any] | None) -> None:
        if meta is not None and meta["status"] not in states.READY_STATES:
            return
        with self._lock:
            futures = self._futures.pop(channel, [])
            if self._pubsub is not None and futures:
                self._change(self._pubsub.unsubscribe, channel)
        for future in futures:
            future.settle(meta)
