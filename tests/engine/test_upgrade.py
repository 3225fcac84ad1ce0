"""The way from a version whose keys had no prefix, as CHANGELOG says it: with its keys at first."""

from __future__ import annotations

import json

import redis
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster
from sample_app import celery, create_app

#: The version before wrote the same messages under keys without a prefix, and did not sign them.
BEFORE = {"CELERY_KEY_PREFIX": "", "CELERY_WORKERS": {"main": {"queues": ["default", "mail"]}}}
NOW = {**BEFORE, "CELERY_ACCEPT_UNSIGNED": True}


def unsigned(server: redis.Redis, name: str) -> None:
    """Take the signatures off the messages of a list."""
    texts = [json.loads(text) for text in server.lrange(name, 0, -1)]
    server.delete(name)
    for message in texts:
        del message["properties"]["signature"]
        server.rpush(name, json.dumps(message))


def test_waiting_tasks_and_those_of_lost_workers_run_after_an_upgrade(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    server = redis.Redis.from_url(own_redis.url, decode_responses=True)
    with create_app({**BEFORE, "REDIS_URL": own_redis.url}).app_context():
        waiting = [celery.submit(sample_app.remember, "waits"), celery.submit(sample_app.double, 2)]
        waiting.append(celery.submit(sample_app.add, 1, 2, queue="mail", priority=5))
        held = celery.submit(sample_app.add, 3, 4)
    for name in ("default", "mail\x06\x163"):
        unsigned(server, name)
    # A worker had taken the last one, and is gone since: the first of the list is what came last.
    message = server.lpop("default")
    server.hset("unacked", "tag", f'[{message!s}, "", "default"]')
    server.zadd("unacked_index", {"tag": 1.0})

    start(NOW, "cluster", workers=1)

    with create_app({**NOW, "REDIS_URL": own_redis.url}).app_context():
        futures = [celery.get(one.id) for one in [*waiting, held]]
        assert [one.result(timeout=60) for one in futures] == ["waits", 4, 3, 7]
