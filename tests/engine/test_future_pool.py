"""Pools: several futures asked as one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
import sample_app
from flask_background import FlaskCelery, FuturePool


def test_a_pool_is_a_row_of_futures(either: FlaskCelery) -> None:
    first, second = (either.submit(sample_app.add, number) for number in (1, 2))
    pool = FuturePool([first])

    pool.add(second)

    assert list(pool) == [first, second]
    assert len(pool) == 2
    assert pool[1] is second
    assert pool.result(timeout=20) == [1, 2]
    assert pool.exception(timeout=20) == [None, None]
    assert (pool.done(), pool.running(), pool.cancelled()) == (True, False, False)
    assert pool.state == pool.status == "SUCCESS"
    with pytest.raises(TypeError, match="A pool holds futures"):
        pool.add("nothing")  # type: ignore[arg-type]


def test_an_empty_pool_has_ended(eager: FlaskCelery) -> None:
    pool = FuturePool()

    assert (pool.result(), pool.done(), pool.running(), pool.state) == ([], True, False, "SUCCESS")


def test_a_failed_task_shows_in_the_pool(either: FlaskCelery) -> None:
    pool = FuturePool([either.submit(sample_app.add, 1), either.submit(sample_app.fail, "no")])

    with pytest.raises(ValueError, match="no"):
        pool.result(timeout=20)
    nothing, error = pool.exception(timeout=20)
    assert nothing is None
    assert isinstance(error, ValueError)
    assert pool.state == "FAILURE"


def test_the_state_of_a_pool_is_that_of_the_one_furthest_from_its_end(
    live: FlaskCelery, box: redis.Redis
) -> None:
    ended = live.submit(sample_app.nothing)
    ended.result(timeout=20)
    running = live.submit(sample_app.hold, "pooled")
    box.blpop(["started:pooled"], timeout=20)
    waiting = live.submit(sample_app.nothing, countdown=200)
    pool = FuturePool([ended, running, waiting])

    assert (pool.state, pool.running(), pool.done()) == ("PENDING", True, False)
    with pytest.raises(TimeoutError):
        pool.result(timeout=0.1)
    waiting.cancel()
    assert (pool.state, pool.cancelled()) == ("STARTED", True)
    box.rpush("release:pooled", "go")
    assert running.result(timeout=20)
    assert (pool.state, pool.done()) == ("REVOKED", True)


def test_a_pool_cancels_all_that_has_not_ended(live: FlaskCelery) -> None:
    pool = FuturePool(live.submit(sample_app.nothing, countdown=200) for _ in range(3))

    assert pool.cancel()

    assert all(future.cancelled() for future in pool)
    assert FuturePool([live.submit(sample_app.nothing)]).result(timeout=20) == [None]


def test_a_pool_calls_back_for_each(either: FlaskCelery) -> None:
    pool = either.map(sample_app.add, [1], [2])
    called = threading.Semaphore(0)
    seen: list[Any] = []

    def callback(future: Any) -> None:
        seen.append(future)
        called.release()

    pool.add_done_callback(callback)

    assert all(called.acquire(timeout=20) for _ in pool)
    assert set(seen) == set(pool)
