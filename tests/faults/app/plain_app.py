"""The same with Celery as Flask's documentation sets it up, to compare.

https://flask.palletsprojects.com/en/stable/patterns/celery/
"""

# mypy: ignore-errors
# It runs with what the generated project has installed, which is not here.

import os
import signal
from typing import Any

import ledger
from celery import Celery, Task, shared_task
from flask import Flask, request


@shared_task(name="faults.work")
def work(ref: str, seconds: float) -> None:
    """Take some time."""
    ledger.run(ref, seconds)


@shared_task(name="faults.poison")
def poison(ref: str, seconds: float) -> None:
    """End the process, each time."""
    ledger.note("start", ref)
    os.kill(os.getpid(), signal.SIGKILL)


TASKS = {"work": work, "poison": poison}


def celery_init_app(app: Flask) -> Celery:
    """Do what the page does."""

    class FlaskTask(Task):  # type: ignore[misc, type-arg, unused-ignore]
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


def create_app() -> Flask:
    """Make the application."""
    app = Flask(__name__)
    url = os.environ["REDIS_URL"]
    app.config["CELERY"] = {"broker_url": url, "result_backend": url, "task_ignore_result": True}
    celery_init_app(app)

    @app.post("/faults/<kind>")
    def submit(kind: str) -> Any:
        body = request.get_json()
        for number in range(body.get("count") or 1):
            ref = f"{body['ref']}-{number}" if body.get("count") else body["ref"]
            countdown = body.get("countdown")
            args = (ref, body.get("seconds") or 0)
            result = TASKS[kind].apply_async(args, countdown=countdown)
        return {"task_id": result.id}, 202

    return app


flask_app = create_app()
celery_app = flask_app.extensions["celery"]
