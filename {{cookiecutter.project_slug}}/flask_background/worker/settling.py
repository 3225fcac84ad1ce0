"""What becomes of a message whose place was killed; the cluster asks, see cluster/places.py."""

import logging
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from kombu.utils.json import loads

from ..core import Core
from .request import BackgroundRequest

logger = logging.getLogger(__name__)


class Settler:
    """Speaks for a process that cannot. Each method raises ``RedisError`` or ``OperationalError``.

    A message that is not there any more was dealt with: nothing happens.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def put_back(self, tag: str) -> None:
        """Send the task's message back into its queue, as one whose delivery failed."""
        with self._core.connection_for_write() as connection:
            if connection.default_channel.put_back(tag):
                logger.warning("The task of a process that was lost goes back into its queue.")

    def fail(self, tag: str, limit: float) -> None:
        """Note that the task took longer than its hard limit (seconds)."""
        self._with_request(tag, lambda request: request.on_timeout(False, limit))

    def cancel(self, tag: str) -> None:
        """Note that the task was cancelled while it ran."""
        self._with_request(tag, _note_cancel)

    def renew(self, tag: str) -> None:
        """Renew the lease of the task's message."""
        with self._core.connection_for_write() as connection:
            channel = connection.default_channel
            channel.script("renew", [channel.unacked_index_key], tag)

    def _with_request(self, tag: str, settle: Callable[[BackgroundRequest], object]) -> None:
        core = self._core
        with core.connection_for_write() as connection:
            channel = connection.default_channel
            record: Any = core.redis.hget(core.keys.unacked, tag)
            if record is None:
                return
            payload = loads(record)[0]
            payload["properties"]["delivery_tag"] = tag
            message = channel.Message(payload, channel=channel)
            channel.qos.hold(message, tag)
            settle(
                BackgroundRequest(
                    message,
                    app=core,
                    task=core.tasks[message.headers["task"]],
                    on_ack=message.ack_log_error,
                    on_reject=message.reject_log_error,
                    connection_errors=connection.connection_errors,
                )
            )
            channel.qos.forget_all()


def _note_cancel(request: BackgroundRequest) -> None:
    request.time_start = time.time()
    ended: Any = SimpleNamespace(terminate_job=lambda *_: None)  # there is nothing left to end
    request.terminate(ended)
