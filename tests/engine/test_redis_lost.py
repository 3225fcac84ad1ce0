"""Redis that is away: a request hears of it within a second, and a worker outlives it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import redis
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster, listeners, wait_until
from flask import Flask
from flask_background import BrokerUnavailable, FlaskCelery, Future
from kombu import Consumer, Message
from sample_app import celery, create_app


@pytest.fixture(params=["refused", "black hole"])
def no_redis(request: pytest.FixtureRequest) -> Iterator[FlaskCelery]:
    """The sample application with a port where nobody listens, or nobody ever answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "black hole":
            listening.listen(100)
        port = listening.getsockname()[1]
        with create_app({"REDIS_URL": f"redis://127.0.0.1:{port}/0"}).app_context():
            yield celery


def test_whoever_sends_without_redis_hears_of_it(no_redis: FlaskCelery) -> None:
    with pytest.raises(BrokerUnavailable, match="Redis did not take the task sample_app"):
        no_redis.submit(sample_app.add, 1)
    with pytest.raises(BrokerUnavailable):
        sample_app.double.delay(1)
    with pytest.raises(BrokerUnavailable):
        sample_app.forgetful.delay("no result to announce")
    with pytest.raises(BrokerUnavailable):
        no_redis.map(sample_app.add, [1], [2])


def test_whoever_looks_without_redis_hears_of_it(no_redis: FlaskCelery) -> None:
    future = no_redis.get("some-id")

    ask = (future.done, future.running, future.cancelled, future.cancel, no_redis.status)
    for look in (*ask, future.result, future.exception, no_redis.control.pool_grow):
        with pytest.raises(BrokerUnavailable, match="Redis does not answer"):
            look()
    with pytest.raises(BrokerUnavailable):
        no_redis.inspect.ping()
    for read in (no_redis.heartbeats, no_redis.queue_lengths, no_redis.schedule_status):
        with pytest.raises(redis.RedisError):
            read()


def test_whoever_waits_for_a_task_of_his_own_waits_for_redis_too(no_redis: FlaskCelery) -> None:
    with pytest.raises(TimeoutError):
        Future(no_redis, "some-id", "sample_app.add").result(timeout=0.2)


def test_the_same_process_goes_on_when_redis_is_back(tmp_path: Path, start: StartCluster) -> None:
    """No connection, future or listener of the time before is in the way."""
    first = EmbeddedRedis(tmp_path / "later")
    first.start()
    with create_app({"REDIS_URL": first.url}).app_context():
        waiting = celery.submit(sample_app.add, 1, 2)
        ended = threading.Event()
        waiting.add_done_callback(lambda _: ended.set())
        first.stop()
        with pytest.raises(BrokerUnavailable):
            celery.submit(sample_app.add, 1)
        first.start()  # the same port, and the data as it was
        try:
            assert celery.submit(sample_app.nothing).known
            start({"REDIS_URL": first.url}, "cluster", "--no-scheduler")
            assert ended.wait(30)
            assert waiting.result() == 3
        finally:
            first.stop()


def test_a_connection_that_died_with_redis_is_replaced_before_a_task_is_sent(
    tmp_path: Path,
) -> None:
    server = EmbeddedRedis(tmp_path / "restarted")
    server.start()
    with create_app({"REDIS_URL": server.url}).app_context():
        celery.submit(sample_app.nothing)
        server.stop()
        server.start()
        try:
            celery.submit(sample_app.nothing)

            assert celery.queue_lengths() == {"default": 2}  # and none was sent twice
        finally:
            server.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_task_that_redis_does_not_confirm_is_not_sent_twice(client: FlaskCelery) -> None:
    client.submit(sample_app.nothing)
    information: Any = client.redis.info()
    os.kill(information["process_id"], signal.SIGSTOP)
    try:
        with pytest.raises(BrokerUnavailable):
            client.submit(sample_app.nothing)
    finally:
        os.kill(information["process_id"], signal.SIGCONT)

    client.submit(sample_app.nothing)
    assert client.queue_lengths()["default"] in (2, 3)


def test_nobody_goes_on_listening_to_a_dead_redis_for_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedRedis(tmp_path / "later")
    server.start()
    with create_app({"REDIS_URL": server.url}).app_context():
        future = celery.submit(sample_app.nothing, countdown=100)
        with pytest.raises(TimeoutError):
            future.result(timeout=0.1)
        (listening,) = listeners()
        assert future.cancel()
        with pytest.raises(CancelledError):
            celery.get(future.id).result(timeout=20)

        server.stop()

        listening.join(20)
        assert not listening.is_alive()
        assert caplog.text.count("to hear of tasks that end") == 1


def test_a_worker_waits_for_redis_to_send_a_task(tmp_path: Path) -> None:
    """What would be lost is the next try of a task that is at work."""
    server = EmbeddedRedis(tmp_path / "later")
    server.start()
    app = Flask("patient")
    app.config.update(REDIS_URL=server.url, SECRET_KEY="key")
    patient = FlaskCelery(app)
    patient.be_patient()
    task = patient.task(sample_app.nothing)
    server.stop()

    sending = threading.Thread(
        target=task.apply_async, kwargs={"task_id": "sent-late"}, daemon=True
    )
    sending.start()
    try:
        sending.join(1)  # it must not have given up by now
        assert sending.is_alive()
        server.start()
        sending.join(30)
        assert not sending.is_alive()
        assert patient.queue_lengths() == {"default": 1}
    finally:
        server.stop()


def test_a_worker_outlives_redis_and_the_task_ends(tmp_path: Path, start: StartCluster) -> None:
    """With two places and a task at work."""
    server = EmbeddedRedis(tmp_path / "lost")
    server.start()
    settings = {
        "REDIS_URL": server.url,
        "CELERY_WORKERS": {"main": {"concurrency": 2}},
        "CELERY_TASK_TIME_LIMIT": 30,
        "CELERY_TASK_SOFT_TIME_LIMIT": 25,
    }
    cluster = start(settings, "cluster", "--no-scheduler", workers=2)
    try:
        with create_app(settings).app_context():
            before = [beat.pid for beat in celery.heartbeats()]
            ledger = tmp_path / "ledger"
            future = celery.submit(sample_app.note_twice, str(ledger), 3)
            wait_until(lambda: ledger.exists(), "the task to begin")

            server.stop()
            cluster.wait_for("Connection to broker lost")
            server.start()

            assert celery.get(future.id).result(timeout=55) == "written"
            assert celery.submit(sample_app.add, 1, 2).result(timeout=20) == 3
            assert [beat.pid for beat in celery.heartbeats()] == before
            assert "ended with exit code" not in cluster.output
    finally:
        cluster.end()  # first, as it would wait for Redis to take its leave
        server.stop()


def test_a_task_that_cannot_be_acknowledged_does_not_count_as_held(client: FlaskCelery) -> None:
    """A worker may hold few: with one left over it would take no other, for ever."""
    client.submit(sample_app.nothing)
    server = client.redis.info()["process_id"]
    taken: list[Message] = []
    with client.connection_for_read() as connection:
        channel: Any = connection.default_channel
        with Consumer(channel, [client.amqp.queues["default"]], on_message=taken.append):
            while not taken:
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=1)
            os.kill(server, signal.SIGSTOP)
            try:
                taken[0].ack_log_error(logging.getLogger(), channel.connection_errors)
                assert channel.qos.held == {}
            finally:
                os.kill(server, signal.SIGCONT)
