"""The page ``/``, which shows the background at work, and the page of one task."""

from __future__ import annotations

import hashlib

from flask import Blueprint, Response, current_app, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Conflict, Forbidden

from flask_background import Overview, TaskView

from ..api.routes import find_task
from ..extensions import celery, limit_enqueue
from ..web.operators import may_see_numbers, require_operator
from . import words
from .live import answer, live

bp = Blueprint("main", __name__)
for name in ("ago", "clock", "duration", "interval", "moment", "short_name", "span"):
    bp.add_app_template_filter(getattr(words, name))

#: The colours that APP_COLOR may name, as the icon has them. static/style.css has the rest.
COLORS = {
    "teal": "#0b6e63",
    "blue": "#1d5fbf",
    "violet": "#6941c6",
    "plum": "#9b2c74",
    "green": "#2b6e2f",
    "rust": "#a3441b",
}


@bp.get("/")
def index() -> str:
    """Show the background. The page loads when Redis is away, and says so."""
    state = live().snapshot() if may_see_numbers() else Overview()
    return render_template("main/index.html", state=state, words=True)


@bp.get("/live")
def live_part() -> Response:
    """Answer with the part of the page that changes; the page's script asks for it."""
    if not may_see_numbers():
        raise Forbidden("Only somebody who is signed in may see this.")
    return answer(*live().page())


@bp.get("/tasks/<task_id>")
def task(task_id: str) -> str:
    """Show one task. Whoever knows its id may see and cancel it."""
    view = TaskView(find_task(task_id))
    return render_template("main/task.html", task=view, words=True)


@bp.get("/tasks/<task_id>/live")
def task_live(task_id: str) -> Response:
    """Answer with the part of a task's page that changes."""
    view = TaskView(find_task(task_id))
    html = render_template("main/task_live.html", task=view, words=False).encode()
    return answer(html, hashlib.sha256(html).hexdigest()[:20])


@bp.post("/tasks/cancel")
def cancel() -> ResponseReturnValue:
    """Cancel the task of the form's button, as ``DELETE`` does in the API."""
    info = find_task(request.form.get("task_id", ""))
    if info.done or not celery.cancel(info.id):
        raise Conflict("The task has already ended.")
    live().forget()
    return redirect(url_for("main.task", task_id=info.id), 303)


@bp.post("/tasks/run-again")
@require_operator
@limit_enqueue
def run_again() -> ResponseReturnValue:
    """Send a failed task once more, with a new id."""
    future = celery.run_again(request.form.get("task_id", ""))
    if future is None:
        raise Conflict("This task cannot be run again, or somebody else has just done it.")
    live().forget()
    return redirect(url_for("main.task", task_id=future.id), 303)


@bp.get("/favicon.ico")
@bp.get("/icon.svg")
def icon() -> Response:
    """Answer with the icon: the first letter of the application's name in its colour."""
    color = COLORS.get(current_app.config["APP_COLOR"], COLORS["teal"])
    response = Response(render_template("icon.svg", color=color), mimetype="image/svg+xml")
    response.headers["Cache-Control"] = "public, max-age=86400"
    return response
