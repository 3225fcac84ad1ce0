"""The cluster of systems that can fork.

The application is imported once, and the workers are forked from it, so that they share its memory.
"""

import contextlib
import ctypes
import importlib
import itertools
import logging
import os
import signal
import sys
import time

from redis.exceptions import RedisError

from ..base.errors import ConfigurationError
from ..base.redis_urls import connect_redis
from ..base.settings import HOOKS, INTERVAL
from ..core import freeze_memory
from .board import Board
from .cluster import Cluster, Job, run_celery
from .liveness import pulse
from .places import END_TASK, RENEW_PLACE, PlaceKeeper, missing, surplus

logger = logging.getLogger(__name__)

#: Seconds without a beat after which a worker is suspected to be deaf: alive, but taking no tasks.
_SILENT = 3.0 * INTERVAL
#: Seconds that Redis must have answered all along before a suspected worker is killed. A worker
#: that lost its connection tries again every 30 s at the latest, and must not be killed for it.
_DEAF = 35.0
#: Seconds between two looks until all workers take tasks for the first time: a release waits.
_STARTING = 0.1

#: What workers import anyway, imported before the fork so that it is there once.
_WARM = {
    *(name.partition(":")[0] for name in HOOKS.values()),
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.events",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "kombu.transport.redis",
}


