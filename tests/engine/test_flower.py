"""Flower, Celery's monitor, beside the workers; it is an extra that may be missing."""

from __future__ import annotations

import importlib.util
import socket
import urllib.error
import urllib.request

import pytest
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster, run, wait_until

INSTALLED = importlib.util.find_spec("flower") is not None


@pytest.mark.skipif(INSTALLED, reason="Flower is installed")
def test_whoever_has_no_flower_is_told_how_to_get_it() -> None:
    ended = run({}, "cluster", "--flower")

    assert "uv sync --extra flower" in ended.stderr
    assert ended.returncode == 1


@pytest.mark.skipif(not INSTALLED, reason="needs Flower: uv sync --extra flower")
def test_flower_shows_the_workers_where_the_settings_say(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "REDIS_URL": own_redis.url,
        "CELERY_WORKERS": ["mail"],
        "CELERY_FLOWER": True,
        "CELERY_FLOWER_PORT": port,
    }
    start(settings, "cluster", "--no-scheduler", workers=1)

    def page() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/workers", timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            return ""

    wait_until(lambda: "mail@" in page(), "Flower to show the worker")
