"""Background work for Flask: a Celery subclass, futures, schedules, workers from the config.

Everything public is here; docs/background.md shows each with an example.
"""

from celery import current_task

from .app import FlaskCelery
from .base.redis_urls import connect_redis, without_password
from .state.failed import DeadLetter, GivenUp
from .base.errors import (
    BackgroundError,
    BrokerUnavailable,
    ConfigurationError,
    SubmitError,
    TaskError,
    UnknownQueue,
    UnknownTask,
)
from .state.failures import Failure
from .sending.futures import Future, FuturePool
from .worker.beat import Heartbeat
from .sending.once import no_overlap, unique_by
from .state.results import TaskInfo
from .state.scheduler import ScheduleStatus
from .sending.tasks import FlaskTask, progress

__all__ = [
    "BackgroundError",
    "BrokerUnavailable",
    "ConfigurationError",
    "DeadLetter",
    "Failure",
    "FlaskCelery",
    "FlaskTask",
    "Future",
    "FuturePool",
    "GivenUp",
    "Heartbeat",
    "ScheduleStatus",
    "SubmitError",
    "TaskError",
    "TaskInfo",
    "UnknownQueue",
    "UnknownTask",
    "connect_redis",
    "current_task",
    "no_overlap",
    "progress",
    "unique_by",
    "without_password",
]
