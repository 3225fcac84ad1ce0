"""`current_task`, and what a task tells about itself while it runs."""

from __future__ import annotations

import redis
import sample_app
from flask_background import FlaskCelery, current_task, progress


def test_outside_of_a_task_there_is_none(either: FlaskCelery) -> None:
    assert not current_task
    progress(1, 2)  # and this does nothing
    either.submit(sample_app.nothing).result(timeout=20)
    assert not current_task


def test_inside_of_a_task_it_is_that_task(either: FlaskCelery) -> None:
    future = either.submit(sample_app.about_current_task)

    found = future.result(timeout=20)

    assert (found["id"], found["retries"]) == (future.id, 0)
    assert either.submit(sample_app.surroundings).result(timeout=20)["task"]


def test_a_task_reports_its_progress(live: FlaskCelery, box: redis.Redis) -> None:
    future = live.submit(sample_app.report_progress, "quarter")
    box.blpop(["started:quarter"], timeout=20)

    assert future.state == "PROGRESS"
    assert future.running()
    assert future.info is not None
    assert future.info["percent"] == 25
    assert future.info.progress == {
        "current": 1,
        "total": 4,
        "percent": 25,
        "message": "first quarter",
    }
    box.rpush("release:quarter", "go")
    assert future.result(timeout=20) == "quarter released"


def test_a_task_may_have_a_state_of_its_own(live: FlaskCelery, box: redis.Redis) -> None:
    future = live.submit(sample_app.own_state, "dream")
    box.blpop(["started:dream"], timeout=20)

    assert (future.state, future.running(), future.done()) == ("DREAMING", True, False)
    assert future.info is not None
    assert (future.info.meta, future.info["of"]) == ({"of": "sheep"}, "sheep")
    box.rpush("release:dream", "go")
    assert future.result(timeout=20) == "dream released"


def test_states_may_be_set_in_eager_mode(eager: FlaskCelery) -> None:
    assert eager.submit(sample_app.eager_states).result() == ["PROGRESS", "DREAMING", "1"]
