"""The cluster of systems that cannot fork (Windows): each worker is a ``flask`` command."""

import os
import signal
import sys
import time
from typing import Any

from .child import Child
from .cluster import Cluster, Job


class SpawningCluster(Cluster):
    """Starts each job as a program of its own, and looks four times a second how they are.

    Each has a guard, which ends it when this process ends, also when that is killed.
    """

    _POLL = 0.25

    def _prepare(self) -> None:
        self._told_to_stop = False
        for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._note_signal)

    def _note_signal(self, *_: Any) -> None:
        self._told_to_stop = True

    def _start(self, job: Job) -> Child:
        return Child(
            job.name,
            [sys.executable, "-m", "flask", "celery", *job.argv],
            on_line=lambda line: print(line, flush=True),
            env={**os.environ, "PROCESS_NAME": job.name},
            grace=self._grace,
        )

    def _wait(self, timeout: float | None) -> bool:
        time.sleep(min(timeout or self._POLL, self._POLL))
        return self._told_to_stop

    def _ended(self) -> list[tuple[Job, int]]:
        return [(job, job.handle.returncode) for job in self._alive() if job.handle.exited.is_set()]

    def _signal(self, job: Job, what: str) -> None:
        if what == "stop":
            job.handle.stop()
        elif what == "kill":  # to end the tasks alone there is no signal
            job.handle.kill()
