"""The schedule: kept in Redis, so that any number of schedulers may run and each tick comes once.

Celery's own scheduler keeps the last runs in a local file, so two of them send everything twice.
Here one scheduler at a time holds a lease in Redis, and each tick is claimed in the same step that
checks the lease: a scheduler that slept through the end of its lease cannot send it again. When
the holder dies, the lease runs out and another one goes on where it stopped.
"""

import json
import os
import platform
import signal
import threading
import uuid
from datetime import datetime, timedelta
from typing import Any

from celery import beat
from celery.signals import beat_init
from celery.utils.log import get_logger
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from ..base import scripts
from ..base.redis_urls import connect_redis
from ..core import Core
from .schedule import read_run

logger = get_logger(__name__)

#: Seconds after which the lease of a dead scheduler is free. With the 5 s between two looks
#: (beat_max_loop_interval) another one goes on after 25 s at the latest.
LEASE = 20

#: How far a clock may be set back and nobody minds.
_CLOCK_STEP = timedelta(seconds=1)


class _LeaseLost(Exception):
    """Another scheduler has taken over."""


class _NotSent(Exception):
    """A due task could not be published; it has the task's entry."""


class RedisScheduler(beat.Scheduler):
    """Celery's scheduler with its state in Redis and a lease. It outlives a Redis that is away."""

    def __init__(self, app: Core, **kwargs: Any) -> None:
        self._keys = app.keys
        self._redis = connect_redis(app.redis_url, timeout=1)
        self._token = f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex}"
        self._lease = Lock(self._redis, app.keys.scheduler_lease, LEASE, thread_local=False)
        self._leading = False
        self._complained = False
        #: Whether a tick is claimed and not sent yet: no moment to stop.
        self.sending = False
        super().__init__(app, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send at most one due task. Returns the seconds until the next look."""
        pause = float(self.max_interval or 5)
        try:
            if self._lead():
                self._mind_the_clock()
                pause = super().tick(*args, **kwargs)
            self._complained = False
        except _LeaseLost:
            self._leading = False
            logger.warning("Another scheduler has taken over; this one stands by.")
        except _NotSent as failure:
            self._unclaim(failure.args[0])
            pause = 1.0
        except RedisError as error:
            self._leading = False
            if not self._complained:
                logger.warning("The scheduler waits for Redis: %s", error)
            self._complained = True
            pause = 1.0
        finally:
            self.sending = False
        return pause

    def reserve(self, entry: Any) -> Any:
        """Claim a tick: from here on no other scheduler sends it."""
        following = super().reserve(entry)
        _ = self.producer  # connects, for as long as it takes: before the claim, not after it
        self.sending = True
        self._claim(following)
        return following

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send the task of a due entry."""
        logger.info("Sending the due task %s (%s)", entry.name, entry.task)
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except beat.SchedulingError as error:
            logger.error("%s. It is tried again.", error)
            raise _NotSent(entry) from error

    def close(self) -> None:
        """Stop, and free the lease so that another scheduler goes on at once."""
        try:
            self._lease.release()
        except LockError:
            pass  # it is not ours
        except RedisError as error:
            logger.warning("Could not free the scheduler's lease: %s", error)
        super().close()

    @property
    def info(self) -> str:
        """Say in Celery's start banner where the schedule is kept."""
        return f"    . lease -> {self._keys.scheduler_lease} ({LEASE} s)"

    def _lead(self) -> bool:
        """Hold the lease, or try to get it. Whoever gets it reads the last runs from Redis."""
        if self._leading:
            try:
                self._lease.reacquire()
            except LockError:
                raise _LeaseLost from None
        elif self._lease.owned() or self._lease.acquire(blocking=False, token=self._token):
            self._load_runs()
            self._leading = True
            logger.info("This scheduler leads; %d entries.", len(self.schedule))
        return self._leading

    def _load_runs(self) -> None:
        runs: Any = self._redis.hgetall(self._keys.scheduler_runs)
        gone = set(runs) - set(self.schedule)
        if gone:
            self._redis.hdel(self._keys.scheduler_runs, *gone)
        entries: list[Any] = list(self.schedule.values())
        for entry in entries:
            if run := read_run(runs.get(entry.name)):
                entry.last_run_at, entry.total_run_count = run
            else:
                entry.last_run_at = _before_first_run(entry)
                self._claim(entry)
        self._heap = None  # Celery builds it anew from the entries

    def _mind_the_clock(self) -> None:
        """Begin anew with entries that ran in the future: the clock was set back since."""
        entries: list[Any] = list(self.schedule.values())
        for entry in entries:
            now = entry.default_now()
            if entry.last_run_at > now + _CLOCK_STEP:
                logger.warning("The clock was set back; %s runs by it from now on.", entry.name)
                entry.last_run_at = now
                self._heap = None

    def _unclaim(self, entry: Any) -> None:
        """Undo the claim of a tick that could not be sent, so that it is due still."""
        self.schedule[entry.name] = entry
        self._heap = None
        try:
            self._claim(entry)
        except (RedisError, _LeaseLost) as error:
            # The tick counts as sent for whoever leads next: its next one comes in due time.
            logger.error("The tick of %s is lost: %r", entry.name, error)

    def _claim(self, entry: Any) -> None:
        record = json.dumps([entry.last_run_at.isoformat(), entry.total_run_count])
        names = [self._keys.scheduler_lease, self._keys.scheduler_runs]
        if not scripts.call(self._redis, "claim", names, self._token, entry.name, record):
            raise _LeaseLost


def _before_first_run(entry: Any) -> datetime:
    """Make a new entry with an interval due at once; one with a time of day waits for it."""
    now: datetime = entry.default_now()
    interval = getattr(entry.schedule, "run_every", None)
    return now - interval if isinstance(interval, timedelta) else now


@beat_init.connect
def _stop_when_asked(sender: Any, **_: Any) -> None:
    """Have `flask celery beat` note that it is to stop, whatever it does at that moment.

    Celery's own handler frees the lease and raises ``SystemExit`` out of any line: a tick that was
    claimed is not sent then, and where an error follows from the exit, nobody hears of the exit.
    """
    scheduler = sender.scheduler
    ours = isinstance(scheduler, RedisScheduler)
    if not ours or threading.current_thread() is not threading.main_thread():
        return

    def stop(*_: Any) -> None:
        sender.stop()
        if not scheduler.sending:
            raise SystemExit

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
