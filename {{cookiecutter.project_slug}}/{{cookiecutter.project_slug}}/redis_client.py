"""The application's client of Redis, and the names of its keys."""

from __future__ import annotations

from flask import Flask, current_app
from redis import Redis

from flask_background import FlaskCelery, is_verified


class RedisClient:
    """Flask extension: the client of the current application, and one prefix for its keys."""

    def init_app(self, app: Flask) -> None:
        """Say how Redis is spoken to, where that deserves a word."""
        if not is_verified(app.extensions["celery"].redis_url):
            app.logger.warning(
                "Redis is spoken to over TLS, but its certificate is not checked: nobody can "
                "listen, but somebody in between could pose as Redis (REDIS_TLS_VERIFY=none)."
            )

    @property
    def client(self) -> Redis:
        """The client of the current application. Answers are text, not bytes.

        It is the one of the background layer, for connections may be few.
        """
        celery: FlaskCelery = current_app.extensions["celery"]
        return celery.redis

    def key(self, name: str) -> str:
        """Name a key so that applications that share a Redis do not meet."""
        return f"{current_app.name}:{name}"
