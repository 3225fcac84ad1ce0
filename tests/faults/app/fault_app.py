"""The generated project with tasks of this suite's own; the project itself is not touched.

It is its real application with one more route: `gunicorn "fault_app:create_app()"` and
`FLASK_APP=fault_app flask celery cluster` run it. ``FAULT_VERSION`` says which version is deployed.
"""

# mypy: ignore-errors
# It runs with what the generated project has installed, which is not here.

import ctypes
import os
import signal
from typing import Any

import ledger
from celery import signals
from flask import Blueprint, Flask, request
from my_app import create_app as create_project
from my_app.api.routes import accepted
from my_app.extensions import celery

bp = Blueprint("faults", __name__)


@celery.task(name="faults.work")
def work(ref: str, seconds: float) -> None:
    """Take some time."""
    ledger.run(ref, seconds)


@celery.task(name="faults.poison")
def poison(ref: str, seconds: float) -> None:
    """End the process, each time."""
    ledger.note("start", ref)
    os.kill(os.getpid(), signal.SIGKILL)


@celery.task(name="faults.locked")
def locked(ref: str, seconds: float) -> None:
    """Hold the interpreter's lock: a call by PyDLL does not release it."""
    ledger.note("start", ref)
    ctypes.PyDLL(None).sleep(int(seconds))
    ledger.note("end", ref)


@celery.task(name="faults.fatal")
def fatal(ref: str, seconds: float) -> None:
    """End the process once, in the state that the task is named after."""
    ledger.note("start", ref)
    end_once("running", ref)
    ledger.note("end", ref)


def end_once(state: str, ref: object) -> None:
    """Kill this process if the task is to end it in this state, and has not done so."""
    if ref == f"fatal-{state}" and not ledger.has("kill", ref):
        ledger.note("kill", ref)
        os.kill(os.getpid(), signal.SIGKILL)


@signals.task_received.connect
def received(request: Any, **_: Any) -> None:
    """Know a task that was taken and has not begun."""
    end_once("received", request.args[0])


@signals.task_prerun.connect
def begun(args: Any, **_: Any) -> None:
    """Know a task that begins."""
    end_once("begun", args[0])


@signals.task_success.connect
def stored(sender: Any, **_: Any) -> None:
    """Know a task whose result is in Redis."""
    end_once("stored", sender.request.args[0])


@signals.task_postrun.connect
def returned(args: Any, **_: Any) -> None:
    """Know a task after which nothing is left to do."""
    end_once("returned", args[0])


TASKS = {"work": work, "poison": poison, "locked": locked, "fatal": fatal}

if os.environ.get("FAULT_VERSION") == "2":

    @celery.task(name="faults.added")
    def added(ref: str, seconds: float) -> None:
        """Do what only the new version can."""
        ledger.run(ref, seconds)

    TASKS["added"] = added

if os.environ.get("FAULT_TICKS"):

    @celery.schedule(2, name="faults-tick")
    def tick() -> None:
        """Run by the clock."""
        ledger.run("tick", 0)


@bp.post("/faults/<kind>")
def submit(kind: str) -> Any:
    """Send one task, or ``count`` of them, as a view of the project would."""
    body = request.get_json()
    count, seconds, countdown = (body.get(name) for name in ("count", "seconds", "countdown"))
    for number in range(count or 1):
        ref = f"{body['ref']}-{number}" if count else body["ref"]
        future = celery.submit(TASKS[kind], ref, seconds or 0, countdown=countdown)
    return accepted(future.id)


def create_app() -> Flask:
    """Make the project's application, with as many places as the scenario wants."""
    children = int(os.environ.get("FAULT_CHILDREN", "2"))
    settings = {"CELERY_WORKERS": {"worker": {"concurrency": children}}}
    deliveries = {"CELERY_MAX_DELIVERIES": int(os.environ.get("FAULT_DELIVERIES", "5"))}
    app = create_project(overrides=settings | deliveries)
    app.register_blueprint(bp)
    return app
