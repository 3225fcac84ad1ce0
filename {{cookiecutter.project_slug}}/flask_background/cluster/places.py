"""What the cluster does for its places, because a process that runs a task may be too busy for it.

It ends tasks at their time limits, renews the lease of a task that holds the interpreter's lock,
sees to the message of a place that was killed, and starts and stops places as they are wanted.
"""

import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.utils.imports import symbol_by_name
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from ..base.settings import HOOKS, INTERVAL
from ..core import Core
from ..state import heartbeats
from .board import Slot, Work
from .cluster import Job

logger = logging.getLogger(__name__)

#: Ends the task in a place and then the place itself; the message goes back into its queue.
END_TASK = signal.SIGQUIT
#: Tells a place that the task's soft limit is reached, or that somebody cancelled it.
SOFT_LIMIT = signal.SIGUSR2
#: The exit code of a place that wants another in its place.
RENEW_PLACE = 75
#: Seconds between two looks at all places.
LOOK_EVERY = 1.0
#: Seconds after which a busy place that says nothing holds the interpreter's lock.
_LOCKED_AFTER = 2.0 * INTERVAL
#: Seconds that a place beyond the wanted least has nothing to do before it is stopped.
_IDLE = 30.0


class PlaceKeeper:
    """Looks at the board, and does what is due."""

    def __init__(self, celery: Core) -> None:
        self._celery = celery
        self._settler: Any = symbol_by_name(HOOKS["settler"])(celery)
        self._unsettled: list[Callable[[], None]] = []

    def look(self, jobs: list[Job], now: float) -> float:
        """Look at all places. Returns in how many seconds to look again."""
        pause = LOOK_EVERY
        for job in jobs:
            work = job.slot.work if job.handle else None
            if work is None:
                job.busy_since = 0.0
                continue
            job.busy_since, job.idle_since = work.since, now
            if 0 < work.hard_at <= now:
                logger.warning("%s reached the hard time limit; its process is killed.", work.id)
                job.killed_for = "limit"
                os.kill(job.handle, signal.SIGKILL)
            elif 0 < work.soft_at <= now and job.told_of != work.since:
                job.told_of = work.since
                os.kill(job.handle, SOFT_LIMIT)
            elif not job.stands_still and now - job.heard_of_at(work.since) > _LOCKED_AFTER:
                job.covered_at = now
                self._cover(job, work)
            ahead = [at - now for at in (work.soft_at, work.hard_at) if at > now]
            pause = min(pause, *ahead) if ahead else pause
        self._settle()
        return max(pause, 0.01)

    def ended(self, job: Job) -> None:
        """See to the message of a place that ended at work."""
        work, settler = job.slot.work, self._settler
        ways = {
            "limit": partial(settler.fail, work.tag, round(work.hard_at - work.since, 3)),
            "cancel": partial(settler.cancel, work.tag),
            "": partial(settler.put_back, work.tag),
        }
        self._unsettled.append(ways[job.killed_for])
        self._settle()

    def _settle(self) -> None:
        """Do what is to be done in Redis; if that is away, at the next look."""
        while self._unsettled:
            try:
                self._unsettled[0]()
            except (OperationalError, RedisError) as error:
                logger.warning("A task whose process was lost is seen to later: %s", error)
                return
            except Exception:  # a message may hold anything; its lease brings it back
                logger.exception("A task whose process was lost comes back later.")
            self._unsettled.pop(0)

    def _cover(self, job: Job, work: Work) -> None:
        """Speak for a place that cannot: keep its lease, and give its sign of life."""
        try:
            self._settler.renew(work.tag)
            if work.id in heartbeats.cover(self._celery, job.hostname, work.id):
                job.killed_for = "cancel"
                os.kill(job.handle, signal.SIGKILL)
        except (OperationalError, RedisError) as error:
            logger.warning("The lease of %s could not be renewed: %s", work.id, error)


def surplus(places: list[Job], now: float) -> list[Job]:
    """Name the places of one worker that are to stop: too many, or long idle ones."""
    least, most = places[0].slot.scale
    idle = [job for job in places[1:] if not job.busy_since and now - job.idle_since > _IDLE]
    stopped = places[max(1, most) :]
    keep = len(places) - len(stopped) - least
    return stopped + [job for job in reversed(idle) if job not in stopped][: max(0, keep)]


def missing(places: list[Job]) -> int:
    """Say how many more places a worker shall have: all are at work, or there are too few."""
    slot: Slot = places[0].slot
    least, most = max(1, slot.scale[0]), slot.scale[1]
    wanted = least
    if len(places) >= least and all(job.busy_since for job in places):
        wanted = min(most, len(places) + 1)
    return max(0, wanted - len(places))
