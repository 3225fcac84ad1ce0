"""A task in the worker: what is checked before it runs, and what becomes of its message."""

import logging
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker import state
from celery.worker.request import Request

from ..core import Core
from . import giving_up

logger = logging.getLogger(__name__)


class BackgroundRequest(Request):
    """A task in the worker. It is not begun when it must not be, and never ends the worker."""

    _app: Core
    _context: Any

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
        self._taken: Any = getattr(message, "taken", None)
        if self._taken and self._taken.state == b"cancelled":
            state.revoked.add(self.id)

    @property
    def eta(self) -> None:
        """No time to wait for: what is for later waits in Redis, and by the clock of Redis."""
        return None

    def on_failure(self, *args: Any, **kwargs: Any) -> Any:
        """Note that the task failed. If that fails, too, the task comes back later."""
        try:
            return super().on_failure(*args, **kwargs)
        except Exception:
            logger.exception("The end of %s could not be noted; it comes back.", self.id)
            self._come_back()

    def revoked(self) -> bool:
        """Whether the task is not to run; asked just before it would.

        Its message is dealt with then. An error here would cost the worker a place for tasks.
        """
        try:
            return self._left_to_others() or self._made_dead_letter() or bool(super().revoked())
        except Exception:
            logger.exception("%s cannot be begun now; it comes back.", self.id)
            self._come_back()
            return True

    def _left_to_others(self) -> bool:
        """Let the task go if another worker has it now, because this one stood still too long."""
        missing = getattr(self.message.channel.qos, "missing", {})
        if missing.get(self.message.delivery_tag, 0) < 2:
            return False
        self._let_go()
        return True

    def _made_dead_letter(self) -> bool:
        """Give the task up if it was begun too often and its worker lost each time."""
        limit = self._app.options.max_deliveries
        if not self._taken or self._taken.deliveries <= limit:
            return False
        reason = f"It was begun {limit} times and its worker was lost each time."
        giving_up.give_up(self._app, self.message, reason, request=self._context)
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
