"""What the tests of the background layer share: the sample application, and workers for it.

They have Redis servers of their own, because their workers stop, start and lose Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import Running, StartCluster, flask_celery, ready, workers_of
from flask_background import FlaskCelery
from sample_app import celery, create_app, mailbox

#: The workers that most tests share.
WORKERS = {"main": {"queues": ["default"], "concurrency": 2}, "mail": {"queues": ["mail", "slow"]}}


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The settings of the sample application with the Redis that most tests share."""
    with EmbeddedRedis(tmp_path_factory.mktemp("shared") / "redis") as server:
        yield {"REDIS_URL": server.url, "CELERY_WORKERS": WORKERS}


@pytest.fixture(scope="session")
def workers(settings: dict[str, Any]) -> Iterator[Running]:
    """The workers that most tests share: `main` with two places, and `mail`."""
    with workers_of(settings, 3) as running:
        yield running


@pytest.fixture
def live(settings: dict[str, Any], workers: Running) -> Iterator[FlaskCelery]:
    """The sample application's Celery, with its context, in front of real workers."""
    with create_app(settings).app_context():
        yield celery


@pytest.fixture
def eager() -> Iterator[FlaskCelery]:
    """The same in eager mode: tasks run where they are sent, and there is no Redis."""
    settings = {"CELERY_TASK_ALWAYS_EAGER": True, "CELERY_WORKERS": WORKERS}
    with create_app({"REDIS_URL": "redis://127.0.0.1:1/0", **settings}).app_context():
        yield celery


@pytest.fixture(params=["with a worker", "eager"])
def either(request: pytest.FixtureRequest) -> FlaskCelery:
    """Both in turn, for what holds in both."""
    name = "eager" if request.param == "eager" else "live"
    return request.getfixturevalue(name)  # type: ignore[no-any-return]


@pytest.fixture
def box(live: FlaskCelery) -> Iterator[redis.Redis]:
    """Redis itself, to exchange messages with tasks, or to write what nobody should."""
    with mailbox() as connection:
        yield connection


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis for one test alone."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def store(own_redis: EmbeddedRedis) -> Iterator[redis.Redis]:
    """The same Redis itself."""
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as connection:
        yield connection


@pytest.fixture
def start(own_redis: EmbeddedRedis) -> Iterator[StartCluster]:
    """Start `flask celery …` on the test's own Redis; all of it ends with the test.

    `start({"CELERY_WORKERS": 2}, "cluster", workers=2)` waits until two workers take tasks.
    """
    with ExitStack() as stack:

        def start_one(
            settings: dict[str, Any], *arguments: str, workers: int = 0, **options: Any
        ) -> Running:
            settings = {"REDIS_URL": own_redis.url, **settings}
            running = Running(flask_celery(*arguments), settings, **options)
            stack.callback(running.end)
            if workers:
                ready(settings, workers)
            return running

        yield start_one


@pytest.fixture
def client(own_redis: EmbeddedRedis) -> Iterator[FlaskCelery]:
    """The sample application's Celery in front of the test's own Redis."""
    with create_app({"REDIS_URL": own_redis.url}).app_context():
        yield celery
