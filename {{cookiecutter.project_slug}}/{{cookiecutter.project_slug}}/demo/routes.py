"""Two ways to start the demo task: ``POST /api/v1/start-task`` and the form of the page."""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from ..api.body import flag, json_object, number
from ..api.routes import accepted
from ..extensions import celery, limit_enqueue
from ..main.routes import show_task
from ..web.operators import may_see_details, refuse_strangers
from .tasks import long_task

bp = Blueprint("demo", __name__)

#: Longest duration that can be asked for, in seconds; in production, by those who are no operators.
LONGEST, LONGEST_FOR_STRANGERS = 3600, 30


def refuse_strangers_in_production() -> None:
    """Let only operators keep the workers busy, unless ``PUBLIC_DEMO`` lets everybody.

    Views call it after their limit, which counts those who are refused too.
    """
    if not current_app.config["PUBLIC_DEMO"]:
        refuse_strangers()


@bp.post("/api/v1/start-task")
@limit_enqueue
def start_task() -> ResponseReturnValue:
    """Start the task: ``{"duration": 5, "fail": false}``. Answers 202 with its id."""
    refuse_strangers_in_production()
    body = {"duration": 5, **json_object("duration", "fail")}
    return accepted(long_task.delay(_duration(body), flag(body, "fail")).id)


@bp.app_template_global()
def demo_queues() -> list[str]:
    """Name the queues that the form offers, the default one first."""
    default = str(celery.conf.task_default_queue)
    return [default, *sorted(set(celery.options.queues) - {default})]


@bp.post("/tasks")
@limit_enqueue
def start_task_by_form() -> ResponseReturnValue:
    """Start the task from the page's form, and show it."""
    refuse_strangers_in_production()
    text = request.form.get("duration", "")
    try:
        duration = _duration({"duration": float(text)})
    except ValueError:
        raise BadRequest(f"The duration {text[:20]!r} is not a number of seconds.") from None
    queue = request.form.get("queue") or demo_queues()[0]
    if queue not in demo_queues():
        raise BadRequest(f"No worker serves the queue {queue[:50]!r}.")
    task = long_task.apply_async((duration, "fail" in request.form), queue=queue)
    return show_task(task.id)


def _duration(body: Mapping[str, Any]) -> float:
    high = LONGEST if may_see_details() else LONGEST_FOR_STRANGERS
    return number(body, "duration", low=0, high=high)
