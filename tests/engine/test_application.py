"""How the extension meets an application: contexts, task classes, settings (and many of them)."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sample_app
from celery import Task, shared_task
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import StartCluster, listeners
from flask import Flask, current_app, g
from flask_background import FlaskCelery, connect_redis, core
from sample_app import celery, create_app

EAGER = {"CELERY_TASK_ALWAYS_EAGER": True}


def test_a_submitted_function_runs_in_the_application_context(either: FlaskCelery) -> None:
    found = either.submit(sample_app.surroundings).result(timeout=20)

    assert found["app"] == "sample_app"
    assert found["request"] is False


def test_a_task_called_by_a_task_shares_its_context(either: FlaskCelery) -> None:
    found = either.submit(sample_app.calls_another, 4).result(timeout=20)

    assert found == [8, True, "sample_app"]


def test_tasks_of_one_worker_do_not_share_g(live: FlaskCelery) -> None:
    found = [live.submit(sample_app.surroundings, queue="mail") for _ in range(3)]

    assert [future.result(timeout=20)["left in g"] for future in found] == [None] * 3


def test_an_eager_task_stays_in_the_context_of_its_request() -> None:
    ends = []
    app = create_app(EAGER)
    app.teardown_appcontext(lambda _: ends.append("ended"))

    with app.test_request_context("/"):
        assert celery.submit(sample_app.own_context).result() == sample_app.own_context()
        assert ends == []
    assert ends == ["ended"]


def test_an_eager_task_outside_of_any_context_gets_one() -> None:
    create_app(EAGER)

    assert celery.submit(sample_app.surroundings).result()["app"] == "sample_app"


def test_the_id_of_the_request_travels_with_the_task(live: FlaskCelery) -> None:
    g.request_id = "abc-1"
    nested = live.submit(sample_app.surroundings)

    assert nested.result(timeout=20)["request id"] == "abc-1"


def test_a_shared_task_works(either: FlaskCelery) -> None:
    result = sample_app.shared.delay(5)

    assert either.get(result.id).result(timeout=20) == [15, "sample_app"]


def test_a_registered_task_works_the_way_celery_documents(live: FlaskCelery) -> None:
    assert sample_app.double.delay(4).get(timeout=20) == 8
    assert sample_app.double.apply_async((5,), queue="mail").get(timeout=20) == 10


def test_tasks_are_found_by_name(either: FlaskCelery) -> None:
    assert either.submit(either.task.double, 3).result(timeout=20) == 6
    assert either.submit(either.task["sample_app.double"], 3).result(timeout=20) == 6
    assert either.task["double"].name == "sample_app.double"
    assert either.task.bound.name == either.task.elsewhere.name == "named.elsewhere"
    with pytest.raises(AttributeError, match="No task has the name 'triple'"):
        _ = either.task.triple
    with pytest.raises(KeyError):
        _ = either.task["triple"]


def test_a_task_retries(either: FlaskCelery) -> None:
    assert either.submit(sample_app.third_time_lucky).result(timeout=20) == 2


def test_an_application_may_be_given_at_once() -> None:
    app = Flask("given")
    app.config.update(EAGER)
    own = FlaskCelery(app)

    @own.task
    def where() -> str:
        return current_app.name

    assert app.extensions["celery"] is own
    assert own.submit(where).result() == "given"


def test_tasks_made_before_and_after_init_app_work() -> None:
    own = FlaskCelery()

    @own.task
    def before() -> str:
        return current_app.name

    app = Flask("late")
    app.config.update(EAGER)
    own.init_app(app)

    @own.task(name="after")
    def made_after() -> str:
        return current_app.name

    assert own.submit(before).result() == "late"
    assert own.submit(own.task.after).result() == "late"


def test_before_init_app_there_is_no_application() -> None:
    with pytest.raises(RuntimeError, match=r"Call init_app\(app\) first"):
        _ = FlaskCelery().flask_app


def test_two_applications_in_one_process_share_nothing() -> None:
    first, second = (FlaskCelery(eager_app(name)) for name in ("first", "second"))

    @first.task
    def only_here() -> str:
        return current_app.name

    assert only_here.name in first.tasks
    assert only_here.name not in second.tasks
    assert first.flask_app.name == "first"
    assert second.flask_app.name == "second"
    assert first.submit(only_here).result() == "first"


def test_the_tasks_follow_a_second_application() -> None:
    own = FlaskCelery(eager_app("one"))

    @own.task
    def where() -> str:
        return current_app.name

    own.init_app(eager_app("two"))

    assert own.submit(where).result() == "two"


def test_an_own_task_class_is_used_inside_the_context() -> None:
    calls = []

    class OwnTask(Task):  # type: ignore[type-arg]
        def before_start(self, task_id: str, args: object, kwargs: object) -> None:
            calls.append("before")

        def on_success(self, *_: object) -> None:
            calls.append("success")

    own = FlaskCelery(eager_app("based"), base_task=OwnTask)

    @own.task
    def where() -> str:
        calls.append(current_app.name)
        return current_app.name

    @shared_task
    def shared_where() -> str:
        return current_app.name

    assert own.submit(where).result() == "based"
    assert isinstance(own.tasks[where.name], OwnTask)
    assert calls == ["before", "based", "success"]
    assert isinstance(own.tasks[shared_where.name], OwnTask)


def test_only_the_settings_for_celery_reach_it() -> None:
    app = eager_app("secretive")
    app.config.update(SECRET_KEY="do not tell", DATABASE_URL="x", CELERY_TASK_TIME_LIMIT=100)
    own = FlaskCelery(app)

    assert "do not tell" not in repr(dict(own.conf))
    assert own.conf.task_time_limit == 100


def test_names_of_older_celery_are_understood() -> None:
    app = Flask("old")
    app.config.update(CELERY_ALWAYS_EAGER=True, CELERYBEAT_SCHEDULE={})
    own = FlaskCelery(app)

    assert own.conf.task_always_eager is True


def test_messages_have_the_limits_of_the_latest_application(own_redis: EmbeddedRedis) -> None:
    for limit in (500, 400):
        create_app({"CELERY_TASK_TIME_LIMIT": limit, "REDIS_URL": own_redis.url})
        celery.submit(sample_app.nothing)

    texts: Any = celery.redis.lrange(celery.key("default"), 0, -1)
    assert [json.loads(text)["headers"]["timelimit"][0] for text in texts] == [400, 500]


def test_a_new_application_leaves_no_thread_of_the_old_one(live: FlaskCelery) -> None:
    assert live.submit(sample_app.nothing).result(timeout=20) is None
    (thread,) = listeners()

    live.init_app(live.flask_app)

    thread.join(20)
    assert not thread.is_alive()


def test_threads_that_come_at_once_share_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second client would close the first one's connections while they are in use."""
    both = threading.Barrier(2)

    def connect_together(*args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return connect_redis(*args, **kwargs)

    monkeypatch.setattr(core, "connect_redis", connect_together)
    app = Flask("threads")
    app.secret_key = "secret"
    own = FlaskCelery(app)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: own.redis, range(2))

    assert first is second


def test_the_workers_share_one_start_of_the_application(
    start: StartCluster, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    cluster = start(
        {"CELERY_WORKERS": 2}, "cluster", workers=2, environ={"SAMPLE_STARTS": str(starts)}
    )

    assert starts.read_text().split() == [str(cluster.pid)]


def eager_app(name: str) -> Flask:
    app = Flask(name)
    app.config.update(EAGER)
    return app
