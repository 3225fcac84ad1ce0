"""Background work for Flask: a Celery subclass, futures, schedules, workers from the config.

Everything public is here, and nothing else of this package is for others to import. README.md has
the map; the project's docs/background.md shows each name with an example.
"""

from celery import current_task

from .app import FlaskCelery
from .base.errors import (
    BackgroundError,
    BrokerUnavailable,
    ConfigurationError,
    GivenUp,
    SubmitError,
    TaskError,
    UnknownQueue,
    UnknownTask,
)
from .base.reasons import reason_of
from .base.records import TaskInfo
from .base.redis_urls import connect_redis, is_verified, with_tls_rule, without_password
from .cluster.child import Child
from .sending.futures import Future
from .sending.once import no_overlap, unique_by
from .sending.pool import FuturePool
from .sending.tasks import FlaskTask, progress
from .state.activity import TaskStatistics
from .state.failed import FailedTask
from .state.heartbeats import Heartbeat
from .state.overview import Overview, Readiness, TaskView
from .state.schedule import ScheduleStatus

__all__ = [
    "BackgroundError",
    "BrokerUnavailable",
    "Child",
    "ConfigurationError",
    "FailedTask",
    "FlaskCelery",
    "FlaskTask",
    "Future",
    "FuturePool",
    "GivenUp",
    "Heartbeat",
    "Overview",
    "Readiness",
    "ScheduleStatus",
    "SubmitError",
    "TaskError",
    "TaskInfo",
    "TaskStatistics",
    "TaskView",
    "UnknownQueue",
    "UnknownTask",
    "connect_redis",
    "current_task",
    "is_verified",
    "no_overlap",
    "progress",
    "reason_of",
    "unique_by",
    "with_tls_rule",
    "without_password",
]
