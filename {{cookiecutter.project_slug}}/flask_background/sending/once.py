"""Two decorators for tasks that must not be done twice: ``unique_by`` and ``no_overlap``.

A task can be delivered more than once, see docs/reliability.md. Both keep a lock in Redis that
frees itself half a minute after its holder died. They work for functions given to
``celery.submit`` as well; in eager mode, which has no Redis, they do nothing.
"""

import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from celery import current_task
from flask import current_app
from kombu.utils.json import dumps, loads
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from ..core import Core

logger = logging.getLogger(__name__)

#: Seconds after which the lock of a holder that died is free.
_LOCK_TIMEOUT = 30
#: Seconds after which a task tries again whose twin is at work.
_TRY_AGAIN = 10


def no_overlap[**P, R](function: Callable[P, R]) -> Callable[P, R | None]:
    """Skip a call while another one of the same function runs, whatever the arguments.

    Put it below ``@celery.schedule(…)`` or ``@shared_task``, for work by the clock that may take
    longer than its interval. A call that is skipped returns None.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        celery = _celery()
        if celery is None:
            return function(*args, **kwargs)
        with _lock(celery, celery.keys.lock(_name(function))) as free:
            if free:
                return function(*args, **kwargs)
        logger.info("%s is still at work and was not begun again.", _name(function))
        return None

    return guarded


def unique_by[**P, R](
    *parameters: str, ttl: int = 24 * 3600
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Do the work once for each value of some parameters: ``@unique_by("order_id")``.

    A second call within ``ttl`` seconds (a day) returns what the first one returned, as JSON has
    it. One that comes while the first is at work waits for its turn. A call that failed does not
    count. What the function did before its worker was lost may be done again.

    Raises ``TypeError`` for a parameter that the function does not have.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        if unknown := [name for name in parameters if name not in signature.parameters]:
            raise TypeError(f"{_name(function)} has no parameter {unknown[0]!r}.")

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            celery = _celery()
            if celery is None:
                return function(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = dumps([bound.arguments[name] for name in parameters], default=str)
            key = celery.keys.done(_name(function), values)
            with _lock(celery, key + ":lock") as free:
                if not free:
                    _try_again(_name(function), values)
                if (known := celery.redis.get(key)) is not None:
                    result: R = loads(known)
                    return result
                result = function(*args, **kwargs)
                celery.redis.set(key, dumps(result), ex=ttl)
                return result

        return guarded

    return decorate


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _celery() -> Core | None:
    celery: Core = current_app.extensions["celery"]
    return None if celery.conf.task_always_eager else celery


def _try_again(name: str, values: str) -> None:
    """Put the running task off; outside of a task say that it cannot be done now."""
    if not current_task:
        raise LockError(f"{name} is at work for {values}.")
    task: Any = current_task
    raise task.retry(countdown=_TRY_AGAIN, max_retries=None)


@contextlib.contextmanager
def _lock(celery: Core, name: str) -> Iterator[bool]:
    """Hold a lock, and renew it as long as this process lives; False if another one has it."""
    lock = Lock(celery.redis, name, timeout=_LOCK_TIMEOUT, thread_local=False)
    if not lock.acquire(blocking=False):
        yield False
        return
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_LOCK_TIMEOUT / 3):
            try:
                lock.reacquire()
            except RedisError as error:
                logger.warning("The lock %s could not be renewed: %s", name, error)

    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield True
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(RedisError):
            lock.release()
