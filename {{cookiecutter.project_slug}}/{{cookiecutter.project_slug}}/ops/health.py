"""Health: ``/healthz`` (this process answers) and ``/readyz`` (the whole application can work)."""

from flask import Blueprint, Response, jsonify

from ..extensions import celery
from ..web.problems import RETRY_AFTER, problem
{% if cookiecutter.database != "none" %}
from . import database
{% endif %}

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> Response:
    """Answer as long as this process can. It asks nobody, so a dead Redis restarts nothing."""
    return jsonify(status="ok")


@bp.get("/readyz")
def readyz() -> Response:
    {% if cookiecutter.database == "none" %}
    """Answer 200 when Redis takes tasks and a worker lives, otherwise 503 with the reason."""
    {% else %}
    """Answer 200 when Redis, the database and a worker are there, otherwise 503 with the reason."""
    {% endif %}
    state = celery.readiness()
    {% if cookiecutter.database == "none" %}
    if state.reason:
        return problem(503, state.reason, {"Retry-After": str(RETRY_AFTER)})
    return jsonify(
        status="ready", redis="ok", workers=state.workers, dead_letters=state.dead_letters
    )
    {% else %}
    if reason := state.reason or database.reason():
        return problem(503, reason, {"Retry-After": str(RETRY_AFTER)})
    return jsonify(
        status="ready",
        redis="ok",
        database="ok",
        workers=state.workers,
        dead_letters=state.dead_letters,
    )
    {% endif %}
