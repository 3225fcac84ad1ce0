"""Whoever can write to Redis and does not know SECRET_KEY runs nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import sample_app
from celery import Celery, chain, chord
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import Running, StartCluster, run, wait_until, workers_of
from flask_background import BackgroundError, FlaskCelery
from sample_app import celery, create_app

#: What a worker of these tests takes from a program that does not sign.
FOREIGN = "sample_app.double"
SETTINGS = {"CELERY_WORKERS": {"main": {}}, "CELERY_UNSIGNED_TASKS": [FOREIGN]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("signing") / "redis") as started:
        yield started


@pytest.fixture(scope="module")
def cluster(server: EmbeddedRedis) -> Iterator[Running]:
    with workers_of({**SETTINGS, "REDIS_URL": server.url}, 1) as running:
        yield running


@pytest.fixture
def sent(server: EmbeddedRedis) -> dict[str, Any]:
    """A good message as the application signs it, which no worker has seen."""
    with create_app({**SETTINGS, "REDIS_URL": server.url, "CELERY_KEY_PREFIX": "x:"}).app_context():
        celery.submit(sample_app.remember, "original")
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        message: dict[str, Any] = json.loads(str(client.lpop("x:default")))
    return message


@pytest.fixture
def signing(server: EmbeddedRedis, cluster: Running, sent: Any) -> Iterator[FlaskCelery]:
    with create_app({**SETTINGS, "REDIS_URL": server.url}).app_context():
        yield celery


@pytest.fixture
def queue(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        yield client


def put(queue: redis.Redis, message: dict[str, Any]) -> None:
    queue.lpush("sample_app:default", json.dumps(message))
    queue.lpush("sample_app:default.wake", 1)


def refused(signing: FlaskCelery, before: int) -> None:
    wait_until(lambda: signing.refused_messages() > before, "the message to be refused")


def test_what_the_application_sent_runs(
    signing: FlaskCelery, queue: redis.Redis, sent: Any
) -> None:
    put(queue, sent)
    assert queue.blpop(["ran:original"], timeout=20)


def _header(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda message: message["headers"].update({name: value})


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no signature": lambda message: message["properties"].pop("signature"),
    "an empty one": lambda message: message["properties"].update(signature=""),
    "one that is no text": lambda message: message["properties"].update(signature=[1]),
    "another task": _header("task", "sample_app.shared"),
    "another id": _header("id", "00000000-0000-0000-0000-000000000000"),
    "another body": lambda message: message.update(body=message["body"][:-4] + "AAA="),
    "another time": _header("eta", "2030-01-01T00:00:00+00:00"),
    "another end": _header("expires", "2020-01-01T00:00:00+00:00"),
    "another name": _header("shadow", "sample_app.other"),
    "other limits": _header("timelimit", [None, 9999]),
    "stamps": _header("stamps", {"by": "me"}),
    "one more header": _header("x", 1),
    "another content type": lambda message: message.update({"content-type": "made/up"}),
    "another encoding": lambda message: message["properties"].update(body_encoding=None),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_message_that_was_changed_does_not_run(
    forgery: str, signing: FlaskCelery, queue: redis.Redis, sent: dict[str, Any]
) -> None:
    before = signing.refused_messages()
    FORGERIES[forgery](sent)

    put(queue, sent)

    refused(signing, before)
    letter = signing.dead_letters()[0]
    assert letter.kind == "refused" and "no valid signature" in letter.reason
    assert queue.llen("ran:original") == 0
    info = signing.task_info(str(sent["headers"].get("id")))
    assert info is None or not info.running


def test_a_redelivered_message_is_still_good(
    signing: FlaskCelery, queue: redis.Redis, sent: dict[str, Any]
) -> None:
    sent["headers"]["redelivered"] = True
    sent["properties"]["delivery_info"]["redelivered"] = True
    put(queue, sent)
    assert queue.blpop(["ran:original"], timeout=20)


def test_retries_chains_and_chords_are_signed_by_the_workers(signing: FlaskCelery) -> None:
    double, shared = sample_app.double, sample_app.shared
    assert sample_app.third_time_lucky.delay().get(timeout=30) == 2
    assert chain(double.s(2), double.s())().get(timeout=30) == 8
    assert chord([double.s(1), double.s(2)])(shared.si(3)).get(timeout=30)[0] == 9


def test_a_plain_celery_program_starts_only_tasks_that_the_settings_name(
    signing: FlaskCelery, server: EmbeddedRedis
) -> None:
    plain = Celery(broker=server.url, set_as_current=False)
    plain.conf.broker_transport_options = {"global_keyprefix": "sample_app:"}
    plain.conf.update(task_default_queue="default")
    plain.conf.broker_transport = "kombu.transport.redis:Transport"  # not the one that signs
    before = signing.refused_messages()

    named = plain.send_task(FOREIGN, [4])
    plain.send_task("sample_app.shared", [4])
    plain.send_task("background.call", ["sample_app:remember", ["plain"], {}])
    # One that is let in starts nothing else when it ends.
    plain.send_task(FOREIGN, [4], link=plain.signature("sample_app.shared", immutable=True))

    wait_until(lambda: signing.refused_messages() >= before + 3, "three to be refused")
    assert signing.get(named.id).info is None or signing.get(named.id).result(timeout=20) == 8


def test_a_command_of_somebody_else_is_not_heard(
    signing: FlaskCelery, server: EmbeddedRedis, queue: redis.Redis, cluster: Running
) -> None:
    before = signing.refused_messages()
    with queue.pubsub() as listener:  # type: ignore[no-untyped-call]
        listener.psubscribe("*pidbox*")
        wait_until(lambda: listener.get_message(timeout=1), "the subscription")
        signing.control.enable_events()

        def command_heard() -> Any:
            message = listener.get_message(ignore_subscribe_messages=True, timeout=1)
            return message if message and message["data"] else None  # some only count listeners

        heard = wait_until(command_heard, "a command")
    command = json.loads(heard["data"])
    forged = copy.deepcopy(command)
    forged["properties"].pop("signature")

    queue.publish(heard["channel"], heard["data"])  # the same once more
    queue.publish(heard["channel"], json.dumps(forged))

    wait_until(lambda: signing.refused_messages() >= before + 2, "both to be dropped")
    assert signing.status() and "dropped" in cluster.output

    later = {**SETTINGS, "REDIS_URL": server.url, "CELERY_WORKERS": ["later"]}
    with workers_of(later, 2) as started_since:
        queue.publish(heard["channel"], heard["data"])
        started_since.wait_for("dropped")


def test_keys_are_rotated_without_losing_what_waits(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    with create_app({"REDIS_URL": own_redis.url, "SECRET_KEY": "old"}).app_context():
        future = celery.submit(sample_app.remember, "rotated")

    start({"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": ["old"]}, "cluster", workers=1)

    with create_app({"REDIS_URL": own_redis.url, "SECRET_KEY": "new"}).app_context():
        assert celery.get(future.id).result(timeout=30) == "rotated"


def test_only_an_operators_word_runs_what_was_refused(
    signing: FlaskCelery, server: EmbeddedRedis, queue: redis.Redis, sent: dict[str, Any]
) -> None:
    before = signing.refused_messages()
    del sent["properties"]["signature"]
    put(queue, sent)
    refused(signing, before)
    letter = signing.dead_letters()[0]
    settings = {**SETTINGS, "REDIS_URL": server.url}

    with pytest.raises(BackgroundError, match="no valid signature"):
        signing.run_again(letter.id)
    refusal = run(settings, "dead", "requeue", letter.id)
    assert refusal.returncode == 1 and "--unsigned" in refusal.stderr
    assert letter.id in run(settings, "dead", "list").stdout
    assert queue.llen("ran:original") == 0

    assert "sent again" in run(settings, "dead", "requeue", "--unsigned", letter.id).stdout
    assert queue.blpop(["ran:original"], timeout=20)


def test_a_forged_record_of_a_failed_task_is_not_sent(
    signing: FlaskCelery, queue: redis.Redis
) -> None:
    future = signing.submit(sample_app.fail)
    assert future.exception(timeout=20)
    record = json.loads(str(queue.hget("sample_app:background:failed", future.id)))
    record["again"] = json.dumps({"name": "sample_app.shared", "args": [1], "kwargs": {}})
    queue.hset("sample_app:background:failed", future.id, json.dumps(record))

    with pytest.raises(BackgroundError, match="not of this application"):
        signing.run_again(future.id)


def test_a_worker_refuses_a_second_application(signing: FlaskCelery) -> None:
    error = signing.submit(sample_app.make_another_application).exception(timeout=20)
    assert "This process is a worker" in str(error)


def test_a_process_that_was_just_forked_drops_commands_from_before(signing: FlaskCelery) -> None:
    """A place that is forked again has the cluster's memory, and must not obey its past."""
    assert signing.seal
    message: dict[str, Any] = {"headers": {}, "body": "shutdown", "properties": {}}
    signing.seal.sign_command(message)

    signing.after_fork()

    assert not signing.seal.is_fresh_command(message)
    signing.seal.sign_command(message)
    assert signing.seal.is_fresh_command(message)
