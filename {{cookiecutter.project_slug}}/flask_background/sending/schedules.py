"""What ``@celery.schedule(…)`` does: it makes a task, and an entry of the schedule."""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from celery import Task
from celery.schedules import BaseSchedule, crontab

from ..base.settings import SAY_WHEN, can_say_when
from ..core import Core
from .tasks import ByName, TaskNamespace


def moment_of(
    when: float | timedelta | BaseSchedule | None, crontab_fields: Mapping[str, Any]
) -> float | timedelta | BaseSchedule:
    """Return what says when. Raises ``ValueError`` unless it is one thing, and can."""
    if (when is None) == (not crontab_fields):
        raise ValueError(
            "Say when: a number of seconds, a schedule, or fields of a crontab such as "
            "hour=7, minute=30; and only one of these."
        )
    if when is None:
        return crontab(**crontab_fields)
    if not can_say_when(when):
        raise ValueError(f"The schedule is {when!r}. {SAY_WHEN}")
    return when


class ScheduleNamespace(ByName):
    """``@celery.schedule(…)``, and the tasks that it scheduled, by the names of their entries.

    ``celery.schedule.tick`` and ``celery.schedule["every-two-seconds"]`` find one; so does the name
    of its function or task.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(
        self,
        when: float | timedelta | BaseSchedule | None = None,
        *,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **crontab_fields: Any,
    ) -> Callable[[Callable[..., Any]], Any]:
        """Decorate a function or a task that runs by the clock.

        ``when`` is a number of seconds or one of Celery's schedules (``crontab``, ``solar``);
        without it the keywords are those of ``crontab`` (``hour=7, minute=30``). ``args`` and
        ``kwargs`` are passed at each run; ``options`` go to ``apply_async``. A run that waited
        longer than the interval is dropped, because the next one is there by then.

        Raises ``ValueError`` for a name that is taken, or a time that cannot be.
        """
        moment = moment_of(when, crontab_fields)
        defaults = {"expires": moment} if isinstance(moment, (int, float)) else {}
        entry = {
            "schedule": moment,
            "args": tuple(args),
            "kwargs": dict(kwargs or {}),
            "options": {**defaults, **(options or {})},
        }

        def decorate(function: Callable[..., Any]) -> Any:
            task = function if isinstance(function, Task) else self._core.task(function)
            task_name = getattr(function, "name", None) or self._core.gen_task_name(
                function.__name__, function.__module__
            )
            self._core.add_entry(name or task_name, {**entry, "task": task_name})
            return task

        return decorate

    def __getitem__(self, name: str) -> Task[Any, Any]:
        """Return the task that an entry sends. Raises ``KeyError``."""
        entries = self._core.conf.beat_schedule
        if name in entries:
            return self._core.tasks[entries[name]["task"]]
        task = TaskNamespace(self._core)[name]
        if all(entry["task"] != task.name for entry in entries.values()):
            raise KeyError(f"The task {task.name} is not scheduled.")
        return task
