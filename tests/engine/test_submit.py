"""Sending functions and tasks: what may be sent, with which options, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import redis
import sample_app
from flask_background import FlaskCelery, SubmitError, UnknownQueue
from flask_background.sending.functions import resolve


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1, 2), {}), ((1,), {"y": 2}), ((), {"x": 1, "y": 2})]
)
def test_any_function_of_the_application_may_be_submitted(
    either: FlaskCelery, args: tuple[int, ...], kwargs: dict[str, Any]
) -> None:
    assert either.submit(sample_app.add, *args, **kwargs).result(timeout=20) == 3


def test_a_registered_task_may_be_submitted(either: FlaskCelery) -> None:
    future = either.submit(sample_app.bound, "word")

    assert future.result(timeout=20) == ["word", "named.elsewhere", future.id]
    assert future.name == "named.elsewhere"


def test_a_submitted_function_is_known_by_its_own_name(either: FlaskCelery) -> None:
    future = either.submit(sample_app.nothing)

    assert future.name == "sample_app.nothing"
    assert future.result(timeout=20) is None


def test_a_task_goes_to_its_queue(live: FlaskCelery) -> None:
    for queue in ("default", "mail", "slow"):
        future = live.submit(sample_app.nothing, queue=queue)
        assert future.result(timeout=20) is None
        worker = "main" if queue == "default" else "mail"
        assert str(future.info and future.info.worker).partition("@")[0].partition(".")[0] == worker


def test_a_queue_that_no_worker_serves_is_refused(either: FlaskCelery) -> None:
    with pytest.raises(UnknownQueue, match=r"'nowhere'.* default, mail, slow"):
        either.submit(sample_app.nothing, queue="nowhere")
    with pytest.raises(UnknownQueue):
        either.submit(sample_app.double, 1, queue="nowhere")


def test_a_task_waits_for_its_time(live: FlaskCelery) -> None:
    later = datetime.now(UTC) + timedelta(seconds=1)

    by_eta = live.submit(sample_app.nothing, eta=later)
    by_countdown = live.submit(sample_app.nothing, countdown=1)

    for future in (by_eta, by_countdown):
        assert future.result(timeout=20) is None
        assert future.date_done is not None
        assert future.date_done.replace(tzinfo=UTC) >= later


def test_a_task_that_waited_too_long_does_not_run(live: FlaskCelery, box: redis.Redis) -> None:
    future = live.submit(
        sample_app.remember, "expired", expires=datetime.now(UTC) - timedelta(seconds=1)
    )

    with pytest.raises(CancelledError):
        future.result(timeout=20)
    assert box.exists("ran:expired") == 0


def test_the_first_priority_is_taken_first(live: FlaskCelery, box: redis.Redis) -> None:
    blocker = live.submit(sample_app.hold, "line", queue="mail")
    box.blpop(["started:line"], timeout=20)
    # One more is fetched while the first runs, whatever its priority.
    fetched = live.submit(sample_app.remember, "order", queue="mail", priority=9)
    live.inspect.ping(destination=[str(blocker.info and blocker.info.worker)])
    last = live.submit(sample_app.add, 1, queue="mail", priority=9)
    first = live.submit(sample_app.add, 2, queue="mail", priority=0)
    box.rpush("release:line", "go")

    ends = []
    for future in (fetched, last, first):
        future.result(timeout=20)
        ends.append(future.date_done)
    assert ends[2] < ends[1]  # type: ignore[operator]


@pytest.mark.parametrize("retry", [True, False])
def test_retry_says_whether_to_try_again_when_redis_is_slow(live: FlaskCelery, retry: bool) -> None:
    assert live.submit(sample_app.add, 1, retry=retry).result(timeout=20) == 1


def test_an_option_that_the_function_has_as_a_parameter_is_refused(either: FlaskCelery) -> None:
    with pytest.raises(SubmitError, match=r"'queue'.* celery\.apply\(fn, args, kwargs\)"):
        either.submit(sample_app.with_queue, "mail")


def test_apply_takes_such_a_parameter_and_any_option_of_celery(either: FlaskCelery) -> None:
    future = either.apply(
        sample_app.with_queue, kwargs={"queue": "mine"}, queue="mail", task_id="of-my-own"
    )

    assert future.id == "of-my-own"
    assert future.result(timeout=20) == "for mine"


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("eta", "tomorrow", "The option eta is 'tomorrow'. Give a datetime"),
        ("eta", 20261120, "Give a datetime"),
        ("countdown", "5", "Give a number of seconds"),
        ("countdown", float("nan"), "Give a number of seconds"),
        ("expires", [], "Give a number of seconds or a datetime"),
        ("priority", 10, r"Give a number from 0 \(first\) to 9"),
        ("priority", -1, r"Give a number from 0 \(first\) to 9"),
        ("queue", 5, "Give the name of a queue"),
        ("time_limit", "5", "Give a number of seconds"),
        ("task_id", 5, "Give a text"),
        ("colour", "red", "has no option 'colour'"),
    ],
)
def test_an_option_that_cannot_work_is_refused(
    either: FlaskCelery, option: str, value: Any, why: str
) -> None:
    for function in (sample_app.nothing, sample_app.double):
        with pytest.raises(SubmitError, match=why):
            either.apply(function, **{option: value})


def test_every_option_of_celery_is_known(either: FlaskCelery) -> None:
    link = sample_app.double.s()
    options: dict[str, Any] = {"headers": {"a": 1}, "expires": 60, "time_limit": 9, "link": link}

    assert either.apply(sample_app.double, (2,), **options).result(timeout=20) == 4


def test_map_submits_once_for_each_list_of_arguments(either: FlaskCelery) -> None:
    pool = either.map(sample_app.add, [1, 2], [3, 4], [5, 6])

    assert pool.result(timeout=20) == [3, 7, 11]
    assert either.map(sample_app.add, [1], [3], y=2).result(timeout=20) == [3, 5]


def test_get_takes_a_future_up_again(either: FlaskCelery) -> None:
    sent = either.submit(sample_app.add, 1, 2)

    again = either.get(sent.id)

    assert again.result(timeout=20) == 3
    assert again.done()
    assert again.state == "SUCCESS"


REFUSED: list[tuple[Any, str]] = [
    (sample_app.nameless, "A lambda .* Define it with 'def'"),
    (sample_app.make_nested(), "nested in a function or a class"),
    (sample_app.Holder.method, "nested in a function or a class"),
    (sample_app.Holder().method, "only a function defined with 'def'"),
    (sample_app.Holder, "only a function defined with 'def'"),
    ([], "only a function defined with 'def'"),
    (sample_app.double.s(1), "only a function defined with 'def'"),
    (sample_app.count_up, "is a generator or a coroutine"),
    (sample_app.later, "is a generator or a coroutine"),
    (sample_app.count_later, "is a generator or a coroutine"),
    (sample_app._private, "private"),
    (Path.cwd, "only a function defined with 'def'"),
    (print, "only a function defined with 'def'"),
    (shutil.rmtree, "only a function|outside of the packages"),
    (json.dumps, r"outside of the packages.*\(sample_app\)"),
]


@pytest.mark.parametrize(("function", "why"), REFUSED)
def test_what_a_worker_could_not_find_is_refused(
    either: FlaskCelery, function: Callable[..., Any], why: str
) -> None:
    with pytest.raises(SubmitError, match=why):
        either.submit(function)


def test_a_package_may_be_allowed(eager: FlaskCelery) -> None:
    eager.flask_app.config["CELERY_SUBMIT_PACKAGES"] = ["json"]
    eager.init_app(eager.flask_app)

    assert eager.submit(json.dumps, [1]).result() == "[1]"


def test_a_function_that_is_not_the_one_of_its_name_is_refused(either: FlaskCelery) -> None:
    other = FunctionType(sample_app.nothing.__code__, vars(sample_app), "nothing")

    with pytest.raises(SubmitError, match="something else than the function given"):
        either.submit(other)


def test_another_process_knows_the_name_as_well(either: FlaskCelery) -> None:
    sent = either.submit(sample_app.add, 1, 2)

    assert either.get(sent.id).name == "sample_app.add"
    sent.result(timeout=20)
    assert either.get(sent.id).name == "sample_app.add"
    assert either.get(either.submit(sample_app.double, 1).id).name == "sample_app.double"


MODULES = {
    "__init__": "",
    "reports": "if True:\n    def monthly(number):\n        return number",
    "typed": "def same[T](value: T) -> T:\n    return value",
    "config": "def load():\n    pass",
    "factory": "def create_app():\n    pass\ndef make() -> 'Flask':\n    pass",
    "wsgi": "def make():\n    pass\nraise RuntimeError('it ran')",
    "celery_app": "def make():\n    pass\nraise RuntimeError('it ran')",
    "__main__": "def make():\n    pass\nraise RuntimeError('it ran')",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """A package of which nothing is imported yet, and what it allows."""
    (tmp_path / "shop").mkdir()
    for name, text in MODULES.items():
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield ("shop",)
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.parametrize("path", ["shop.reports:monthly", "shop.typed:same"])
def test_a_worker_imports_the_module_of_a_function(shop: tuple[str, ...], path: str) -> None:
    assert resolve(path, shop)(12) == 12


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("shop.missing:make", "cannot be imported"),
        ("shop.reports:yearly", "not a function defined in that module"),
        ("shop.wsgi:make", "starts the application"),
        ("shop.celery_app:make", "starts the application"),
        ("shop.config:load", "starts the application"),
        ("shop.__main__:make", "starts the application"),
        ("shop.factory:create_app", "makes an application"),
        ("shop.factory:make", "makes an application"),
    ],
)
def test_what_makes_or_configures_the_application_is_nothing_for_a_worker(
    shop: tuple[str, ...], path: str, why: str
) -> None:
    with pytest.raises(SubmitError, match=why):
        resolve(path, shop)
