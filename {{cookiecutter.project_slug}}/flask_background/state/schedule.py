"""When each entry of the schedule ran and runs next; scheduler.py, which sends, is for workers."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery.schedules import BaseSchedule, maybe_schedule, schedule

from ..base.records import readable
from ..core import Core


@dataclass(frozen=True)
class ScheduleStatus:
    """One entry of the schedule: what it sends, when it ran last, when it runs next (UTC)."""

    name: str
    task: str
    schedule: str
    last_run_at: datetime | None
    next_run_at: datetime | None
    total_run_count: int


def schedule_status(core: Core) -> list[ScheduleStatus]:
    """Read when each entry of the schedule ran. Raises ``redis.exceptions.RedisError``."""
    runs: Any = core.redis.hgetall(core.keys.scheduler_runs)
    found = []
    for name, options in sorted(core.conf.beat_schedule.items()):
        when: Any = maybe_schedule(options["schedule"], options.get("relative", False), app=core)
        last, count = read_run(runs.get(name)) or (None, 0)
        now = when.now()
        left = when.remaining_estimate(last or now)
        found.append(
            ScheduleStatus(
                name=name,
                task=options["task"],
                schedule=_words(when),
                last_run_at=last if count else None,
                next_run_at=None if left is None else now + left,
                total_run_count=count,
            )
        )
    return found


def read_run(record: str | None) -> tuple[datetime, int] | None:
    """Read what the scheduler noted of an entry: its last run, and how many there were."""
    return readable(_read_run, record)


def _read_run(record: str) -> tuple[datetime, int]:
    last_run_at, count = json.loads(record)
    # As it was written, and no moment from which there is no way to the next one.
    moment = datetime.fromisoformat(last_run_at)
    if moment.tzinfo is None or not datetime.min.year < moment.year < datetime.max.year:
        raise ValueError(last_run_at)
    return moment, int(count)


def _words(when: BaseSchedule) -> str:
    if isinstance(when, schedule) and hasattr(when, "human_seconds"):
        return f"every {when.human_seconds}"
    return repr(when).strip("<>")
