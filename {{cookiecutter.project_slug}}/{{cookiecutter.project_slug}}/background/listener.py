"""Wakes whoever waits for a task: one thread and one connection for any number of futures."""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from celery import states
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from .connection import connect_redis
from .futures import Future

if TYPE_CHECKING:
    from .app import FlaskCelery

logger = logging.getLogger(__name__)

#: Seconds of silence after which the connection is tried with a PING.
_QUIET = 15.0
#: Seconds before the next try to reach a Redis that is away.
_RECONNECT = 1.0


class ResultListener:
    """Settles futures when the result backend publishes the end of their tasks.

    Celery's Redis backend publishes each state of a task on a channel that has the name of the
    task's key. The order is: subscribe first, then read the key, so that an end which comes in
    between is not missed.
    """

    def __init__(self, celery: FlaskCelery) -> None:
        self._celery = celery
        self._lock = threading.Lock()
        self._futures: dict[str, list[Future]] = defaultdict(list)
        self._pubsub: Any = None
        self._thread: threading.Thread | None = None

    def watch(self, future: Future) -> None:
        """Settle ``future`` when its task ends; now, if it has ended."""
        if self._celery.conf.task_always_eager:
            future.settle(self._celery.task_meta(future.id))
            return
        channel = self._channel(future.id)
        with self._lock:
            known = channel in self._futures
            self._futures[channel].append(future)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="result-listener", daemon=True
                )
                self._thread.start()
            elif self._pubsub is not None:
                self._subscribe(self._pubsub, channel)
        if known:
            # The subscription stands already, so its confirmation does not come again.
            self._look_up(channel)

    def _run(self) -> None:
        while True:
            try:
                self._listen()
            except RedisError as error:
                logger.warning("Waiting for Redis, to hear of tasks that end: %s", error)
            except Exception:
                logger.exception("The listener for results starts anew.")
            with self._lock:
                self._pubsub = None
            threading.Event().wait(_RECONNECT)

    def _listen(self) -> None:
        client: Any = connect_redis(
            self._celery.conf.result_backend, timeout=5, retry=Retry(NoBackoff(), 0)
        )
        pubsub = client.pubsub()
        with self._lock:
            channels = list(self._futures)
            # A channel of no use keeps the connection subscribed while nothing is waited for.
            pubsub.subscribe("background:listener", *channels)
            self._pubsub = pubsub
        asked = False
        while True:
            message = pubsub.get_message(timeout=_QUIET)
            if message is None:
                if asked:
                    raise RedisError("no answer")
                pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                self._look_up(message["channel"])
            elif message["type"] == "message":
                self._settle(message["channel"], json.loads(message["data"]))

    def _subscribe(self, pubsub: Any, channel: str) -> None:
        try:
            pubsub.subscribe(channel)
        except RedisError as error:
            # The thread notices the same, connects again and subscribes to all channels.
            logger.debug("Could not subscribe to %s: %s", channel, error)

    def _look_up(self, channel: str) -> None:
        """Read a task's record, in case that it ended before we listened."""
        futures = self._futures.get(channel)
        if futures:
            self._settle(channel, self._celery.task_meta(futures[0].id))

    def _settle(self, channel: str, meta: dict[str, Any] | None) -> None:
        if meta is not None and meta["status"] not in states.READY_STATES:
            return
        with self._lock:
            futures = self._futures.pop(channel, [])
            if self._pubsub is not None and futures:
                try:
                    self._pubsub.unsubscribe(channel)
                except RedisError as error:
                    logger.debug("Could not unsubscribe from %s: %s", channel, error)
        for future in futures:
            future.settle(meta)

    def _channel(self, task_id: str) -> str:
        key = self._celery.backend.get_key_for_task(task_id)
        return key.decode() if isinstance(key, bytes) else str(key)
