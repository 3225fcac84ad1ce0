"""The result backend: what Redis is told about a task, and when."""

import logging
from typing import Any

from celery import states
from celery.backends.cache import CacheBackend
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendError
from celery.utils.serialization import ensure_serializable
from kombu.exceptions import OperationalError
from redis import BlockingConnectionPool
from redis.exceptions import RedisError

from ..base.records import arguments_of
from ..base.redis_urls import NAMELESS, sentinel_parameters
from ..celery_internals import RedisResultHooks, ResultHooks
from .activity import goes_with_result, store
from .failed import note_failure

logger = logging.getLogger(__name__)

#: Seconds to wait for a free connection.
_POOL_WAIT = 5

#: What Celery stores of a task's start.
_OF_START = {"pid", "hostname"}

# The application says it once when it starts; Celery would for each process.
logging.getLogger("celery.backends.redis").addFilter(
    lambda record: "ssl_cert_reqs=CERT_NONE" not in str(record.msg)
)


class _Telling(ResultHooks):
    """For a result backend: what it stores tells the task's name, and where and when it ran."""

    def prepare_exception(self, exc: BaseException, serializer: Any = None) -> Any:
        """Keep of an exception what it is made from, such as the name of a file."""
        backend: Any = super()
        parts = ensure_serializable(list(arguments_of(exc)), backend.encode)
        return backend.prepare_exception(exc, serializer) | {"exc_message": parts}

    def describe(self, request: Any) -> dict[str, Any]:
        """Say it; activity.py notes the start."""
        return {
            "name": getattr(request, "shadow", None) or getattr(request, "task", None),
            "worker": getattr(request, "hostname", None),
            "queue": (getattr(request, "delivery_info", None) or {}).get("routing_key"),
            "started_at": getattr(request, "started_at", None),
        }


class EagerBackend(_Telling, CacheBackend):
    """Keeps the results of eager tasks in this process."""


class ResultBackend(_Telling, RedisResultHooks, RedisBackend):
    """Celery's Redis backend, which also keeps the task's name, and does not subscribe early.

    Celery subscribes to the result of every task at the moment it is sent, in case that somebody
    waits. Most web requests never do; a Future subscribes when it is waited for.
    """

    app: Any
    expires: int | None
    failure_expires: int | None

    def make_pool(self, **params: Any) -> BlockingConnectionPool:
        """Make a pool in which one who finds all connections in use waits; Celery would raise."""
        if url := params.pop("url", None):  # of sentinels; Celery has read its query
            params |= sentinel_parameters(url)
        return BlockingConnectionPool(timeout=_POOL_WAIT, **params | NAMELESS)  # type: ignore[no-untyped-call]

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store a task's state; one on the way, such as PROGRESS, only if that is possible.

        Celery would fail the task before it ran, when its start cannot be noted. The start itself
        was noted when its message was taken.
        """
        if state == states.STARTED and isinstance(result, dict) and result.keys() == _OF_START:
            return result
        try:
            return super().store_result(task_id, result, state, *args, **kwargs)
        except (BackendError, OperationalError, RedisError) as error:
            if state in states.READY_STATES:
                raise
            logger.warning("The state %s of %s could not be stored: %s", state, task_id, error)
            return result

    def write(self, task_id: str, state: str, text: Any, request: Any) -> None:
        """Store a record, and tell who waits for it; if it is the end, tell all of it."""
        life = self.failure_expires if state == states.FAILURE else self.expires
        record = (self.get_key_for_task(task_id), text, int(life or 0))
        last = getattr(request, "ends_as", None) == state
        store(self.app, self.client, request, state, record=record, ended=last, let_go=last)
        if last:
            request.told = True

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing, where Celery would subscribe to the result's channel."""

    def add_pending_result(self, result: Any, weak: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Listen for the end of a task as long as somebody holds its result object.

        Celery would hold those that a chord makes for itself, and listen for them, forever.
        """
        return super().add_pending_result(result, True, *args, **kwargs)

    def mark_as_done(self, task_id: str, result: Any, request: Any = None, *rest: Any) -> None:
        """Store the result; mostly that is the end."""
        self._expect_end(request, states.SUCCESS)
        super().mark_as_done(task_id, result, request, *rest)

    def mark_as_failure(
        self,
        task_id: str,
        exc: Exception,
        traceback: Any = None,
        request: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Store the failure, and keep the message so that the task can be run again."""
        if request:
            # First, so that whoever sees the failure can run it again.
            note_failure(self.app, request, exc)
            self._expect_end(request, states.FAILURE)
        super().mark_as_failure(task_id, exc, traceback, request, *args, **kwargs)

    def _expect_end(self, request: Any, state: str) -> None:
        # A task may store such a state itself and go on, so it alone does not tell.
        if request and goes_with_result(self.app, request, state):
            request.ends_as = state
