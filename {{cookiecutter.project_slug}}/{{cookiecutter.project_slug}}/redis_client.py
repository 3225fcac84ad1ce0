"""The application's own connection to Redis, apart from Celery's."""

from __future__ import annotations

from flask import Flask, current_app
from redis import Redis

from .background import connect_redis
from .background.settings import tls_url


class RedisClient:
    """Flask extension: one pooled client for each application, and one prefix for its keys."""

    def init_app(self, app: Flask) -> None:
        """Make the client; it connects when the first command is sent."""
        app.extensions["redis"] = connect_redis(tls_url(app.config["REDIS_URL"], app.config))

    @property
    def client(self) -> Redis:
        """The client of the current application. Answers are text, not bytes."""
        client: Redis = current_app.extensions["redis"]
        return client

    def key(self, name: str) -> str:
        """Name a key so that applications that share a Redis do not meet."""
        return f"{current_app.name}:{name}"
