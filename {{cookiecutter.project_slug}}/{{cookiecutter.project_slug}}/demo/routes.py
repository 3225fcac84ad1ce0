"""Two ways to start the demo task: ``POST /api/v1/start-task`` and the form of the page."""

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

from ..api.body import flag, json_object, number
from ..api.routes import accepted
from ..extensions import celery, limit_enqueue
from ..main.routes import show_task
from .tasks import long_task

bp = Blueprint("demo", __name__)

#: Longest duration that can be asked for, in seconds.
LONGEST = 3600


@bp.post("/api/v1/start-task")
@limit_enqueue
def start_task() -> ResponseReturnValue:
    """Start the task: ``{"duration": seconds, "fail": false}``. Answers 202 with its id."""
    body = json_object("duration", "fail")
    duration = number(body, "duration", low=0, high=LONGEST)
    return accepted(long_task.delay(duration, flag(body, "fail")).id)


@bp.app_template_global()
def demo_queues() -> list[str]:
    """Name the queues that the form offers, the default one first."""
    default = str(celery.conf.task_default_queue)
    return sorted({default, *celery.options.queues}, key=lambda name: (name != default, name))


@bp.post("/tasks")
@limit_enqueue
def start_task_by_form() -> ResponseReturnValue:
    """Start the task from the page's form, and show it."""
    text = request.form.get("duration", "")
    try:
        duration = number({"duration": float(text)}, "duration", low=0, high=LONGEST)
    except ValueError:
        raise BadRequest(f"The duration {text[:20]!r} is not a number of seconds.") from None
    queue = request.form.get("queue") or demo_queues()[0]
    if queue not in demo_queues():
        raise BadRequest(f"No worker serves the queue {queue[:50]!r}.")
    task = long_task.apply_async((duration, "fail" in request.form), queue=queue)
    return show_task(task.id)
