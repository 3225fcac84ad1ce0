"""Routes of the API that hold for every task, whichever module it is in."""

import json
import re
from pathlib import Path

from flask import Blueprint, Response, current_app, jsonify, url_for
from flask_background import TaskInfo
from werkzeug.exceptions import Conflict, NotFound

from ..extensions import celery
from ..web.operators import require_numbers

bp = Blueprint("api", __name__, url_prefix="/api/v1")

#: The API's description. Written by hand; tests/test_openapi.py compares it with the routes.
OPENAPI = Path(__file__).with_name("openapi.json")

_TASK_ID = re.compile(r"[A-Za-z0-9._:-]{1,155}")


def accepted(task_id: str) -> tuple[Response, int, dict[str, str]]:
    """Answer 202 for a task that was just put in a queue, with the address of its state."""
    location = url_for("api.task_status", task_id=task_id)
    return jsonify(task_id=task_id, status="PENDING"), 202, {"Location": location}


def find_task(task_id: str) -> TaskInfo:
    """Look a task up. Raises ``NotFound`` for an id that was never issued or has expired."""
    info = celery.task_info(task_id) if _TASK_ID.fullmatch(task_id) else None
    if info is None:
        raise NotFound("There is no task with this id, or its result has expired.")
    return info


@bp.get("/task-status/<task_id>")
def task_status(task_id: str) -> Response:
    """Say how a task is doing. A failed task is an answer like any other, with ``error``."""
    info = find_task(task_id)
    return jsonify(
        task_id=info.id,
        name=info.name,
        status=info.state,
        progress=info.progress,
        result=info.plain_result,
        error=info.error,
    )


@bp.delete("/task-status/<task_id>")
def cancel_task(task_id: str) -> tuple[Response, int]:
    """Cancel a task: one that waits never runs, one that runs is stopped."""
    cancel(task_id)
    return jsonify(task_id=task_id, status="REVOKED"), 202


def cancel(task_id: str) -> None:
    """Cancel a task. Raises ``NotFound``, or ``Conflict`` when it has ended."""
    if find_task(task_id).done or not celery.cancel(task_id):
        raise Conflict("The task has already ended.")


@bp.get("/schedule")
@require_numbers
def schedule() -> Response:
    """List what runs by schedule, with the last and the next time."""
    return jsonify(
        [
            {
                "name": entry.name,
                "task": entry.task,
                "schedule": entry.schedule,
                "last_run_at": entry.last_run_at and entry.last_run_at.isoformat(),
                "next_run_at": entry.next_run_at and entry.next_run_at.isoformat(),
                "total_run_count": entry.total_run_count,
            }
            for entry in celery.schedule_status()
        ]
    )


@bp.get("/queues")
@require_numbers
def queues() -> Response:
    """Say how many tasks wait in each queue."""
    return jsonify(celery.queue_lengths())


@bp.get("/workers")
@require_numbers
def workers() -> Response:
    """List the workers, with the seconds since each one's last sign of life."""
    return jsonify(
        [
            {
                "name": worker.name,
                "queues": worker.queues,
                "heartbeat_age": round(worker.age, 1),
                "active": worker.active,
                "processed": worker.processed,
            }
            for worker in celery.heartbeats()
        ]
    )


@bp.get("/openapi.json")
def openapi() -> Response:
    """Describe this API, for clients, documentation and fuzzers."""
    description = json.loads(OPENAPI.read_text(encoding="utf-8"))
    description["info"]["title"] = current_app.config["APP_NAME"]
    return jsonify(description)
