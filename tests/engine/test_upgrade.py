"""What a version whose keys had no prefix left in Redis is taken over, and nothing else."""

from __future__ import annotations

import json

import redis
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster, wait_until
from flask_background import FlaskCelery
from sample_app import celery, create_app

#: The version before wrote the same messages under keys without a prefix, and did not sign them.
BEFORE = {"CELERY_KEY_PREFIX": "", "CELERY_WORKERS": {"main": {"queues": ["default", "mail"]}}}
NOW = {"CELERY_WORKERS": {"main": {"queues": ["default", "mail"]}}, "CELERY_ACCEPT_UNSIGNED": True}


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
        wait_until(lambda: all(one.known for one in futures), "the tasks to be taken over")
        assert [one.result(timeout=60) for one in futures] == ["waits", 4, 3, 7]
    left = {key for key in server.scan_iter() if not key.startswith("sample_app:")} - {"ran:waits"}
    assert not left & {"default", "mail", "mail\x06\x163", "unacked", "unacked_index"}


def test_without_a_word_of_the_operator_they_become_dead_letters(
    start: StartCluster, own_redis: EmbeddedRedis, client: FlaskCelery
) -> None:
    with create_app({**BEFORE, "REDIS_URL": own_redis.url}).app_context():
        celery.submit(sample_app.remember, "unsigned")
    server = redis.Redis.from_url(own_redis.url, decode_responses=True)
    unsigned(server, "default")

    start({}, "cluster", workers=1)

    with create_app({"REDIS_URL": own_redis.url}).app_context():
        wait_until(lambda: celery.readiness().dead_letters == 1, "the dead letter")
    assert server.llen("ran:unsigned") == 0


def test_tasks_of_another_application_stay_where_they_are(
    start: StartCluster, own_redis: EmbeddedRedis, client: FlaskCelery
) -> None:
    server = redis.Redis.from_url(own_redis.url, decode_responses=True)
    foreign = {"headers": {"task": "other.task", "id": "x"}, "properties": {}, "body": ""}
    server.lpush("default", json.dumps(foreign))

    start({"CELERY_ACCEPT_UNSIGNED": True}, "cluster", workers=1)
    with create_app({"REDIS_URL": own_redis.url}).app_context():
        # By then the worker has looked at least twice.
        celery.submit(sample_app.nothing, countdown=7).result(timeout=40)

    assert server.lrange("default", 0, -1) == [json.dumps(foreign)]


def test_the_schedule_goes_on_where_the_version_before_stopped(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    server = redis.Redis.from_url(own_redis.url, decode_responses=True)
    run = json.dumps(["2026-01-01T00:00:00+00:00", 41])
    server.hset("background:scheduler:runs", "every-second", run)

    start({}, "cluster", workers=1)

    def count() -> int:
        text = server.hget("sample_app:background:scheduler:runs", "every-second")
        return int(json.loads(str(text))[1]) if text else 0

    assert wait_until(count, "a run of the schedule") > 41


def test_keys_of_another_program_stop_neither_workers_nor_schedule(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    server = redis.Redis.from_url(own_redis.url, decode_responses=True)
    server.set("default", "no list")
    server.set("background:scheduler:runs", "no hash")

    cluster = start({}, "cluster", workers=1)
    assert "WRONGTYPE" in cluster.wait_for("is left: ")

    with create_app({"REDIS_URL": own_redis.url}).app_context():
        assert celery.submit(sample_app.add, 1, 2).result(timeout=30) == 3
    runs = "sample_app:background:scheduler:runs"
    wait_until(lambda: server.hexists(runs, "every-second"), "a run of the schedule")
