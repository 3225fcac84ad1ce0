"""What happens when a worker starts, forks a child, and stops: handlers for Celery's signals.

Stopping: SIGTERM lets running tasks finish. After ``worker_soft_shutdown_timeout`` seconds those
that still run are ended and go back into their queue. (Celery's own soft shutdown waits for the
whole time even when the tasks end at once, and does not acknowledge them until then.)
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from billiard import pool as billiard_pool
from celery import signals, states
from celery.exceptions import InvalidTaskError
from celery.worker import state
from celery.worker.request import Request
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from ..cluster.cluster import freeze_memory
from ..state.failed import count_delivery, give_up

if TYPE_CHECKING:
    from celery.apps.worker import Worker

    from ..app import FlaskCelery

logger = logging.getLogger(__name__)

#: Ends a busy pool child; the pool turns it into SystemExit in the task, so 'finally' runs.
_END_CHILD = "SIGQUIT"


class BackgroundRequest(Request):
    """A task in the worker, whose child is ended by SIGQUIT: SIGTERM is ignored while it works."""

    _app: FlaskCelery
    _context: Any
    _deliveries = 1

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        """Read a message. Raises ``InvalidTaskError`` for one that is no task."""
        super().__init__(message, *args, **kwargs)
        options = message.payload[2] if isinstance(message.payload, list) else None
        parts: tuple[tuple[str, Any, Any], ...] = (
            ("id", self.id, str),
            ("args", self.args, (list, tuple)),
            ("kwargs", self.kwargs, dict),
            ("options", options, (dict, type(None))),
        )
        for name, value, kinds in parts:
            if not isinstance(value, kinds):
                raise InvalidTaskError(f"the task's {name} cannot be {value!r:.100}")
        hard, soft = self.time_limits
        if not all(isinstance(limit, (int, float, type(None))) for limit in (hard, soft)):
            raise InvalidTaskError("the task's time limits are no numbers")

    def on_failure(self, *args: Any, **kwargs: Any) -> Any:
        """Note that the task failed. If that fails, too, the task comes back later."""
        try:
            return super().on_failure(*args, **kwargs)
        except Exception:
            logger.exception("The end of %s could not be noted; it comes back.", self.id)
            self._come_back()

    def revoked(self) -> bool:
        """Whether the task is not to run; asked just before it would.

        An error here would cost the worker one of its places for tasks.
        """
        try:
            return bool(super().revoked() or self._is_elsewhere() or self._is_given_up())
        except Exception:
            logger.exception("%s cannot be begun now; it comes back.", self.id)
            self._come_back()
            return True

    def _is_elsewhere(self) -> bool:
        """Whether another worker has the task now, because this one stood still for too long."""
        qos = getattr(self.message.channel, "_qos", None)
        if self.message.delivery_tag not in getattr(qos, "lost", ()):
            return False
        self._let_go()
        return True

    def _is_given_up(self) -> bool:
        """Whether the task ended its worker too often, which makes it a dead letter."""
        limit = self._app.options.max_deliveries
        if not self.delivery_info.get("redelivered") or self._deliveries > 1:
            return False
        self._deliveries = count_delivery(self._app, self.id)
        if self._deliveries <= limit:
            return False
        reason = f"It was begun {limit} times and its worker was lost each time."
        give_up(self._app, self.message, reason, request=self._context)
        self._let_go()
        return True

    def _come_back(self) -> None:
        """Leave the message to the end of its lease."""
        if not self.acknowledged:
            self.message.channel.qos.forget(self.message.delivery_tag)
            self.acknowledged = True
        state.task_ready(self)

    def _let_go(self) -> None:
        state.task_ready(self)
        self.acknowledge()

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End the running task for good."""
        super().terminate(pool, signal=_END_CHILD)  # type: ignore[arg-type]

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """End the running task; its message goes back into the queue."""
        super().cancel(pool, signal=_END_CHILD, emit_retry=emit_retry)  # type: ignore[arg-type]
        try:
            self.task.backend.store_result(self.id, None, states.PENDING)
        except (OperationalError, RedisError) as error:
            logger.warning("Could not note that %s waits again: %s", self.id, error)


def connect_signals() -> None:
    """Connect the handlers of this module; calling it again changes nothing."""
    signals.setup_logging.connect(_keep_logging)
    signals.worker_init.connect(_prepare_worker)
    signals.worker_process_init.connect(_prepare_child)


def _keep_logging(loglevel: int | None = None, **_: Any) -> None:
    """Leave the application's logging as it is. Celery sets up its own where nobody answers."""
    if loglevel:
        logging.getLogger("celery").setLevel(loglevel)


def _prepare_worker(sender: Worker, **_: Any) -> None:
    app = sender.app
    app.be_patient()
    freeze_memory()
    # A child that ends waits until its worker has read all results. A worker that is told to stop
    # just as a task begins does not read that one's, and would wait for the child for 30 seconds.
    billiard_pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 20  # tenths of a second
    seconds = app.options.soft_shutdown_timeout
    asked = False

    def put_back(*_: Any) -> None:
        logger.warning("Tasks still run after %g s; they go back into their queue.", seconds)
        os.kill(os.getpid(), signal.SIGQUIT)

    def limit_shutdown(how: str, **_: Any) -> None:
        nonlocal asked
        if how == "Warm" and not asked and hasattr(signal, "setitimer"):
            asked = True
            signal.signal(signal.SIGALRM, put_back)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))

    signals.worker_shutting_down.connect(limit_shutdown, weak=False)


def _prepare_child(**_: Any) -> None:
    """Let a pool child finish its task when SIGTERM is sent to every process."""
    signals.task_prerun.connect(_ignore_sigterm)
    signals.task_postrun.connect(_obey_sigterm)


def _ignore_sigterm(**_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _obey_sigterm(**_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
