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

from ..base import scripts
from ..base.records import arguments_of
from ..base.redis_urls import sentinel_parameters
from ..celery_internals import RedisResultHooks, ResultHooks
from .failed import note_failure

logger = logging.getLogger(__name__)

#: Seconds to wait for a free connection.
_POOL_WAIT = 5

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

    def describe(self, request: Any, state: str) -> dict[str, Any]:
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

    def make_pool(self, **params: Any) -> BlockingConnectionPool:
        """Make a pool in which one who finds all connections in use waits; Celery would raise."""
        if url := params.pop("url", None):  # of sentinels; Celery has read its query
            params |= sentinel_parameters(url)
        return BlockingConnectionPool(timeout=_POOL_WAIT, **params)  # type: ignore[no-untyped-call]

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        """Store a task's state; one on the way, such as STARTED, only if that is possible.

        Celery would fail the task before it ran, when its start cannot be noted.
        """
        try:
            return super().store_result(task_id, result, state, *args, **kwargs)
        except (BackendError, OperationalError, RedisError) as error:
            if state in states.READY_STATES:
                raise
            logger.warning("The state %s of %s could not be stored: %s", state, task_id, error)
            return result

    def write(self, key: Any, value: Any, expires: float | None) -> bool:
        """Store a record and tell who waits for it, in one step."""
        seconds = int(expires or self.expires or 0)
        if seconds:
            scripts.call(self.client, "store", [key], value, seconds)
        return bool(seconds)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing, where Celery would subscribe to the result's channel."""

    def add_pending_result(self, result: Any, weak: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Listen for the end of a task as long as somebody holds its result object.

        Celery would hold those that a chord makes for itself, and listen for them, forever.
        """
        return super().add_pending_result(result, True, *args, **kwargs)

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
        super().mark_as_failure(task_id, exc, traceback, request, *args, **kwargs)
