"""The page ``/``, which shows the background at work, and the page of one task."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask import Blueprint, Response, current_app, make_response, render_template
from redis.exceptions import RedisError

from .. import activity
from ..api.routes import find_task
from ..background import BrokerUnavailable, Heartbeat, ScheduleStatus, TaskInfo
from ..extensions import celery
from . import words

bp = Blueprint("main", __name__)
bp.add_app_template_filter(words.ago)
bp.add_app_template_filter(words.moment)

#: How many of the latest tasks the page shows.
SHOWN_TASKS = 20

#: Seconds after which the page of an unfinished task is loaded again.
TASK_REFRESH = 2


@dataclass
class Background:
    """What Redis knows about the background; empty while it is away."""

    tasks: list[TaskInfo] = field(default_factory=list)
    queues: dict[str, int] = field(default_factory=dict)
    schedule: list[ScheduleStatus] = field(default_factory=list)
    workers: list[Heartbeat] = field(default_factory=list)

    @classmethod
    def read(cls) -> Background:
        """Ask Redis. Raises ``RedisError`` or ``BrokerUnavailable``."""
        found = (celery.task_info(task_id) for task_id in activity.recent(SHOWN_TASKS))
        return cls(
            [info for info in found if info is not None],
            celery.queue_lengths(),
            celery.schedule_status(),
            celery.heartbeats(),
        )


@bp.get("/")
def index() -> str:
    """Show tasks, schedule and workers. The page loads when Redis is away, and says so."""
    try:
        return render_template("main/index.html", background=Background.read(), redis_away=False)
    except (RedisError, BrokerUnavailable) as error:
        current_app.logger.warning("The page is shown without Redis: %s", error)
        return render_template("main/index.html", background=Background(), redis_away=True)


@bp.get("/tasks/<task_id>")
def task(task_id: str) -> Response:
    """Show one task. Until it has ended, the browser loads the page again by itself."""
    info = find_task(task_id)
    response = make_response(render_template("main/task.html", task=info))
    if not info.done:
        response.headers["Refresh"] = str(TASK_REFRESH)
    return response
