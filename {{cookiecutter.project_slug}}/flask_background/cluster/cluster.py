"""``flask celery cluster``: every worker of the config under one parent, which also schedules.

The parent sends what is due, starts again what died, and passes a stop on. How it starts processes
depends on the system: forking.py, and spawning.py for Windows.
"""

import abc
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from celery.utils.imports import symbol_by_name
from celery.utils.nodenames import host_format

from ..base.workers import worker_host
from ..core import Core
from .liveness import notify_systemd

logger = logging.getLogger(__name__)

#: Seconds before a process that died is started again: doubled each time, up to the last.
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 30.0
#: Seconds after which a process counts as healthy again.
_HEALTHY_AFTER = 60.0
#: Seconds that a process has beyond the soft shutdown before it is killed.
_GRACE = 10.0


@dataclass
class Job:
    """A process of the cluster: its name, and the arguments of Celery's command line.

    ``places``: of a worker whose tasks run in processes of the cluster, how many there shall be, at
    least and at most. Each is a job of its own; ``number`` counts those of one worker.
    """

    name: str
    argv: list[str]
    is_worker: bool = True
    places: tuple[int, int] | None = None
    number: int = 1
    host: str = field(default_factory=worker_host)
    handle: Any = None
    started: float = 0.0
    pause: float = _FIRST_PAUSE
    start_at: float | None = field(default=0.0)
    suspected_at: float = 0.0
    leaves: bool = False
    #: What the cluster shares with the process, and what it knows of its tasks.
    slot: Any = None
    busy_since: float = 0.0
    idle_since: float = 0.0
    told_of: float = 0.0
    covered_at: float = 0.0
    killed_for: str = ""
    stands_still: bool = False

    @property
    def worker(self) -> str:
        """The name of the worker that it is, or is a place of."""
        return self.name.partition(".")[0]

    def another(self, number: int, slot: Any) -> "Job":
        """Make a job for one more place of the same worker."""
        name = f"{self.worker}.{number}"
        argv = [*self.argv, "--hostname", f"{name}@{self.host}"]
        return Job(name, argv, places=self.places, number=number, host=self.host, slot=slot)

    def heard_of_at(self, since: float) -> float:
        """When a task of this place that began then was last known to be held."""
        return float(max(self.slot.beaten_at, self.covered_at, since))

    @property
    def hostname(self) -> str:
        """What the worker calls itself."""
        return host_format(f"{self.name}@{self.host}")


