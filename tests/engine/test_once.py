"""Work that must not be done twice: `unique_by` and `no_overlap`."""

from __future__ import annotations

import threading

import pytest
from flask_background import FlaskCelery, no_overlap, unique_by
from redis.exceptions import LockError
from sample_app import create_app


def test_a_second_call_returns_what_the_first_one_did(client: FlaskCelery) -> None:
    calls = []

    @unique_by("order")
    def pay(order: int, note: str = "") -> list[object]:
        calls.append(order)
        return [order, note]

    assert pay(1, note="first") == [1, "first"]
    assert pay(1, note="second") == [1, "first"]
    assert pay(2) == [2, ""]
    assert calls == [1, 2]


def test_a_call_that_failed_does_not_count(client: FlaskCelery) -> None:
    calls = []

    @unique_by("order")
    def pay(order: int) -> int:
        calls.append(order)
        if len(calls) == 1:
            raise ValueError("no money")
        return order

    with pytest.raises(ValueError, match="no money"):
        pay(1)
    assert pay(1) == 1


def test_a_parameter_that_is_not_there_is_refused() -> None:
    with pytest.raises(TypeError, match="no parameter 'order'"):

        @unique_by("order")
        def pay(other: int) -> None: ...


def test_a_twin_at_work_is_waited_for(client: FlaskCelery) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @unique_by("order")
    def pay(order: int) -> int:
        begun.set()
        go_on.wait(20)
        return order

    def first() -> None:
        with client.flask_app.app_context():
            pay(1)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(20)
    with pytest.raises(LockError, match="at work"):
        pay(1)
    go_on.set()
    thread.join(20)
    assert pay(1) == 1


def test_a_function_does_not_overlap_itself(client: FlaskCelery) -> None:
    depth = []

    @no_overlap
    def work() -> str:
        depth.append(work())
        return "done"

    assert work() == "done"
    assert depth == [None]
    assert client.redis.keys(client.key("background:lock:*")) == []


def test_a_lock_is_renewed_and_frees_itself(client: FlaskCelery) -> None:
    @no_overlap
    def work() -> int:
        (key,) = client.redis.keys(client.key("background:lock:*"))
        lifetime: int = client.redis.pttl(key)
        return lifetime

    lifetime = work()
    assert lifetime is not None
    assert 0 < lifetime <= 30_000


def test_eager_tasks_need_no_redis() -> None:
    with create_app({"CELERY_TASK_ALWAYS_EAGER": True}).app_context():
        assert no_overlap(lambda: 1)() == 1
