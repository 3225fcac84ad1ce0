"""Rate limits: counted in Redis, and in this process while Redis is away."""

import time
from contextlib import suppress
from ipaddress import ip_network

from flask import Flask, request
from flask_background import connect_redis
from flask_limiter import Limiter
from redis.backoff import NoBackoff
from redis.retry import Retry

#: Seconds that a request may lose to the count before the count moves to memory.
_TIMEOUT = 0.15


def who_is_counted() -> str:
    """Name the client: its address, or with IPv6 its network (/64), which one customer has."""
    address = (request.remote_addr or "").removeprefix("::ffff:")
    with suppress(ValueError):  # it is no IPv6 address
        address = str(ip_network(address).supernet(new_prefix=64))
    return address


class RateLimiter(Limiter):
    """Flask-Limiter on the application's Redis. A dead Redis neither blocks nor fails a request.

    https://flask-limiter.readthedocs.io/en/stable/#rate-limiting-strategies
    """

    def __init__(self) -> None:
        super().__init__(who_is_counted, in_memory_fallback_enabled=True)
        # Flask-Limiter looks now and then, in any request, whether Redis is back.
        self.request_filter(lambda: request.blueprint == "health")

    def init_app(self, app: Flask) -> None:
        """Take the limits' settings (``RATELIMIT_*``) and the place of the counts from ``app``."""
        if app.config.get("CELERY_TASK_ALWAYS_EAGER"):
            app.config.setdefault("RATELIMIT_STORAGE_URI", "memory://")
        else:
            client = connect_redis(
                app.extensions["celery"].redis_url,
                timeout=_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
                max_connections=app.config["REDIS_MAX_CONNECTIONS"],
            )
            app.config.setdefault("RATELIMIT_STORAGE_URI", "redis://")
            app.config.setdefault(
                "RATELIMIT_STORAGE_OPTIONS",
                {"connection_pool": client.connection_pool, "key_prefix": f"{app.name}:limits"},
            )
        super().init_app(app)

    def seconds_to_wait(self) -> int:
        """Say in how many seconds the client that was refused may try again."""
        try:
            limit = self.current_limit
            return max(1, int((limit.reset_at if limit else 0) - time.time()) + 1)
        except Exception:
            return 60  # Redis went away between the count and this question
