"""The worker's consumer: no message ends it, and a lost connection costs little.

Celery's own consumer ends with the first message that it cannot read, and drops the tasks whose
names it does not know. Here both are kept, see giving_up.py.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from ..base.errors import GivenUp
from ..core import Core
from . import giving_up
from .leases import QoS
from .place import TaskPool

logger = logging.getLogger(__name__)

#: When Redis is ill, the message is not.
_LEFT_ALONE = (OperationalError, RedisError)
#: The part of a lease for which its renewal may fail.
_PATIENCE = 0.6


class BackgroundConsumer(Consumer):
    """Celery's consumer, which keeps what it cannot do. ``worker_consumer`` names it."""

    # What the types of Celery do not tell.
    app: Core
    connection_errors: tuple[type[Exception], ...]
    hub: Any
    task_consumer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app.node_name = self.hostname
        self._renewed = time.monotonic()

    # Messages

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Make what handles a message; whatever one holds, it does not end the worker."""
        handle = super().create_task_handler(*args, **kwargs)

        def receive(message: Any) -> None:
            try:
                handle(message)
            except self.connection_errors:
                raise
            except _LEFT_ALONE as error:
                logger.error("A task cannot be begun now and comes back later: %s", error)
                message.channel.qos.forget(message.delivery_tag)
            except Exception as error:  # a message can hold anything
                self._bury(message, error)

        return receive

    def on_unknown_task(self, body: Any, message: Any, exc: Any) -> None:
        """Keep a task whose name is not known here.

        While a new version is deployed other workers may know it: it is not acknowledged, so it
        comes back when its lease ends, and is given up only after some deliveries.
        """
        name, task_id = message.headers.get("task"), str(message.headers.get("id"))[:300]
        limit = self.app.options.max_deliveries
        if getattr(message, "taken", None) and message.taken.deliveries < limit:
            logger.warning("The task %s (%s) is not known here; left to others.", name, task_id)
            message.channel.qos.forget(message.delivery_tag)
        else:
            self._bury(message, GivenUp(f"No worker knows a task named {name!r}."))

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Keep a message that is no task."""
        self._bury(message, GivenUp("It names no task."))

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Keep a message whose body cannot be read."""
        self._bury(message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a task whose arguments or times cannot be read."""
        self._bury(message, exc)

    def _bury(self, message: Any, error: Exception) -> None:
        own = isinstance(error, GivenUp)
        reason = str(error) if own else f"It cannot be read: {error!r}"
        try:
            giving_up.give_up(self.app, message, reason)
        except _LEFT_ALONE as failure:
            logger.error("A dead letter could not be written, it comes back: %s", failure)
            message.channel.qos.forget(message.delivery_tag)

    @property
    def can_end_tasks(self) -> bool:
        """Whether each task has a process of its own; elsewhere one that has begun goes on."""
        return isinstance(self.pool, TaskPool) or bool(self.pool and self.pool.uses_semaphore)

    # Connections

    def renew_leases(self) -> None:
        """Keep what this worker holds; called with each heartbeat.

        Raises the error of Redis when the leases are about to end: the connection is given up
        then, and with it the tasks, because other workers will begin them.
        """
        channel = getattr(self.task_consumer, "channel", None)
        qos = getattr(channel, "qos", None)
        if channel is None or not isinstance(qos, QoS):
            return  # another transport
        try:
            qos.renew()
            self._renewed = time.monotonic()
        except RedisError as error:
            since = time.monotonic() - self._renewed
            logger.warning("The tasks at work could not be renewed for %d s: %s", since, error)
            if self.hub and qos.held and since > _PATIENCE * channel.visibility_timeout:
                raise RedisConnectionError("The leases of the tasks at work run out.") from error
