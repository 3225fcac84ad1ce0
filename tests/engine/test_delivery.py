"""How messages travel: at each moment Redis knows where one is, and whose it is."""

from __future__ import annotations

import os
import signal

import pytest
import redis
import sample_app
from engine_support import StartCluster, children, expire, taker
from flask_background import FlaskCelery
from flask_background.base.keys import Keys
from flask_background.worker.request import BackgroundRequest
from sample_app import mailbox

#: The shortest lease that the settings allow, and a look for lost tasks each second.
QUICK = {
    "CELERY_VISIBILITY_TIMEOUT": 20,
    "CELERY_BROKER_TRANSPORT_OPTIONS": {"unacked_restore_interval": 1},
}
KEYS = Keys("sample_app:")


def test_a_message_that_was_taken_is_known_to_redis(
    client: FlaskCelery, store: redis.Redis
) -> None:
    client.submit(sample_app.nothing)
    with taker(client) as worker:
        message = worker.take()

        assert store.hkeys(KEYS.unacked) == [message.delivery_tag]
        assert store.llen(f"{KEYS.prefix}default") == 0
        message.ack()
        assert not store.exists(KEYS.unacked, KEYS.unacked_index)


def test_a_message_whose_lease_ended_goes_to_another_worker(
    client: FlaskCelery, store: redis.Redis
) -> None:
    future = client.submit(sample_app.nothing)
    with taker(client) as lost, taker(client) as other:
        first = lost.take()
        expire(store, first)
        other.sweep()
        second = other.take()

        assert second.headers["id"] == future.id
        assert second.delivery_info["redelivered"] is True
        # What the first one does now is no business of the second one's.
        first.ack()
        assert store.hkeys(KEYS.unacked) == [second.delivery_tag]


def test_a_lease_that_is_renewed_does_not_end(client: FlaskCelery, store: redis.Redis) -> None:
    client.submit(sample_app.nothing)
    with taker(client) as worker, taker(client) as other:
        message = worker.take()
        expire(store, message)
        worker.channel.qos.renew()
        other.sweep()

        assert store.llen(f"{KEYS.prefix}default") == 0
        assert not worker.channel.qos.missing


def test_a_worker_that_stood_still_learns_what_it_lost(
    client: FlaskCelery, store: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.submit(sample_app.nothing)
    with taker(client) as slow, taker(client) as other:
        message = slow.take()
        expire(store, message)
        other.sweep()
        slow.channel.qos.renew()
        # So far it may be a task whose end Redis knows, and the worker not quite yet.
        assert "given to other workers" not in caplog.text
        slow.channel.qos.renew()
        slow.channel.qos.renew()

        assert caplog.text.count("1 tasks were given to other workers meanwhile.") == 1


def test_a_worker_that_stood_still_does_not_begin_what_it_lost(
    client: FlaskCelery, store: redis.Redis
) -> None:
    client.submit(sample_app.nothing)
    with taker(client) as slow, taker(client) as other:
        message = slow.take()
        task = client.tasks[message.headers["task"]]
        request = BackgroundRequest(message, app=client, task=task, on_ack=message.ack_log_error)
        expire(store, message)
        other.sweep()
        assert not request.revoked()
        slow.channel.qos.renew()
        slow.channel.qos.renew()

        assert request.revoked()
        assert store.llen(f"{KEYS.prefix}default") == 1


def test_what_a_worker_puts_back_as_it_stops_counts_as_never_begun(
    client: FlaskCelery, store: redis.Redis
) -> None:
    client.submit(sample_app.nothing)
    with taker(client) as worker:
        worker.take()

    with taker(client) as other:
        assert "redelivered" not in other.take().delivery_info


def test_a_full_redis_still_hands_out_tasks(client: FlaskCelery, store: redis.Redis) -> None:
    client.submit(sample_app.nothing)
    with taker(client) as worker, taker(client) as other:
        store.config_set("maxmemory", "1mb")
        message = worker.take()
        worker.channel.qos.renew()
        store.config_set("maxmemory", "0")
        expire(store, message)
        store.config_set("maxmemory", "1mb")
        other.sweep()

        assert other.take().headers["id"] == message.headers["id"]


def test_urgent_messages_come_first(client: FlaskCelery) -> None:
    late = client.submit(sample_app.nothing, priority=9)
    urgent = client.submit(sample_app.nothing, priority=0)
    with taker(client) as worker:
        assert [worker.take().headers["id"] for _ in range(2)] == [urgent.id, late.id]


def test_the_task_of_a_machine_that_vanished_is_done_by_another_one(
    start: StartCluster, client: FlaskCelery
) -> None:
    lost = start({**QUICK, "CELERY_WORKERS": ["one"]}, "cluster", workers=1)
    future = client.submit(sample_app.hold, "vanished")
    with mailbox() as box:
        assert box.blpop(["started:vanished"], timeout=30)
        start({**QUICK, "CELERY_WORKERS": ["two"]}, "cluster", workers=2)
        worker = children(lost.pid)[0]
        for pid in (lost.pid, worker, *children(worker)):
            os.kill(pid, signal.SIGKILL)
        assert box.blpop(["started:vanished"], timeout=40)
        box.rpush("release:vanished", 1)
    assert future.result(timeout=20) == "vanished released"
