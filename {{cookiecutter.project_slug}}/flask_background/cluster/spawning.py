"""The cluster of systems that cannot fork (Windows): each worker is a ``flask`` command."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from .cluster import Cluster, Job


class SpawningCluster(Cluster):
    """Starts each job as a program of its own, and looks four times a second how they are."""

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
