"""Whether tasks can be done, and why not, in words for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import redis
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster, wait_until
from flask_background import FlaskCelery, Readiness
from sample_app import celery, create_app

NO_WORKER = "No worker has given a sign of life for 30 seconds."
FULL = "Redis is full: its maxmemory is reached."
NO_PASSWORD = "Redis wants a password, and REDIS_URL has none."
REFUSED = "Redis refuses what it is asked; the log says why."
CUT_OFF = "Redis is cut off from its copies, and takes nothing without one."
WRONG_PASSWORD = "Redis refuses the password of REDIS_URL."


def reason(url: str) -> str | None:
    """Say why no task can be done."""
    with create_app({"REDIS_URL": url}).app_context():
        return celery.readiness().reason


@pytest.mark.parametrize(
    ("settings", "user", "expected"),
    [
        ({}, ":right@", NO_WORKER),
        ({"maxmemory": 1_000_000}, ":right@", FULL),
        ({}, "", NO_PASSWORD),
        ({}, ":wrong@", WRONG_PASSWORD),
        ({"min-replicas-to-write": 1}, ":right@", CUT_OFF),
    ],
    ids=["no worker", "full", "no password", "wrong password", "no replica"],
)
def test_the_reason_is_what_redis_says(
    own_redis: EmbeddedRedis, settings: Mapping[str, int | str], user: str, expected: str
) -> None:
    with redis.Redis.from_url(own_redis.url) as connection:
        for name, value in {**settings, "requirepass": "right"}.items():
            connection.config_set(name, value)

    address = own_redis.url.rpartition("@")[2]
    assert reason(f"redis://{user}{address}") == expected


def test_what_else_redis_says_stands_in_the_log(client: FlaskCelery) -> None:
    client.redis.set(client.keys.dead, "no sorted set")

    assert client.readiness().reason == REFUSED


def test_a_redis_that_is_away_cannot_be_reached() -> None:
    assert reason("redis://127.0.0.1:1/0") == "Redis cannot be reached."


def test_with_a_worker_all_is_well_and_dead_letters_are_counted(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({"CELERY_WORKERS": 2}, "cluster", "--no-scheduler", workers=2)
    assert client.readiness() == Readiness(None, workers=2)

    client.redis.lpush(client.key("default"), "no message")
    wait_until(client.dead_letters, "the dead letter")

    assert client.readiness() == Readiness(None, workers=2, dead_letters=1)
