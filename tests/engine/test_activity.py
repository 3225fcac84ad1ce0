"""The list of the latest tasks, and the counts."""

import logging

import pytest
from celery import signals
from flask import Flask

from {{ cookiecutter.project_slug }} import activity, create_app
from {{ cookiecutter.project_slug }}.extensions import celery


def publish(task_id: str) -> None:
    signals.after_task_publish.send("a.task", body=(), headers={"id": task_id})


def end(task_id: str, state: str = "SUCCESS") -> None:
    task = celery.tasks["background.call"]
    signals.task_prerun.send(task, task_id=task_id, task=task)
    signals.task_postrun.send(task, task_id=task_id, task=task, state=state)


def test_a_dead_redis_fails_no_task(caplog: pytest.LogCaptureFixture) -> None:
    create_app("testing", {"CELERY_TASK_ALWAYS_EAGER": False})

    with caplog.at_level(logging.WARNING):
        publish("one")
        end("one")

    assert caplog.text.count("A task was not counted") == 2


def test_the_latest_tasks_come_first_and_old_ones_go(live_app: Flask) -> None:
    for number in range(activity.KEPT + 20):
        publish(f"task-{number}")

    with live_app.app_context():
        ids = activity.recent(10_000)

    assert ids[0] == f"task-{activity.KEPT + 19}"
    assert len(ids) == activity.KEPT


def test_a_task_that_ends_keeps_its_place_in_the_list(live_app: Flask) -> None:
    for task_id in ("first", "second"):
        publish(task_id)
    end("first")

    with live_app.app_context():
        assert activity.recent(2) == ["second", "first"]


def test_ends_are_counted_by_outcome(live_app: Flask) -> None:
    for state in ("SUCCESS", "SUCCESS", "FAILURE"):
        end("counted", state)

    with live_app.app_context():
        counters = activity.counters()

    assert int(counters["ended|background.call|FAILURE"]) == 1
    assert int(counters["ended|background.call|SUCCESS"]) >= 2
    assert sum(int(value) for key, value in counters.items() if key.startswith("bucket|")) >= 3


def test_names_that_differ_from_call_to_call_make_no_counters(live_app: Flask) -> None:
    task = celery.tasks["celery.accumulate"]
    for number in range(3):
        task.push_request(shadow=f"sum {number}")
        signals.task_postrun.send(task, task_id=f"named-{number}", task=task, state="SUCCESS")
        task.pop_request()

    with live_app.app_context():
        counters = activity.counters()

    assert [name for name in counters if "sum" in name] == []
    assert counters["ended|celery.accumulate|SUCCESS"] == "3"
