"""A guard for Celery 5.7.0: a worker must outlive a Redis that goes away under a running task.

With more than one pool child, and a task at work that is acknowledged late, losing Redis makes
that release's consumer close a connection twice. The second time Kombu reads the address of a
client that is gone, and the AttributeError ends the worker (exit code 1). The guard turns it into
the connection error that Celery expects and recovers from. tests/background/test_redis_lost.py
proves it; when that test passes without the guard, remove this file.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError

_channel: Any = kombu_redis.Channel
_original = _channel._connparams


def _connparams(self: Any, *args: Any, **kwargs: Any) -> Any:
    if self.connection is None or self.connection.client is None:
        raise RedisConnectionError("The connection to the broker is closed.")
    return _original(self, *args, **kwargs)


def guard_lost_connections() -> None:
    """Install the guard, once, for the whole process."""
    _channel._connparams = _connparams
