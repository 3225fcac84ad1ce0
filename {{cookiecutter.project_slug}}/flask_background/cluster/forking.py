"""The cluster of systems that can fork.

The application is imported once, and the workers are forked from it, so that they share its memory.
"""

import contextlib
import ctypes
import importlib
import logging
import mmap
import os
import signal
import sys
import time

from redis.exceptions import RedisError

from ..base.redis_urls import connect_redis
from ..base.settings import INTERVAL
from .cluster import Cluster, Job, freeze_memory, run_celery
from .liveness import pulse

logger = logging.getLogger(__name__)

#: Seconds without a beat after which a worker is suspected to be deaf: alive, but taking no tasks.
_SILENT = 3.0 * INTERVAL
#: Seconds that Redis must have answered all along before a suspected worker is killed. A worker
#: that lost its connection tries again every 30 s at the latest, and must not be killed for it.
_DEAF = 35.0
#: Seconds between two looks until all workers take tasks for the first time: a release waits.
_STARTING = 0.1

#: What workers import anyway, imported before the fork so that it is there once.
_WARM = (
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "kombu.transport.redis",
)


class ForkingCluster(Cluster):
    """Forks each job from the process that loaded the application."""

    _STOP = frozenset({signal.SIGTERM, signal.SIGINT})

    def _prepare(self) -> None:
        self._signals = self._STOP | {signal.SIGCHLD, signal.SIGALRM}
        #: When each job beat last, in memory that the forked processes share; 0 is not yet.
        self._beats = memoryview(mmap.mmap(-1, 8 * len(self._jobs))).cast("d")
        self._watch_at = 0.0
        # Blocked, a signal waits until sigwait() takes it: none is missed, and no handler runs in
        # the middle of something.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        for module in _WARM:
            importlib.import_module(module)
        self._celery.loader.import_default_modules()
        self._celery.finalize(auto=True)

    def _start(self, job: Job) -> int:
        freeze_memory()
        self._beats[self._jobs.index(job)] = 0
        job.suspected_at = None
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
            pulse.write_to(self._beats, self._jobs.index(job))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
            os.environ["PROCESS_NAME"] = job.name
            self._celery.after_fork()  # the parent schedules, and has connections
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

    def _wait(self, timeout: float | None) -> bool:
        pause = INTERVAL if pulse.ready else _STARTING
        signal.setitimer(signal.ITIMER_REAL, min(timeout or pause, pause))
        stop = signal.sigwait(self._signals) in self._STOP
        now = time.monotonic()
        if now >= self._watch_at and not (stop or self._stopping):
            self._watch(now)
            self._watch_at = now + (INTERVAL - 0.5 if pulse.ready else 0.0)
        return stop

    def _watch(self, now: float) -> None:
        """Report that all workers beat; kill one that lives but takes no tasks any more."""
        workers = [job for job in self._jobs if job.is_worker and job.beats]
        silent = [job for job in workers if self._is_silent(job, now)]
        for job in workers:
            if job not in silent:
                job.suspected_at = None
        if not silent:
            pulse.report()
            return
        overdue = [job for job in silent if self._is_overdue(job, now)]
        answers = bool(overdue) and self._redis_answers()
        for job in silent:
            if not answers or job not in overdue:
                job.suspected_at = None
            elif job.suspected_at is None:
                job.suspected_at = now
            elif now - job.suspected_at > _DEAF:
                logger.error("%s lives but takes no tasks any more; it is killed.", job.name)
                self._kill(job)

    def _last_beat(self, job: Job) -> float:
        return float(self._beats[self._jobs.index(job)])

    def _is_silent(self, job: Job, now: float) -> bool:
        """Whether a worker is not there, has not beaten yet, or not lately."""
        beat = self._last_beat(job)
        return job.handle is None or not beat or now - beat > _SILENT

    def _is_overdue(self, job: Job, now: float) -> bool:
        """Whether a worker that is there should have beaten by now."""
        return job.handle is not None and now - (self._last_beat(job) or job.started) > _SILENT

    def _redis_answers(self) -> bool:
        client = connect_redis(self._celery.redis_url)
        try:
            return bool(client.ping())
        except RedisError:
            return False
        finally:
            client.close()

    def _ended(self) -> list[tuple[Job, int]]:
        ended = []
        for job in self._alive():
            pid, status = os.waitpid(job.handle, os.WNOHANG)
            if pid:
                ended.append((job, os.waitstatus_to_exitcode(status)))
        return ended

    def _terminate(self, job: Job) -> None:
        os.kill(job.handle, signal.SIGTERM)

    def _kill(self, job: Job) -> None:
        os.kill(job.handle, signal.SIGKILL)


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
