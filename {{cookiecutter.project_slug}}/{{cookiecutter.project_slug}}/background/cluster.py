"""``flask celery cluster``: every worker of the config and the scheduler under one parent.

The application is imported once, and the workers are forked from it, so they share its memory
(Windows cannot fork: there each is a process of its own). The parent holds no thread and no
connection; it waits for signals, starts again what died, and passes a stop on.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import gc
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from . import liveness
from .connection import connect_redis
from .heartbeat import INTERVAL

if TYPE_CHECKING:
    from .app import FlaskCelery

logger = logging.getLogger(__name__)

#: Seconds before a process that died is started again: doubled each time, up to the last.
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 30.0
#: Seconds after which a process counts as healthy again.
_HEALTHY_AFTER = 60.0
#: Seconds that a process has beyond the soft shutdown before it is killed.
_GRACE = 10.0
#: Seconds between two looks whether the parent lives, where that is asked for.
_PARENT_CHECK = 1.0

#: Seconds without a beat after which a worker is suspected to be deaf: alive, but taking no tasks.
_SILENT = 3.0 * INTERVAL
#: Seconds that Redis must have answered all along before a suspected worker is killed. A worker
#: that lost its connection tries again every 30 s at the latest, and must not be killed for it.
_DEAF = 35.0

#: What workers import anyway, imported before the fork so that it is there once.
_WARM = (
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "kombu.transport.redis",
)


@dataclass
class Job:
    """A process of the cluster: its name, and the arguments of Celery's command line."""

    name: str
    argv: list[str]
    is_worker: bool = True
    beats: bool = True
    handle: Any = None
    started: float = 0.0
    pause: float = _FIRST_PAUSE
    start_at: float | None = field(default=0.0)
    suspected_at: float | None = None


class Cluster(abc.ABC):
    """Starts jobs, restarts those that die, stops all when it is told to."""

    def __init__(
        self, celery: FlaskCelery, jobs: Iterable[Job], *, parent: int | None = None
    ) -> None:
        self._celery = celery
        self._jobs = list(jobs)
        self._parent = parent
        self._kill_at: float | None = None
        self._exit_code = 0

    def run(self) -> int:
        """Run until all workers have ended. Returns the exit code: 0 after a graceful stop."""
        self._prepare()
        while True:
            now = time.monotonic()
            for job in self._jobs:
                if job.start_at is not None and job.start_at <= now and not self._stopping:
                    job.handle, job.started, job.start_at = self._start(job), now, None
            if not self._alive() and (self._stopping or not self._waiting()):
                return self._exit_code
            self._handle(self._wait(self._timeout(now)))

    @property
    def _stopping(self) -> bool:
        return self._kill_at is not None

    def _alive(self) -> list[Job]:
        return [job for job in self._jobs if job.handle is not None]

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs if job.start_at is not None]

    def _timeout(self, now: float) -> float | None:
        moments = [job.start_at for job in self._waiting() if not self._stopping]
        moments += [self._kill_at] if self._kill_at is not None else []
        pauses = [max(0.01, moment - now) for moment in moments if moment is not None]
        if self._parent is not None:
            pauses.append(_PARENT_CHECK)
        return min(pauses, default=None)

    def _handle(self, stop: bool) -> None:
        for job, code in self._ended():
            self._note_end(job, code)
        if self._parent is not None and os.getppid() != self._parent and not self._stopping:
            logger.warning("The process that started this cluster is gone.")
            stop = True
        if stop and not self._stopping:
            self._stop()
        elif self._kill_at is not None and time.monotonic() >= self._kill_at:
            for job in self._alive():
                logger.error("%s did not stop in time and is killed.", job.name)
                self._exit_code = 1
                self._kill(job)
            self._kill_at = time.monotonic() + _GRACE

    def _stop(self) -> None:
        liveness.notify_systemd("STOPPING=1")
        grace = self._celery.options.soft_shutdown_timeout + _GRACE
        logger.info("Stopping; running tasks have %d s.", grace - _GRACE)
        self._kill_at = time.monotonic() + grace
        for job in self._alive():
            self._terminate(job)

    def _note_end(self, job: Job, code: int) -> None:
        job.handle = None
        if self._stopping:
            if code != 0:
                self._exit_code = 1
            return
        if code == 0 and job.is_worker:
            logger.info("%s was shut down.", job.name)
            if not any(other.is_worker for other in self._alive() + self._waiting()):
                self._stop()
            return
        if time.monotonic() - job.started > _HEALTHY_AFTER:
            job.pause = _FIRST_PAUSE
        logger.error(
            "%s ended with exit code %d; it starts again in %g s.", job.name, code, job.pause
        )
        job.start_at = time.monotonic() + job.pause
        job.pause = min(2 * job.pause, _LAST_PAUSE)

    @abc.abstractmethod
    def _prepare(self) -> None: ...

    @abc.abstractmethod
    def _start(self, job: Job) -> Any: ...

    @abc.abstractmethod
    def _wait(self, timeout: float | None) -> bool:
        """Wait for an event or for ``timeout`` seconds. Returns whether to stop."""

    @abc.abstractmethod
    def _ended(self) -> list[tuple[Job, int]]: ...

    @abc.abstractmethod
    def _terminate(self, job: Job) -> None: ...

    @abc.abstractmethod
    def _kill(self, job: Job) -> None: ...


