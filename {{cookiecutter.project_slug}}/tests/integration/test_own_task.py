"""How to test a task of your own, in three steps. Copy this file and put your function in.

The function here makes words of a number of seconds. Any public function of the application can
take its place; docs/add-a-task.md tells how to write one.
"""

from flask import Flask

from {{ cookiecutter.project_slug }}.main.words import duration


def test_the_function_itself() -> None:
    """Most of what can go wrong is in the function: call it, without Celery."""
    assert duration(120) == "2 min"


def test_the_task_without_a_worker(app: Flask) -> None:
    """``app`` runs a task at once, in this process. Needs no Redis and no worker."""
    with app.app_context():
        future = app.extensions["celery"].submit(duration, 120)

        assert future.result(timeout=0) == "2 min"


def test_the_task_in_a_real_worker(live_app: Flask, worker: object) -> None:
    """``live_app`` and ``worker`` are connected by a real Redis: what runs is what you deploy."""
    with live_app.app_context():
        future = live_app.extensions["celery"].submit(duration, 120)

        assert future.result(timeout=30) == "2 min"
