"""What somebody else wrote into Redis hides nothing but itself, and stops nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import sample_app
from flask_background import FlaskCelery
from flask_background.state.scheduler import RedisScheduler

GARBAGE: list[Any] = [
    b"",
    b"\xff\xfe",
    "null",
    "[]",
    "1e999",
    "9" * 400,
    "[" * 5000,
    '["\\ud800"]',
    json.dumps({"status": [], "name": {}}),
    json.dumps({"status": "STARTED", "started_at": "x", "worker": 1, "queue": []}),
    json.dumps({"status": "SUCCESS", "started_at": 1e300, "date_done": 7, "traceback": {}}),
    json.dumps({"id": 1, "name": "x", "reason": "x", "at": "x"}),
    json.dumps(["9999-12-31T23:59:59+00:00", 1]),
    json.dumps(["2026-01-01T00:00:00", 1]),
    '1 {"pid": "x", "queues": 5, "active": []}',
    pytest.param(f"{time.time()} []", id="a fresh time"),
]


def look_at_all(client: FlaskCelery, task_id: str) -> None:
    """Ask for all that the page, the API and the metrics show."""
    client.overview()
    client.task_statistics()
    client.schedule_status()
    client.heartbeats()
    client.dead_letters()
    client.failures()
    client.refused_messages()
    client.readiness()
    client.task_info(task_id)


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda text: str(text[:24]))
def test_garbage_hides_nothing_but_itself(client: FlaskCelery, garbage: Any) -> None:
    good, bad = (client.submit(sample_app.nothing).id for _ in range(2))
    keys, redis = client.keys, client.redis
    redis.set(client.backend.get_key_for_task(bad), garbage)
    redis.zadd(keys.recent, {garbage: float("inf")})
    for key in (keys.workers, keys.scheduler_runs, keys.counters, keys.failed):
        redis.hset(key, garbage, garbage)
    redis.hset(keys.scheduler_runs, "every-second", garbage)
    for kind in ("refused", "ended|task|SUCCESS", "bucket|task|1.0", "bucket|task|x", "seconds|x"):
        redis.hset(keys.counters, kind, garbage)
    for order in (keys.failures, keys.dead, keys.refused):
        redis.zadd(order, {garbage: time.time()})

    look_at_all(client, bad)

    assert good in {task.info.id for task in client.overview().waiting}


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda text: str(text[:24]))
def test_garbage_does_not_stop_the_schedule(client: FlaskCelery, garbage: Any) -> None:
    client.redis.hset(client.keys.scheduler_runs, "every-second", garbage)
    scheduler = RedisScheduler(client)
    try:
        scheduler.tick()
    finally:
        scheduler.close()

    assert client.queue_lengths()["default"] == 1
