"""``/healthz`` (this process answers), ``/readyz`` (all of it can work) and ``/metrics``."""

from flask import Blueprint, Response, current_app, jsonify, request

from ..extensions import celery
from ..web.operators import refuse_strangers
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


@bp.get("/metrics")
def metrics() -> Response:
    """Answer a scrape. It needs the API token, except on a developer's own machine."""
    at_home = request.remote_addr in ("127.0.0.1", "::1")
    if current_app.config["CONFIG_NAME"] != "development" or not at_home:
        refuse_strangers()
    # Here, because it saves 1.1 MiB in each process that nobody scrapes: all but the web's.
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    from .metrics import Collector

    return Response(generate_latest(Collector()), content_type=CONTENT_TYPE_LATEST)
