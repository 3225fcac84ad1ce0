"""Background work for Flask: a Celery subclass, futures, schedules, workers from the config.

Everything public is here; docs/background.md shows each with an example.
"""

from celery import current_task

from .app import FlaskCelery
from .connection import connect_redis, without_password
from .dead_letters import DeadLetter, GivenUp
from .errors import (
    BackgroundError,
    BrokerUnavailable,
    ConfigurationError,
    SubmitError,
    TaskError,
    UnknownQueue,
    UnknownTask,
)
from .failures import Failure
from .futures import Future, FuturePool
from .heartbeat import Heartbeat
from .once import no_overlap, unique_by
from .results import TaskInfo
from .scheduler import ScheduleStatus
from .tasks import FlaskTask, progress

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
