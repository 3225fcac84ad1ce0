"""What ``@celery.schedule(…)`` does: it makes a task, and an entry of the schedule."""

from collections.abc import Callable, Mapping
from typing import Any

from celery import Task
from celery.schedules import BaseSchedule, crontab

from ..base.settings import SAY_WHEN, can_say_when
from ..core import Core


def moment_of(
    when: float | BaseSchedule | None, crontab_fields: Mapping[str, Any]
) -> float | BaseSchedule:
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


def add(
    core: Core,
    function: Callable[..., Any],
    *,
    name: str | None,
    moment: float | BaseSchedule,
    entry: dict[str, Any],
) -> Any:
    """Schedule a function or a task; return the task. Raises ``ValueError`` for a name twice."""
    task = function if isinstance(function, Task) else core.task(function)
    task_name = getattr(function, "name", None) or core.gen_task_name(
        function.__name__, function.__module__
    )
    defaults = {"expires": moment} if isinstance(moment, (int, float)) else {}
    options = {**defaults, **(entry["options"] or {})}
    core.add_entry(
        name or task_name, {**entry, "task": task_name, "schedule": moment, "options": options}
    )
    return task