class ForkingCluster(Cluster):
    """The cluster of systems that can fork."""

    _STOP = frozenset({signal.SIGTERM, signal.SIGINT})

    def _prepare(self) -> None:
        self._signals = self._STOP | {signal.SIGCHLD, signal.SIGALRM}
        self._board = liveness.Board(len(self._jobs))
        self._watch_at = 0.0
        # Blocked, a signal waits until sigwait() takes it: none is missed, and no handler runs in
        # the middle of something.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        for module in _WARM:
            importlib.import_module(module)
        self._celery.loader.import_default_modules()
        self._celery.finalize(auto=True)
        freeze_memory()

    def _start(self, job: Job) -> int:
        self._board.write(self._jobs.index(job), 0)
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
            liveness.beat_on(self._board, self._jobs.index(job))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
            os.environ["PROCESS_NAME"] = job.name
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
        signal.setitimer(signal.ITIMER_REAL, min(timeout or INTERVAL, INTERVAL))
        stop = signal.sigwait(self._signals) in self._STOP
        now = time.monotonic()
        if now >= self._watch_at and not (stop or self._stopping):
            self._watch_at = now + INTERVAL - 0.5
            self._watch(now)
        return stop

    def _watch(self, now: float) -> None:
        """Report that all workers beat; restart one that lives but takes no tasks any more."""
        workers = [job for job in self._jobs if job.is_worker and job.beats]
        silent = []
        for job in workers:
            beat = self._board.read(self._jobs.index(job))
            if job.handle is None or now - (beat or job.started) > _SILENT or not beat:
                silent.append(job)
            else:
                job.suspected_at = None
        if not silent:
            liveness.report()
            return
        answers = self._redis_answers()
        for job in silent:
            since = self._board.read(self._jobs.index(job)) or job.started
            if job.handle is None or not answers or now - since <= _SILENT:
                job.suspected_at = None
            elif job.suspected_at is None:
                job.suspected_at = now
            elif now - job.suspected_at > _DEAF:
                logger.error("%s lives but takes no tasks any more; it is killed.", job.name)
                self._kill(job)

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


class SpawningCluster(Cluster):
    """The cluster of systems that cannot fork (Windows): each job is a ``flask`` command."""

    _POLL = 0.25

    def _prepare(self) -> None:
        self._told_to_stop = False
        for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._note_signal)

    def _note_signal(self, *_: Any) -> None:
        self._told_to_stop = True

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flask", "celery", *job.argv]
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        environment = {**os.environ, "PROCESS_NAME": job.name}
        return subprocess.Popen(command, env=environment, creationflags=flags)  # noqa: S603

    def _wait(self, timeout: float | None) -> bool:
        time.sleep(min(timeout or self._POLL, self._POLL))
        return self._told_to_stop

    def _ended(self) -> list[tuple[Job, int]]:
        return [(job, code) for job in self._alive() if (code := job.handle.poll()) is not None]

    def _terminate(self, job: Job) -> None:
        if sys.platform == "win32":
            job.handle.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            job.handle.terminate()

    def _kill(self, job: Job) -> None:
        job.handle.kill()


def run_celery(celery: FlaskCelery, argv: list[str]) -> int:
    """Run Celery's command line in this process. Returns its exit code."""
    code = celery.start(argv)
    return code if isinstance(code, int) else 0


def freeze_memory() -> None:
    """Keep what is loaded out of the collector's sight, so that forks go on sharing it."""
    gc.collect()
    gc.freeze()


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
