"""Asking the workers, and telling them what to do."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster, children, wait_until
from flask_background import BackgroundError, FlaskCelery
from sample_app import celery, create_app


def test_status_names_every_worker(live: FlaskCelery) -> None:
    status = live.status(timeout=3)

    assert {name.partition("@")[0] for name in status} == {"main", "main.2", "mail"}
    assert set(status.values()) == {"OK"}


def test_workers_answer_what_inspect_asks(live: FlaskCelery, box: redis.Redis) -> None:
    running = live.submit(sample_app.hold, "inspected")
    box.blpop(["started:inspected"], timeout=20)
    waiting = live.submit(sample_app.nothing, countdown=200)
    main = next(beat.name for beat in live.heartbeats() if beat.name.startswith("main@"))

    def answers(command: str) -> list[Any]:
        # It returns with the answers; the time is for a machine that has much to do.
        return list(getattr(live.inspect, command)(destination=[main], timeout=20).values())

    def ask(command: str) -> Any:
        return answers(command)[0]

    def ids(command: str) -> list[str]:
        tasks = [task for answer in answers(command) for task in answer]
        return [task.get("id") or task["request"]["id"] for task in tasks]

    assert answers("ping") == [{"ok": "pong"}] * 2
    assert ids("active") == [running.id]
    assert ids("scheduled") == []  # what is for later waits in Redis
    assert live.queue_lengths()["default"] >= 1
    assert running.id not in ids("reserved")
    assert "sample_app.calls_another" in ask("registered")
    assert ask("stats")["pool"]["max-concurrency"] == 1
    assert [queue["name"] for queue in ask("active_queues")] == ["default"]
    waiting.cancel()
    wait_until(lambda: waiting.id in ask("revoked"), "the worker to hear of it")
    box.rpush("release:inspected", "go")
    running.result(timeout=20)


def test_threads_that_cancel_at_once_do_not_wait_for_each_other(own_redis: EmbeddedRedis) -> None:
    """A command needs one connection of the pool, not a second one while it holds the first."""
    app = create_app({"REDIS_URL": own_redis.url, "CELERY_BROKER_POOL_LIMIT": 1})
    ended = threading.Event()

    def cancel() -> None:
        with app.app_context():
            celery.submit(sample_app.nothing).cancel()
            celery.control.enable_events()
        ended.set()

    threading.Thread(target=cancel, daemon=True).start()

    assert ended.wait(20)


def test_an_unknown_question_is_an_error(live: FlaskCelery) -> None:
    with pytest.raises(AttributeError, match="no command 'mood'"):
        live.inspect.mood()


def test_a_command_returns_what_each_worker_answered(live: FlaskCelery) -> None:
    mail, other, main = sorted(live.status())
    done = {"ok": "new rate limit set successfully"}

    everybody = {main: done, other: done, mail: done}
    assert live.control.rate_limit("sample_app.double", "99/s") == everybody
    both = live.control.rate_limit("sample_app.double", "99/s", destination=main)
    assert both == {main: done, other: done}
    assert live.control.rate_limit("sample_app.double", "99/s", destination=mail) == {mail: done}
    assert live.inspect["ping"](destination=mail) == {mail: {"ok": "pong"}}
    with_reply = live.control.rate_limit("sample_app.double", 0, reply=True)
    assert sorted(list(answer) for answer in with_reply) == [[mail], [other], [main]]


def test_a_command_that_is_refused_is_an_error(live: FlaskCelery) -> None:
    with pytest.raises(BackgroundError, match=r"autoscale was refused by .*Autoscale not enabled"):
        live.control.autoscale(1, 5)


def test_heartbeats_and_queue_lengths(live: FlaskCelery, box: redis.Redis) -> None:
    blocker = live.submit(sample_app.hold, "lengths", queue="slow")
    box.blpop(["started:lengths"], timeout=20)
    more = live.map(sample_app.nothing, [], [], [], [], queue="slow")

    beats = {beat.name.partition("@")[0]: beat for beat in live.heartbeats()}
    assert beats["mail"].queues == ("mail", "slow")
    assert beats["main"].alive
    wait_until(lambda: live.queue_lengths()["slow"] >= 3, "a queue")
    box.rpush("release:lengths", "go")
    more.result(timeout=20)
    assert blocker.done()
    # What other tests cancelled before its time goes within a second.
    empty = {"default": 0, "mail": 0, "slow": 0}
    wait_until(lambda: live.queue_lengths() == empty, "the queues to be empty")


def test_pools_change_their_size_and_workers_stop(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    settings = {"REDIS_URL": own_redis.url}
    cluster = start(settings, "cluster", "--no-scheduler", workers=1)
    with create_app(settings).app_context():

        def has(number: int) -> bool:
            return len(children(cluster.pid)) == len(celery.heartbeats()) == number

        assert has(1)
        celery.control.pool_grow(2)
        wait_until(lambda: has(3), "two more places")
        celery.control.pool_shrink(1)
        wait_until(lambda: has(2), "one place less")
        assert list(celery.control.pool_restart().values()) == [{"ok": "reload started"}] * 2
        assert celery.submit(sample_app.add, 1, 2).result(timeout=20) == 3
        celery.control.shutdown()
    # All its workers were told to stop, so the cluster has nothing left to do.
    assert cluster.wait() == 0


def test_autoscale_takes_its_sizes_in_either_order(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    settings = {
        "REDIS_URL": own_redis.url,
        "CELERY_WORKERS": {"main": {"autoscale": "2,1"}},
    }
    start(settings, "cluster", "--no-scheduler", workers=1)
    with create_app(settings).app_context():
        for sizes in ((1, 5), (5, 1)):
            answers = celery.control.autoscale(*sizes)
            assert list(answers.values()) == [{"ok": "autoscale now max=5 min=1"}]
