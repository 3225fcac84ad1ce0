"""What is wrong with Redis, in words for whoever asks whether the application is ready."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import redis
from devtools.dev.redis_server import EmbeddedRedis
from flask_background import reason_of
from redis.exceptions import RedisError
from sample_app import celery, create_app

FULL = "Redis is full: its maxmemory is reached."
NO_PASSWORD = "Redis wants a password, and REDIS_URL has none."
WRONG_PASSWORD = "Redis refuses the password of REDIS_URL."


def reason(url: str) -> str | None:
    """Say why Redis does not take a task; None if it does."""
    with create_app({"REDIS_URL": url}).app_context():
        try:
            check(celery)
        except RedisError as error:
            return reason_of(error)
    return None


@pytest.mark.parametrize(
    ("settings", "user", "expected"),
    [
        ({}, "", None),
        ({"maxmemory": 1_000_000}, "", FULL),
        ({"requirepass": "right"}, "", NO_PASSWORD),
        ({"requirepass": "right"}, ":wrong@", WRONG_PASSWORD),
        ({"requirepass": "right"}, ":right@", None),
        ({"min-replicas-to-write": 1}, "", "Redis refuses what it is asked; the log says why."),
    ],
    ids=["healthy", "full", "no password", "wrong password", "right password", "something else"],
)
def test_the_reason_is_what_redis_says(
    own_redis: EmbeddedRedis, settings: Mapping[str, int | str], user: str, expected: str | None
) -> None:
    with redis.Redis.from_url(own_redis.url) as connection:
        for name, value in settings.items():
            connection.config_set(name, value)

    assert reason(own_redis.url.replace("//", f"//{user}")) == expected


def test_a_redis_that_is_away_cannot_be_reached() -> None:
    assert reason("redis://127.0.0.1:1/0") == "Redis cannot be reached."