class ForkingCluster(Cluster):
    """Forks each job from the process that loaded the application."""

    _STOP = frozenset({signal.SIGTERM, signal.SIGINT})

    def _prepare(self) -> None:
        self._signals = self._STOP | {signal.SIGCHLD, signal.SIGALRM}
        self._board, self._keeper = Board(), PlaceKeeper(self._celery)
        self._watch_at = self._look_at = 0.0
        for job in list(self._jobs):
            job.slot = self._board.slot()
            if job.places:
                job.slot.scale = job.places
                self._add_places(job.worker)
        # Blocked, a signal waits until sigwait() takes it: none is missed, and no handler runs in
        # the middle of something.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        for module in sorted(_WARM):
            importlib.import_module(module)
        self._celery.loader.import_default_modules()
        self._celery.finalize(auto=True)

    def _wait(self, timeout: float | None) -> bool:
        look_in = max(self._look_at - time.monotonic(), 0.01)
        pause = min(timeout or INTERVAL, look_in, INTERVAL if pulse.ready else _STARTING)
        signal.setitimer(signal.ITIMER_REAL, pause)  # macOS has no sigtimedwait()
        stop = signal.sigwait(self._signals) in self._STOP
        now = time.monotonic()
        if now >= self._look_at:
            self._look(now)
        if now >= self._watch_at and not (stop or self._stopping):
            self._watch(now)
            self._watch_at = now + (INTERVAL - 0.5 if pulse.ready else 0.0)
        return stop

    # Processes

    def _start(self, job: Job) -> int:
        freeze_memory()
        job.slot.clear()
        job.suspected_at, job.killed_for, job.idle_since = 0.0, "", time.monotonic()
        job.stands_still = False
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become(job)
        return pid

    def _become(self, job: Job) -> None:
        """Run the job in the forked child; never returns."""
        code = 1
        try:
            die_with_parent()
            pulse.write_to(job.slot)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
            os.environ["PROCESS_NAME"] = job.name
            self._celery.after_fork()  # the parent schedules, and has connections
            if job.places:
                self._celery.conf.worker_pool = HOOKS["pool"]
                self._celery.conf.worker_autoscaler = HOOKS["autoscaler"]
            code = run_celery(self._celery, job.argv)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            logger.exception("%s failed", job.name)
        finally:
            logging.shutdown()
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _ended(self) -> list[tuple[Job, int]]:
        ended = []
        for job in self._alive():
            pid, status = os.waitpid(job.handle, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if pid and (os.WIFSTOPPED(status) or os.WIFCONTINUED(status)):
                job.stands_still = os.WIFSTOPPED(status)
            elif pid:
                ended.append((job, os.waitstatus_to_exitcode(status)))
        return ended

    def _note_end(self, job: Job, code: int, *, at_once: bool = False) -> None:
        """See to the task that it had. One that was told to shut down takes its worker along."""
        wanted = bool(job.killed_for) or code == RENEW_PLACE
        at_work = bool(job.places and job.slot.work)
        if at_work:
            self._keeper.ended(job)
        if wanted and self._stopping:
            code = 0
        elif code == 0 and job.places and not (job.leaves or self._stopping):
            job.leaves = True
            for other in self._places(job.worker):
                self._let_go(other)
        super()._note_end(job, code, at_once=wanted or at_work)

    def _drop(self, job: Job) -> None:
        self._board.give_back(job.slot)
        super()._drop(job)

    def _signal(self, job: Job, what: str) -> None:
        signals = {"stop": signal.SIGTERM, "end tasks": END_TASK, "kill": signal.SIGKILL}
        os.kill(job.handle, signals[what])

    # Places

    def _places(self, name: str) -> list[Job]:
        """Return the places of a worker, the first one first."""
        return [job for job in self._jobs if job.places and job.worker == name and not job.leaves]

    def _look(self, now: float) -> None:
        """Look after the places; have as many of each worker as it shall have."""
        self._look_at = now + self._keeper.look([job for job in self._jobs if job.places], now)
        if self._stopping:
            return
        for name in {job.worker for job in self._jobs if job.places and not job.leaves}:
            for job in surplus(self._places(name), now):
                self._let_go(job)
            try:
                self._add_places(name)
            except ConfigurationError as error:
                logger.error("%s has the places that it has: %s", name, error)
                first, *others = self._places(name)
                first.slot.scale = (min(first.slot.scale[0], 1 + len(others)), 1 + len(others))

    def _add_places(self, name: str) -> None:
        """Start more places for a worker if it shall have more. Raises ``ConfigurationError``."""
        places = self._places(name)
        for _ in range(missing(places)):
            taken = {job.number for job in self._jobs if job.worker == name}
            number = next(number for number in itertools.count(1) if number not in taken)
            self._jobs.append(places[0].another(number, self._board.slot(first=False)))

    def _let_go(self, job: Job) -> None:
        """Stop a place that is not needed any more."""
        job.leaves = True
        if job.handle is None:
            self._drop(job)
        else:
            with contextlib.suppress(ProcessLookupError):
                self._signal(job, "stop")

    # Health

    def _watch(self, now: float) -> None:
        """Report that all workers beat; kill one that lives but takes no tasks any more."""
        workers = [job for job in self._jobs if job.is_worker and not job.leaves]
        silent = [job for job in workers if is_silent(job, now)]
        if not silent:
            pulse.report()
        overdue = [job.name for job in silent if is_overdue(job, now)]
        if overdue and not self._redis_answers():
            overdue = []  # they wait for Redis
        for job in workers:
            if job.name not in overdue:
                job.suspected_at = 0.0
            elif not job.suspected_at:
                job.suspected_at = now
            elif now - job.suspected_at > _DEAF:
                logger.error("%s lives but takes no tasks any more; it is killed.", job.name)
                self._signal(job, "kill")

    def _redis_answers(self) -> bool:
        try:
            with connect_redis(self._celery.redis_url) as client:
                return bool(client.ping())
        except RedisError:
            return False


def is_silent(job: Job, now: float) -> bool:
    """Whether a worker is not there, has not beaten yet, or not lately though it could."""
    beat, busy = job.slot.beaten_at, job.slot.work and not job.stands_still
    return job.handle is None or not beat or (now - beat > _SILENT and not busy)


def is_overdue(job: Job, now: float) -> bool:
    """Whether a worker that is there should have beaten by now."""
    return job.handle is not None and now - (job.slot.beaten_at or job.started) > _SILENT


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG
