"""Flower, Celery's monitor, beside the workers."""

from __future__ import annotations

import urllib.error
import urllib.request

import support
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster, wait_until


def test_flower_shows_the_workers_where_the_settings_say(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    port = support.free_port()
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
