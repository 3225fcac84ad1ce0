"""Health: ``/healthz`` (this process answers) and ``/readyz`` (the whole application can work)."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify
from redis.exceptions import RedisError

from flask_background.base.reasons import check, reason_of
from flask_background.worker.beat import LOST_AFTER
from ..extensions import celery
from ..web.problems import RETRY_AFTER, problem

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> Response:
    """Answer as long as this process can. It asks nobody, so a dead Redis restarts nothing."""
    return jsonify(status="ok")


@bp.get("/readyz")
def readyz() -> Response:
    """Answer 200 when Redis takes tasks and a worker lives, otherwise 503 with the reason."""
    try:
        dead = check(celery)
        heartbeats = celery.heartbeats()
    except RedisError as error:
        current_app.logger.warning("Not ready, Redis is ill: %s", error)
        return _not_ready(reason_of(error))
    alive = sum(worker.alive for worker in heartbeats)
    if not alive:
        return _not_ready(f"No worker has given a sign of life for {LOST_AFTER} seconds.")
    return jsonify(status="ready", redis="ok", workers=alive, dead_letters=dead)


def _not_ready(reason: str) -> Response:
    return problem(503, reason, {"Retry-After": str(RETRY_AFTER)})
