"""The page ``/``, which shows the background at work, and the page of one task."""

from flask import Blueprint, Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_background import Overview, TaskView
from werkzeug.exceptions import Conflict

from ..api import routes as api
from ..extensions import celery, limit_enqueue
from ..web.operators import may_see_numbers, require_numbers, require_operator
from . import words
from .live import answer, live

bp = Blueprint("main", __name__)
for name in ("ago", "clock", "duration", "short_name", "span"):
    bp.add_app_template_filter(getattr(words, name))


@bp.get("/")
def index() -> str:
    """Show the background. The page loads when Redis is away, and says so."""
    state = live().overview() if may_see_numbers() else Overview()
    return render_template("main/index.html", state=state, words=True)


@bp.get("/live")
@require_numbers
def live_part() -> Response:
    """Answer with the part of the page that changes; the page's script asks for it."""
    return answer(live().html())


@bp.get("/tasks/<task_id>")
def task(task_id: str) -> str:
    """Show one task. Whoever knows its id may see and cancel it."""
    return render_template("main/task.html", task=TaskView(api.find_task(task_id)), words=True)


@bp.get("/tasks/<task_id>/live")
def task_live(task_id: str) -> Response:
    """Answer with the part of a task's page that changes."""
    view = TaskView(api.find_task(task_id))
    return answer(render_template("main/task_live.html", task=view, words=False))


@bp.post("/tasks/cancel")
def cancel() -> ResponseReturnValue:
    """Cancel the task of the form's button, as ``DELETE`` does in the API."""
    task_id = request.form.get("task_id", "")
    api.cancel(task_id)
    return show_task(task_id)


@bp.post("/tasks/run-again")
@require_operator
@limit_enqueue
def run_again() -> ResponseReturnValue:
    """Send a failed task once more, with a new id."""
    future = celery.run_again(request.form.get("task_id", ""))
    if future is None:
        raise Conflict("This task cannot be run again, or somebody else has just done it.")
    return show_task(future.id)


def show_task(task_id: str) -> ResponseReturnValue:
    """Lead the browser that sent a form to the page of the task that it started or changed."""
    live().forget()
    # 303: the browser goes on with GET, so that a reload does not send the form again.
    return redirect(url_for("main.task", task_id=task_id), 303)


@bp.get("/favicon.ico")
@bp.get("/icon.svg")
def icon() -> Response:
    """Answer with the icon: the first letter of the application's name in its colour."""
    response = Response(render_template("icon.svg"), mimetype="image/svg+xml")
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response
