"""A task that failed is remembered, and can be run again once."""

import pytest
from flask import Flask

from {{ cookiecutter.project_slug }}.background import Failure, Future
from {{ cookiecutter.project_slug }}.extensions import celery
from {{ cookiecutter.project_slug }}.main.words import duration


def fail(app: Flask) -> Future:
    """Have a worker fail at something."""
    with app.app_context():
        future = celery.submit(duration, "no number")
        with pytest.raises(TypeError):
            future.result(timeout=30)
    return future


def find(app: Flask, task_id: str) -> Failure | None:
    with app.app_context():
        return next((one for one in celery.failures() if one.id == task_id), None)


def test_a_failure_is_remembered_with_its_reason(live_app: Flask, worker: object) -> None:
    failure = find(live_app, fail(live_app).id)

    assert failure
    assert failure.name.endswith(".main.words.duration")
    assert failure.error.startswith("TypeError: ")
    assert failure.can_run_again


def test_a_failed_task_runs_again_with_its_arguments(live_app: Flask, worker: object) -> None:
    failed = fail(live_app)

    with live_app.app_context():
        again = celery.run_again(failed.id)
        assert again
        with pytest.raises(TypeError):
            again.result(timeout=30)

    assert again.id != failed.id
    assert find(live_app, failed.id) is None
    repeated = find(live_app, again.id)
    assert repeated
    assert repeated.again
    assert "no number" in repeated.again["args"][1]


def test_a_failure_runs_again_only_once(live_app: Flask, worker: object) -> None:
    failed = fail(live_app)

    with live_app.app_context():
        assert celery.run_again(failed.id)
        assert celery.run_again(failed.id) is None


def test_a_task_that_did_not_fail_does_not_run_again(live_app: Flask, worker: object) -> None:
    with live_app.app_context():
        future = celery.submit(duration, 1)
        future.result(timeout=30)

        assert celery.run_again(future.id) is None
        assert celery.run_again("never-issued") is None


def test_a_running_task_says_when_it_began_and_where(live_app: Flask, worker: object) -> None:
    with live_app.app_context():
        future = celery.submit(duration, 1)
        future.result(timeout=30)
        info = celery.task_info(future.id)

    assert info
    assert info.queue == "default"
    assert info.started_at
    assert info.seconds is not None
