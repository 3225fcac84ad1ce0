"""What lasts in Redis, and in a worker, does not grow with the number of tasks."""

from __future__ import annotations

import json
import time
from typing import Any

import sample_app
from celery import chain, chord, group
from engine_support import StartCluster, wait_until
from flask_background import FlaskCelery, unique_by
from kombu import Exchange, Queue

#: All keys that never expire, and what bounds each.
LASTING = {
    f"sample_app:{name}": why
    for name, why in {
        "default": "what waits",
        "default.delayed": "what waits for its time",
        "default.wake": "32 entries",
        "unacked": "what workers hold",
        "unacked_index": "the same",
        "background:workers": "the workers of the last hour",
        "background:failed": "those of the three lists below",
        "background:failures": "50 entries",
        "background:refused": "100 entries",
        "background:dead:order": "1000 entries",
        "recent": "100 entries",
        "counters": "the tasks and how they end",
        "background:scheduler:runs": "the entries of the schedule",
        "_kombu.binding.default": "the queues",
        "_kombu.binding_permanent.default": "the queues",
        "_kombu.binding.celery.pidbox": "the workers of the last hour",
        "_kombu.binding.reply.celery.pidbox": "who asks workers now",
        "_kombu.binding_deadlines": "the two above",
    }.items()
}


def test_all_keys_expire_but_those_that_cannot_grow(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({"CELERY_WORKERS": 1}, "cluster", workers=1)
    double = sample_app.double

    @unique_by("order")
    def pay(order: int) -> int:
        return order

    pay(1)
    saved: Any = group([double.s(1), double.s(2)]).apply_async()
    saved.save()
    chord([double.s(1), double.s(2)])(sample_app.shared.si(3))
    chord([double.s(1), double.s(None)])(sample_app.shared.si(3))
    chain(double.s(1), double.s())()
    sample_app.third_time_lucky.delay()
    client.submit(sample_app.remember, "task")
    client.submit(sample_app.fail)
    client.cancel(client.submit(sample_app.nothing, countdown=600).id)
    client.redis.lpush(client.key("default"), "no message")
    wait_until(client.dead_letters, "the dead letter")
    wait_until(client.status, "an answer to a control command")
    client.submit(sample_app.nothing).result(timeout=30)

    found = {key for key in client.redis.scan_iter() if client.redis.ttl(key) == -1}
    found -= {"ran:task"}  # the sample's own

    assert client.keys.workers in found
    assert found <= LASTING.keys()


def test_what_was_sent_and_is_not_waited_for_is_not_listened_for(client: FlaskCelery) -> None:
    double = sample_app.double
    pair = group([double.s(1), double.s(2)])

    for _ in range(3):
        pair.apply_async()
        chord([double.s(1), double.s(2)])(sample_app.shared.si(3))
        chain(pair, pair, sample_app.shared.si(3))()
        chord([chord([double.s(1)], double.s()), double.s(2)])(sample_app.shared.si(3))

    assert client.redis.pubsub_channels() == []


def test_calls_to_wake_are_bounded(client: FlaskCelery) -> None:
    for _ in range(50):
        client.submit(sample_app.nothing)

    assert client.queue_lengths() == {"default": 50}
    assert client.redis.llen(client.key("default.wake")) == 32


def test_an_answer_expires_when_nobody_is_left_who_asked(client: FlaskCelery) -> None:
    exchange = Exchange("reply.celery.pidbox", type="direct")
    queue = Queue("gone.reply.celery.pidbox", exchange, routing_key="gone")
    with client.connection_for_write() as connection:
        connection.Producer().publish(
            {"ok": "pong"}, exchange=exchange, routing_key="gone", declare=[queue]
        )

    assert 0 < client.redis.ttl(client.key("gone.reply.celery.pidbox")) <= 60


def test_the_name_of_a_killed_worker_is_forgotten(start: StartCluster, client: FlaskCelery) -> None:
    lost, table = "lost@elsewhere", client.key("_kombu.binding.celery.pidbox")
    beat = {"pid": 1, "queues": [], "active": 0, "processed": 0}
    client.redis.hset(client.keys.workers, lost, f"{time.time() - 2 * 3600} {json.dumps(beat)}")
    entry = f"\x06\x16\x06\x16{lost}.celery.pidbox"  # as Kombu writes it
    client.redis.sadd(table, entry)

    start({"CELERY_WORKERS": ["new"]}, "cluster", workers=1)

    assert lost not in client.redis.hkeys(client.keys.workers)
    assert not client.redis.sismember(table, entry)


def test_a_worker_forgets_the_timers_of_tasks_that_ended(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({"CELERY_WORKERS": 1}, "cluster", "--no-scheduler", workers=1)

    def timers() -> int:
        answers: Any = client.control.broadcast("count_timers", reply=True, limit=1, timeout=10)
        ((count,),) = (answer.values() for answer in answers)
        return int(count)

    before = timers()
    client.map(sample_app.add, *([number] for number in range(100))).result(timeout=30)

    wait_until(lambda: timers() < before + 50, "the timers to go")


def test_a_result_expires_after_an_hour(start: StartCluster, client: FlaskCelery) -> None:
    start({"CELERY_WORKERS": 1}, "cluster", "--no-scheduler", workers=1)

    for function in (sample_app.nothing, sample_app.fail):
        future = client.submit(function)
        future.exception(timeout=30)

        assert 0 < client.redis.ttl(client.key(f"celery-task-meta-{future.id}")) <= 3600
