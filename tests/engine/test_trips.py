"""Each trip to Redis does all that belongs together: one to send a task, two to do it."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import sample_app
from celery.app.task import Context
from engine_support import StartCluster, children, expire, taker, wait_until
from flask_background import FlaskCelery

TASKS = 50
#: What a client says when it connects.
_GREETINGS = {"HELLO", "AUTH", "CLIENT", "SELECT"}


class Trips:
    """What clients asked Redis while somebody listened: address, and the words of the command."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[str]]] = []

    def kinds(self, but: set[str]) -> Counter[str]:
        """Count by command, or by the command of the script, without those of some addresses."""
        return Counter(
            words[3 + int(words[2])] if words[0] == "EVALSHA" else words[0]
            for address, words in self.seen
            if address not in but
        )


@contextmanager
def trips(server: redis.Redis) -> Iterator[Trips]:
    """Listen to all that Redis is asked; what a script does there is no trip."""
    found = Trips()
    listens: Any = server
    with listens.monitor() as monitor:

        def listen() -> None:
            for line in monitor.listen():
                if "the last one" in line["command"]:
                    return
                words = line["command"].split(" ")
                if line["client_type"] != "lua" and words[0] not in _GREETINGS:
                    address = f"{line['client_address']}:{line['client_port']}"
                    found.seen.append((address, words))

        listening = threading.Thread(target=listen, daemon=True)
        listening.start()
        try:
            yield found
        finally:
            server.echo("the last one")
            listening.join(20)


def addresses(server: redis.Redis) -> set[str]:
    clients: Any = server.client_list()
    return {one["addr"] for one in clients}


def test_a_task_is_sent_with_one_trip(client: FlaskCelery, store: redis.Redis) -> None:
    client.submit(sample_app.nothing)
    with trips(store) as seen:
        for _ in range(TASKS):
            client.submit(sample_app.nothing)
            sample_app.forgetful.delay("no result")

    assert seen.kinds(set()) == {"send": 2 * TASKS}


def test_a_task_is_done_with_two_trips(
    start: StartCluster, client: FlaskCelery, store: redis.Redis
) -> None:
    client.submit(sample_app.nothing)
    before = addresses(store)
    start({"CELERY_WORKERS": {"main": {"pool": "solo"}}}, "worker", workers=1)
    wait_until(client.task_statistics, "the first task")
    mine: Any = client.redis.client_info()

    def ended() -> bool:
        return sum(sum(one.ended.values()) for one in client.task_statistics()) > 2 * TASKS

    with trips(store) as seen:
        for _ in range(TASKS):
            client.submit(sample_app.nothing)
            sample_app.forgetful.delay("no result")
        wait_until(ended, "the tasks")

    kinds = seen.kinds({*before, mine["addr"]})
    assert kinds["store"] == 2 * TASKS
    # Before a worker waits (BRPOP) it has asked once in vain.
    assert kinds["take"] - kinds["BRPOP"] in range(2 * TASKS - 1, 2 * TASKS + 2)
    # One of the two tasks pushes something itself; all else is done now and then.
    for kind in set(kinds) - {"store", "take", "BRPOP", "RPUSH"}:
        assert kinds[kind] < TASKS / 2, kinds


def finish(celery: FlaskCelery, message: Any, **request: Any) -> None:
    """Store the result of a message's task as the tracer does."""
    context = Context(message.headers, properties=message.properties, **request)
    celery.backend.mark_as_done(message.headers["id"], 3, context)


def test_a_result_takes_its_message_along(client: FlaskCelery, store: redis.Redis) -> None:
    future = client.submit(sample_app.add, 1, 2)
    with taker(client) as worker:
        message = worker.take()
        info = client.task_info(future.id)
        assert info and (info.state, info.queue) == ("STARTED", "default")

        finish(client, message)

        assert not store.exists(client.keys.unacked, client.keys.unacked_index)
        assert future.result(timeout=20) == 3
        with trips(store) as seen:
            message.ack()
        assert not seen.seen


def test_a_part_of_a_chord_whose_worker_dies_before_it_is_counted_runs_again(
    client: FlaskCelery, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(client.backend, "on_chord_part_return", die)
    future = client.submit(sample_app.add, 1, 2)
    with taker(client) as lost, taker(client) as other:
        message = lost.take()
        with pytest.raises(InterruptedError):
            finish(client, message, chord={"task": "sample_app.add"})
        assert future.result(timeout=20) == 3
        expire(store, message)
        other.sweep()

        assert other.take().headers["id"] == future.id


def test_a_state_that_a_task_stores_itself_is_not_its_end(
    client: FlaskCelery, store: redis.Redis
) -> None:
    client.submit(sample_app.nothing)
    with taker(client) as worker:
        message = worker.take()
        context = Context(message.headers, properties=message.properties)
        client.backend.store_result(message.headers["id"], 1, "SUCCESS", request=context)

        assert store.hkeys(client.keys.unacked) == [message.delivery_tag]


def test_a_task_for_later_is_held_by_nobody_and_survives_its_worker(
    start: StartCluster, client: FlaskCelery, store: redis.Redis
) -> None:
    lost = start({"CELERY_WORKERS": 1}, "cluster", "--no-scheduler", workers=1)
    future = client.submit(sample_app.remember, "later", countdown=3)
    assert client.submit(sample_app.add, 1).result(timeout=20) == 1  # it takes messages
    assert client.queue_lengths() == {"default": 1}
    worker = children(lost.pid)[0]
    for pid in (lost.pid, worker, *children(worker)):
        os.kill(pid, signal.SIGKILL)

    start({"CELERY_WORKERS": ["other"]}, "cluster", "--no-scheduler")

    assert future.result(timeout=20) == "later"  # not after a lease has ended
    assert client.queue_lengths() == {"default": 0}
    assert store.llen("ran:later") == 1


def test_a_task_for_later_that_was_cancelled_does_not_run(
    start: StartCluster, client: FlaskCelery, store: redis.Redis
) -> None:
    future = client.submit(sample_app.remember, "cancelled", countdown=100)
    assert future.cancel()

    start({"CELERY_WORKERS": 1}, "cluster", "--no-scheduler", workers=1)

    wait_until(lambda: client.queue_lengths() == {"default": 0}, "it to be dropped")
    assert client.submit(sample_app.add, 1).result(timeout=20) == 1
    assert future.cancelled()
    assert not store.exists("ran:cancelled", client.keys.unacked)


def test_a_message_that_is_early_is_kept_for_its_time(
    client: FlaskCelery, store: redis.Redis
) -> None:
    """As the version before sends them, and other programs."""
    future = client.submit(sample_app.nothing, countdown=100)
    popped: Any = store.zpopmin(client.keys.delayed("default"))
    name, text = popped[0][0].split("\n", 1)
    store.lpush(name, text.replace('"due": true, ', "").replace(', "due": true', ""))
    follows = client.submit(sample_app.nothing)

    with taker(client) as worker:
        assert worker.take().headers["id"] == follows.id

    assert client.queue_lengths() == {"default": 2}
    assert store.zcard(client.keys.delayed("default")) == 1
    info = client.task_info(future.id)
    assert info and info.state == "PENDING"


def test_what_is_for_later_can_be_dropped(client: FlaskCelery) -> None:
    client.submit(sample_app.nothing)
    client.submit(sample_app.nothing, countdown=100)

    assert client.control.purge() == 2
    assert client.queue_lengths() == {"default": 0}
