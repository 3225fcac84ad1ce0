"""Futures: what they know, how one waits for them, and that they are real ones."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from concurrent.futures import FIRST_COMPLETED, CancelledError
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import listeners, wait_until
from flask import current_app
from flask_background import BackgroundError, FlaskCelery, Future, TaskError, UnknownTask
from flask_background.sending.listener import ResultListener
from sample_app import celery, create_app


def test_a_future_tells_the_end_of_its_task(either: FlaskCelery) -> None:
    future = either.submit(sample_app.add, 1, 2)

    assert future.result(timeout=20) == 3
    assert future.exception(timeout=20) is None
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert future.state == future.status == "SUCCESS"
    assert future.info is not None
    assert (future.info.id, future.info.result, future.info.done) == (future.id, 3, True)
    assert future.date_done is not None
    assert future.known
    assert (future.ready(), future.successful(), future.failed()) == (True, True, False)
    assert future.task_id == future.id
    assert future.worker


def test_a_future_follows_its_task(live: FlaskCelery, box: redis.Redis) -> None:
    future = live.submit(sample_app.hold, "followed")
    box.blpop(["started:followed"], timeout=20)

    assert future.state == "STARTED"
    assert (future.running(), future.done()) == (True, False)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.1)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0.1)

    box.rpush("release:followed", "go")
    assert future.result(timeout=20) == "followed released"
    assert (future.running(), future.done()) == (False, True)


def test_a_task_that_waits_is_known_and_does_not_run(live: FlaskCelery) -> None:
    future = live.submit(sample_app.nothing, countdown=200)

    assert (future.running(), future.done(), future.known) == (False, False, True)
    assert future.state == "PENDING"
    assert future.cancel()


def test_an_id_that_was_never_issued_is_told_from_one_that_waits(either: FlaskCelery) -> None:
    unknown = either.get("no-such-id")

    assert (unknown.known, unknown.running(), unknown.info) == (False, False, None)
    assert unknown.state == "UNKNOWN"
    assert not unknown.cancel()
    with pytest.raises(UnknownTask, match="No task has the id 'no-such-id'"):
        unknown.result(timeout=20)


@pytest.mark.parametrize(
    ("function", "kind"),
    [(sample_app.fail, ValueError), (sample_app.fail_own, sample_app.OwnError)],
)
def test_an_exception_arrives_with_its_type_and_message(
    either: FlaskCelery, function: Any, kind: type[Exception]
) -> None:
    future = either.submit(function, "out of paper")

    with pytest.raises(kind, match=r"^out of paper$"):
        future.result(timeout=20)
    assert type(future.exception()) is kind
    assert (future.state, future.done(), future.running()) == ("FAILURE", True, False)
    assert future.info is not None
    assert future.info.error == f"{kind.__name__}: out of paper"
    assert future.info.error_type == kind.__name__
    assert "out of paper" in str(future.traceback)


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (sample_app.fail_picky, ["made up"], "PickyError"),
        (sample_app.fail_unknown, [], "MadeUpError"),
    ],
)
def test_an_exception_that_cannot_be_made_again_has_a_stand_in(
    either: FlaskCelery, function: Any, args: list[str], name: str
) -> None:
    error = either.submit(function, *args).exception(timeout=20)

    assert isinstance(error, TaskError)
    assert error.type_name == name
    assert str(error) == f"{name}: made up"


@pytest.mark.parametrize(
    ("kind", "type_name", "text"),
    [
        ("silent", "SilentError", "SilentError: code 7"),
        ("lookup", "SilentLookupError", "SilentLookupError: code 7"),
        ("group", "ExceptionGroup", "two failed: ValueError('one'), OSError('two')"),
        ("exit", "SystemExit", "SystemExit: out of paper"),
    ],
)
def test_what_a_task_raised_can_be_read(
    either: FlaskCelery, kind: str, type_name: str, text: str
) -> None:
    future = either.submit(sample_app.raise_one, kind)
    error = future.exception(timeout=20)

    assert isinstance(error, TaskError)
    assert error.type_name == type_name
    assert str(error).endswith(text)
    assert future.info is not None
    assert future.info.error == str(error)
    assert future.info.error_type == type_name


def test_a_task_that_interrupts_itself_fails(live: FlaskCelery) -> None:
    future = live.submit(sample_app.raise_one, "interrupt")

    with pytest.raises(TaskError, match="KeyboardInterrupt: by itself"):
        future.result(timeout=20)


def test_a_missing_file_is_named(either: FlaskCelery) -> None:
    error = either.submit(sample_app.open_file, "/no/such/file").exception(timeout=20)

    assert isinstance(error, FileNotFoundError)
    assert (error.filename, str(error)) == (
        "/no/such/file",
        "[Errno 2] No such file or directory: '/no/such/file'",
    )


def test_results_have_the_types_that_the_task_returned(either: FlaskCelery) -> None:
    future = either.submit(sample_app.values)

    assert future.result(timeout=20) == sample_app.values()
    assert either.get(future.id).result(timeout=20) == sample_app.values()
    assert future.info is not None
    assert future.info.result == sample_app.values()
    assert future.info.plain_result["day"] == "2026-11-20"


def test_an_exception_has_the_types_too(either: FlaskCelery) -> None:
    error = either.submit(sample_app.raise_one, "decimal").exception(timeout=20)

    assert error is not None
    assert error.args == ("too much", Decimal("1.10"))


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("set", "The result is a set, which JSON cannot carry"),
        ("type", "A dict with the keys '__type__' and '__value__' cannot"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_task(
    either: FlaskCelery, what: str, why: str
) -> None:
    with pytest.raises(BackgroundError, match=why):
        either.submit(sample_app.make, what).result(timeout=20)


def test_a_result_over_the_limit_fails_the_task(either: FlaskCelery) -> None:
    most = 256 * 1024 - 2
    repeated = either.submit(sample_app.repeat, "x", most)

    assert len(repeated.result(timeout=20)) == most
    with pytest.raises(BackgroundError, match=r"bytes as JSON.*CELERY_MAX_RESULT_BYTES"):
        either.submit(sample_app.repeat, "x", most + 1).result(timeout=20)


def test_a_waiting_task_that_is_cancelled_never_runs(live: FlaskCelery, box: redis.Redis) -> None:
    blocker = live.submit(sample_app.hold, "cancel-line", queue="slow")
    box.blpop(["started:cancel-line"], timeout=20)
    future = live.submit(sample_app.remember, "cancelled", queue="slow")
    last = live.submit(sample_app.nothing, queue="slow")

    assert future.cancel()

    box.rpush("release:cancel-line", "go")
    assert last.result(timeout=20) is None
    assert blocker.result(timeout=20)
    assert box.exists("ran:cancelled") == 0
    assert (future.cancelled(), future.done(), future.state) == (True, True, "REVOKED")
    with pytest.raises(CancelledError):
        future.result(timeout=20)
    with pytest.raises(CancelledError):
        live.get(future.id).exception(timeout=20)


def test_a_running_task_that_is_cancelled_is_stopped(live: FlaskCelery, box: redis.Redis) -> None:
    future = live.submit(sample_app.hold, "stopped")
    box.blpop(["started:stopped"], timeout=20)
    other = live.get(future.id)

    assert future.cancel()

    with pytest.raises(CancelledError):
        other.result(timeout=20)
    assert other.cancelled()
    assert box.exists("ended:stopped") == 0
    assert future.cancel(wait=True, timeout=20)
    assert live.submit(sample_app.nothing).result(timeout=20) is None


def test_what_has_ended_cannot_be_cancelled(either: FlaskCelery) -> None:
    future = either.submit(sample_app.nothing)
    future.result(timeout=20)

    assert not future.cancel()
    assert not future.cancelled()


def test_a_callback_is_called_by_itself(live: FlaskCelery) -> None:
    called = threading.Event()
    seen: list[Any] = []

    def callback(future: Future) -> None:
        seen.append((future, future.result()))
        called.set()

    future = live.submit(sample_app.add, 1, 2)
    future.add_done_callback(callback)  # type: ignore[arg-type]

    assert called.wait(20)
    assert seen == [(future, 3)]


def test_whoever_waited_may_go_on_before_the_callbacks(live: FlaskCelery) -> None:
    allowed, called = threading.Event(), threading.Event()
    future = live.submit(sample_app.nothing)

    def call(_: object) -> None:
        if allowed.wait(20):
            called.set()

    future.add_done_callback(call)

    future.result(timeout=20)

    assert not called.is_set()
    allowed.set()
    assert called.wait(20)


def test_a_callback_has_the_context_of_the_application(either: FlaskCelery) -> None:
    names: queue.Queue[str] = queue.Queue()
    future = either.submit(sample_app.nothing)

    future.add_done_callback(lambda _: names.put(current_app.name))

    assert names.get(timeout=20) == "sample_app"


def test_an_error_in_a_callback_is_logged_with_the_task(
    either: FlaskCelery, caplog: pytest.LogCaptureFixture
) -> None:
    called = threading.Event()
    future = either.submit(sample_app.nothing)
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: called.set())  # the others are called all the same

    assert called.wait(20)
    said = f"A callback of the task sample_app.nothing ({future.id}) failed."
    assert [one for one in caplog.records if one.getMessage() == said and one.exc_info]


def test_a_callback_added_after_the_end_is_called_at_once(either: FlaskCelery) -> None:
    seen: list[Any] = []
    future = either.submit(sample_app.nothing)
    future.result(timeout=20)

    future.add_done_callback(seen.append)

    assert seen == [future]


def test_wait_knows_these_futures(either: FlaskCelery) -> None:
    futures = [either.submit(sample_app.add, number) for number in range(3)]

    done, waiting = concurrent.futures.wait(futures, timeout=20)

    assert (done, waiting) == (set(futures), set())


def test_wait_returns_with_the_first_one(live: FlaskCelery, box: redis.Redis) -> None:
    slow = live.submit(sample_app.hold, "second")
    quick = live.submit(sample_app.nothing, queue="mail")

    done, waiting = concurrent.futures.wait([slow, quick], 20, FIRST_COMPLETED)

    assert (done, waiting) == ({quick}, {slow})
    box.rpush("release:second", "go")
    assert slow.result(timeout=20) == "second released"


def test_as_completed_yields_in_the_order_of_the_ends(live: FlaskCelery, box: redis.Redis) -> None:
    slow = live.submit(sample_app.hold, "late")
    quick = live.submit(sample_app.nothing, queue="mail")
    order = []

    for future in concurrent.futures.as_completed([slow, quick], timeout=30):
        order.append(future)
        box.rpush("release:late", "go")

    assert order == [quick, slow]


def test_asyncio_can_await_a_future(either: FlaskCelery) -> None:
    async def work() -> list[Any]:
        sent = [either.submit(sample_app.add, 1, 2), either.submit(sample_app.fail, "no")]
        futures = [asyncio.wrap_future(future) for future in sent]
        return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 20)

    total, error = asyncio.run(work())

    assert total == 3
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("how", ["result", "exception", "pool", "wait", "as_completed"])
def test_a_task_may_not_wait_for_another(live: FlaskCelery, how: str) -> None:
    other = live.submit(sample_app.nothing, countdown=200)
    future = live.submit(sample_app.wait_inside, other.id, how)

    with pytest.raises(RuntimeError, match=r"The task sample_app\.wait_inside waits for the task"):
        future.result(timeout=20)
    other.cancel()


def test_a_task_may_look_at_the_result_of_one_that_has_ended(live: FlaskCelery) -> None:
    ended = live.submit(sample_app.add, 1, 2)
    ended.result(timeout=20)

    assert live.submit(sample_app.wait_inside, ended.id, "result").result(timeout=20) == 3


def test_a_task_may_submit_another(live: FlaskCelery) -> None:
    inner = live.submit(sample_app.submit_inside).result(timeout=20)

    assert live.get(inner).result(timeout=20) is None


def test_many_futures_cost_one_thread_and_one_connection(
    live: FlaskCelery, box: redis.Redis
) -> None:
    live.submit(sample_app.nothing).result(timeout=20)
    # Another listener, of a test before, may be just about to end.
    wait_until(lambda: subscribers(box) == len(listeners()) == 1, "one listener")
    threads = threading.active_count()
    ids = [f"many-{number}" for number in range(10_000)]
    with box.pipeline(transaction=False) as pipe:
        for task_id in ids:
            pipe.set(live.backend.get_key_for_task(task_id), '{"status": "PENDING"}')
        pipe.execute()
    ended = threading.Semaphore(0)

    futures = [live.get(task_id) for task_id in ids]
    for future in futures:
        future.add_done_callback(lambda _: ended.release())

    assert not any(future.done() for future in futures[::100])
    assert threading.active_count() <= threads
    assert subscribers(box) == 1
    for task_id in ids:
        live.backend.store_result(task_id, task_id, "SUCCESS")
    assert all(ended.acquire(timeout=20) for _ in ids)
    assert [future.result() for future in futures] == ids
    assert wait_until(lambda: channels(box) == [live.keys.listener], "no channel left")


def subscribers(box: redis.Redis) -> int:
    """Count the connections of this process that listen to results."""
    clients = box.client_list(_type="pubsub")
    return sum(int(client["sub"]) > 0 for client in clients)  # workers listen to patterns


def channels(box: redis.Redis) -> list[str]:
    return [str(channel) for channel in box.pubsub_channels()]


def test_a_future_survives_a_lost_connection(live: FlaskCelery, box: redis.Redis) -> None:
    future = live.submit(sample_app.hold, "cut-off")
    called = threading.Event()
    future.add_done_callback(lambda _: called.set())
    box.blpop(["started:cut-off"], timeout=20)

    box.client_kill_filter(_type="pubsub", skipme=True)
    box.rpush("release:cut-off", "go")

    assert called.wait(20)
    assert future.result() == "cut-off released"


def test_a_connection_that_is_lost_while_it_is_used_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        EmbeddedRedis(tmp_path) as server,
        create_app({"REDIS_URL": server.url}).app_context(),
        redis.Redis.from_url(server.url) as admin,
    ):
        for number in range(150):
            listener = ResultListener(celery)
            for part in range(5):
                listener.watch(Future(celery, f"{number}-{part}"))
                if part == number % 5:
                    admin.client_kill_filter(_type="pubsub")
            listener.close()
        wait_until(lambda: not listeners(), "the end of all listeners")

    assert "Traceback" not in caplog.text


def test_a_task_that_keeps_no_result_says_so(live: FlaskCelery, box: redis.Redis) -> None:
    future = live.submit(sample_app.forgetful, "forgotten")

    assert box.blpop(["ran:forgotten"], timeout=20)
    with pytest.raises(UnknownTask, match=r"sample_app\.forgetful .* keeps no result"):
        future.result(timeout=20)


def test_a_result_that_was_not_wanted_is_not_kept(either: FlaskCelery) -> None:
    future = either.apply(sample_app.nothing, ignore_result=True)

    with pytest.raises(UnknownTask, match=r"sample_app\.nothing .* keeps no result"):
        future.result(timeout=20)


def test_two_who_cancel_at_once_tell_it_once(
    live: FlaskCelery, caplog: pytest.LogCaptureFixture
) -> None:
    future = live.submit(sample_app.nothing, countdown=200)
    # Called in the middle of the cancelling, where the listener's thread may come in.
    future.add_done_callback(lambda _: future.settle({"status": "REVOKED"}))
    waiter = live.get(future.id)

    assert future.cancel()

    with pytest.raises(CancelledError):
        waiter.result(timeout=20)
    assert future.cancelled()
    assert not [record for record in caplog.records if record.levelname == "CRITICAL"]
