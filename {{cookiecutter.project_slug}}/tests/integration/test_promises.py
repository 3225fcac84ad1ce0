"""What the engine promises, shown on real workers: look here first after an upgrade of Celery.

The tests have a Redis and workers of their own; the workers load this file as their application.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from celery import shared_task
from devtools.dev.redis_server import EmbeddedRedis
from flask import Flask
from flask_background import BrokerUnavailable, GivenUp

from {{ cookiecutter.project_slug }} import create_app as create_real_app
from {{ cookiecutter.project_slug }}.extensions import celery
from {{ cookiecutter.project_slug }}.main.words import duration

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it kills by a signal")


def create_app() -> Flask:
    """The application with a short schedule, which gives a task up after two deliveries."""
    settings = {
        "REDIS_URL": os.environ["REDIS_URL"],
        "CELERY_TASK_ALWAYS_EAGER": False,
        "CELERY_MAX_DELIVERIES": 2,
        "CELERY_BEAT_SCHEDULE": {"tick": {"task": "test.tick", "schedule": 1.0}},
    }
    return create_real_app("testing", settings)


@shared_task(name="test.tick")
def tick() -> None:
    count("ticks")


@shared_task(name="test.begin")
def begin(seconds: float = 0) -> str:
    """Note which process began, and end after some time."""
    celery.redis.rpush(celery.key("begun"), os.getpid())
    time.sleep(seconds)
    return "ended"


@shared_task(name="test.die")
def die() -> None:
    """End the process that runs this, as the kernel does with one that takes all memory."""
    count("deaths")
    os.kill(os.getpid(), signal.SIGKILL)


def count(name: str) -> None:
    celery.redis.incr(celery.key(name))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("promises") / "redis") as server:
        yield server


@pytest.fixture(scope="module")
def cluster(
    server: EmbeddedRedis, start_worker: Callable[..., AbstractContextManager[object]]
) -> Iterator[None]:
    here = Path(__file__)
    path = os.pathsep.join((str(here.parent), str(here.parents[2])))
    with start_worker(server.url, FLASK_APP=here.stem, PYTHONPATH=path):
        yield


@pytest.fixture(autouse=True)
def sender(server: EmbeddedRedis, cluster: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is an application that sends tasks to the workers."""
    monkeypatch.setenv("REDIS_URL", server.url)
    with create_app().app_context():
        celery.redis.delete(celery.key("begun"))
        yield


def wait_for[T](what: Callable[[], T]) -> T:
    """Return what ``what`` returns as soon as it is true; fail after half a minute."""
    ends = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < ends, "It did not come."
        time.sleep(0.05)
    return found


def begun() -> list[int]:
    """The processes in which ``begin`` began so far."""
    return [int(pid) for pid in celery.redis.lrange(celery.key("begun"), 0, -1)]


def test_what_is_submitted_is_done_and_its_result_comes_back() -> None:
    assert celery.submit(duration, 120).result(timeout=30) == "2 min"
    assert celery.map(duration, [60], [120]).result(timeout=30) == ["1 min", "2 min"]


def test_what_a_task_raises_is_raised_where_its_result_is_asked_for() -> None:
    with pytest.raises(TypeError):
        celery.submit(duration, "no number").result(timeout=30)


def test_a_task_whose_process_is_killed_runs_again() -> None:
    future = celery.submit(begin, 1)
    (pid,) = wait_for(begun)
    os.kill(pid, signal.SIGKILL)

    assert future.result(timeout=30) == "ended"
    assert len(begun()) == 2


def test_a_task_that_ends_its_process_each_time_becomes_a_dead_letter() -> None:
    future = celery.submit(die)

    assert isinstance(future.exception(timeout=60), GivenUp)
    assert celery.redis.get(celery.key("deaths")) == "2"
    (letter,) = celery.dead_letters()
    assert (letter.id, letter.name) == (future.id, "test.die")


def test_the_schedule_ticks() -> None:
    before = int(celery.redis.get(celery.key("ticks")) or 0)

    wait_for(lambda: int(celery.redis.get(celery.key("ticks")) or 0) > before)


def test_a_cancelled_task_ends_and_a_waiting_one_never_runs() -> None:
    running, waiting = celery.submit(begin, 600), celery.submit(begin)
    wait_for(begun)

    assert waiting.cancel() and running.cancel()

    assert wait_for(lambda: running.state == waiting.state == "REVOKED")
    assert celery.submit(duration, 60).result(timeout=30) == "1 min"
    assert len(begun()) == 1


def test_after_a_restart_of_redis_all_goes_on_and_nothing_is_lost(server: EmbeddedRedis) -> None:
    running = celery.submit(begin, 2)
    wait_for(begun)
    waiting = celery.submit(duration, 120)

    server.stop()
    with pytest.raises(BrokerUnavailable):
        celery.submit(duration, 60)
    server.start()

    assert running.result(timeout=60) == "ended"
    assert waiting.result(timeout=60) == "2 min"
