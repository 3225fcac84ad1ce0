"""Redis behind a Unix socket: broker, results and the layer's own client."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster
from flask import Flask
from flask_background import FlaskCelery, connect_redis
from sample_app import celery, create_app

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")


@pytest.fixture
def socket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the servers that this test starts listen as well."""
    module: Any = sys.modules[EmbeddedRedis.__module__]
    command = module.server_command
    # Not in tmp_path: the system allows a socket some hundred characters.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        options = ["--unixsocket", str(path)]
        monkeypatch.setattr(module, "server_command", lambda *args: [*command(*args), *options])
        yield path


def test_tasks_travel_over_a_unix_socket(
    socket: Path, start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    password = urlsplit(own_redis.url).password
    settings = {"REDIS_URL": f"unix://:{password}@{socket}?db=3"}
    start(settings, "cluster", workers=1)
    with create_app(settings).app_context():
        assert celery.submit(sample_app.add, 1, 2).result(timeout=20) == 3
        future = celery.submit(sample_app.nothing, countdown=200)
        assert future.cancel()
        with pytest.raises(CancelledError):
            celery.get(future.id).result(timeout=20)
        assert celery.redis.connection_pool.connection_kwargs["db"] == 3


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix://me:a%20b@/r.sock?db=2", "redis+socket://me:a%20b@/r.sock?virtual_host=2"),
        ("unix:///r.sock?password=a/b&db=2", "redis+socket://:a%2Fb@/r.sock?virtual_host=2"),
        ("redis+socket:///r.sock?virtual_host=2", "redis+socket:///r.sock?virtual_host=2"),
        ("redis://host:6379/0", "redis://host:6379/0"),
    ],
)
def test_celery_has_its_own_spelling_of_a_unix_socket(given: str, spelled: str) -> None:
    app = Flask("spelled")
    app.config.update(REDIS_URL=given, SECRET_KEY="key")
    celery = FlaskCelery(app)

    assert celery.conf.broker_url == celery.conf.result_backend == spelled


def test_that_spelling_is_understood_everywhere() -> None:
    pool = connect_redis("redis+socket:///r.sock?virtual_host=2").connection_pool

    assert {"path": "/r.sock", "db": 2}.items() <= pool.connection_kwargs.items()