class Cluster(abc.ABC):
    """Starts jobs and, with ``schedule``, the scheduler; restarts jobs that die; stops all."""

    def __init__(self, celery: Core, jobs: Iterable[Job], *, schedule: bool = True) -> None:
        self._celery = celery
        self._jobs = list(jobs)
        self._schedule = schedule
        self._grace = celery.options.worker_soft_shutdown_timeout + _GRACE
        self._scheduler: Any = None
        self._tick_at = 0.0
        self._end_tasks_at, self._tasks_ended = 0.0, False
        self._kill_at: float | None = None
        self._exit_code = 0

    def run(self) -> int:
        """Run until all workers have ended. Returns the exit code: 0 after a graceful stop."""
        self._prepare()
        if self._schedule:
            self._scheduler = symbol_by_name(self._celery.conf.beat_scheduler)(app=self._celery)
            self._tick()  # before the first fork: what it loads is shared then
        while True:
            now = time.monotonic()
            for job in self._jobs:
                if job.start_at is not None and job.start_at <= now and not self._stopping:
                    job.handle, job.started, job.start_at = self._start(job), now, None
            if not self._alive() and (self._stopping or not self._waiting()):
                return self._exit_code
            self._handle(self._wait(self._timeout(now)))
            self._tick()

    @property
    def _stopping(self) -> bool:
        return self._kill_at is not None

    def _alive(self) -> list[Job]:
        return [job for job in self._jobs if job.handle is not None]

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs if job.start_at is not None]

    def _timeout(self, now: float) -> float | None:
        moments = [job.start_at for job in self._waiting() if not self._stopping]
        if self._kill_at is not None:
            moments.append(self._kill_at if self._tasks_ended else self._end_tasks_at)
        pauses = [max(0.01, moment - now) for moment in moments if moment is not None]
        if self._scheduler is not None and not self._stopping:
            pauses.append(max(0.01, self._tick_at - now))
        return min(pauses, default=None)

    def _handle(self, stop: bool) -> None:
        for job, code in self._ended():
            self._note_end(job, code)
        if stop and not self._stopping:
            self._stop()
            return
        now = time.monotonic()
        if self._stopping and not self._tasks_ended and now >= self._end_tasks_at:
            self._tasks_ended = True
            for job in self._alive():
                logger.warning("%s still works; its tasks go back into their queue.", job.name)
                self._signal(job, "end tasks")
        elif self._kill_at is not None and now >= self._kill_at:
            for job in self._alive():
                logger.error("%s did not stop in time and is killed.", job.name)
                self._exit_code = 1
                self._signal(job, "kill")
            self._kill_at = time.monotonic() + _GRACE

    def _tick(self) -> None:
        """Send what is due, if it is time to look: each entry once, as a stop must be noticed."""
        if self._scheduler is None or self._stopping or time.monotonic() < self._tick_at:
            return
        for _ in range(len(self._celery.conf.beat_schedule) + 1):
            pause = self._celery.conf.beat_max_loop_interval
            try:
                pause = self._scheduler.tick()
            except Exception:  # one wrong entry must not stop the workers
                logger.exception("The scheduler failed; it tries again.")
            if pause > 0:
                break
        self._tick_at = time.monotonic() + pause

    def _stop(self) -> None:
        notify_systemd("STOPPING=1")
        logger.info("Stopping; running tasks have %d s.", self._grace - _GRACE)
        self._kill_at = time.monotonic() + self._grace
        self._end_tasks_at = self._kill_at - _GRACE
        for job in self._alive():
            self._signal(job, "stop")
        if self._scheduler is not None:
            self._scheduler.close()

    def _note_end(self, job: Job, code: int, *, at_once: bool = False) -> None:
        """Have a job start again: ``at_once``, or after a pause that grows with each early end."""
        job.handle = None
        if self._stopping:
            if code != 0:
                self._exit_code = 1
            return
        if job.leaves or (code == 0 and job.is_worker):
            logger.info("%s was shut down.", job.name)
            self._drop(job)
            return
        if at_once:
            logger.info("%s ended with exit code %d; another takes its place.", job.name, code)
            job.start_at = time.monotonic()
            return
        if time.monotonic() - job.started > _HEALTHY_AFTER:
            job.pause = _FIRST_PAUSE
        logger.error(
            "%s ended with exit code %d; it starts again in %g s.", job.name, code, job.pause
        )
        job.start_at = time.monotonic() + job.pause
        job.pause = min(2 * job.pause, _LAST_PAUSE)

    def _drop(self, job: Job) -> None:
        """Forget a job that does not start again; without a worker there is nothing left to do."""
        self._jobs.remove(job)
        if not any(other.is_worker for other in self._jobs):
            self._stop()

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
    def _signal(self, job: Job, what: Literal["stop", "end tasks", "kill"]) -> None: ...


def run_celery(celery: Core, argv: list[str]) -> int:
    """Run Celery's command line in this process. Returns its exit code."""
    code: Any
    if argv[0] == "worker":
        # Without what Celery's other commands import: 4 MiB less.
        from celery.bin.base import CLIContext
        from celery.bin.worker import worker

        context = CLIContext(app=celery, no_color=True, workdir=None, quiet=True)
        code = worker.main(args=argv[1:], prog_name="worker", obj=context, standalone_mode=False)
    else:
        code = celery.start(argv)
    return code if isinstance(code, int) else 0
