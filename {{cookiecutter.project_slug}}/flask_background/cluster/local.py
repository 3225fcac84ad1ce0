"""Workers started by the application itself, for development without a second window."""

import logging
import os
import sys
import time
from collections import deque
from pathlib import Path

from ..base.errors import BackgroundError, redis_needed
from ..core import Core
from ..state import heartbeats
from .child import Child

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 0.1


class LocalCluster:
    """``flask celery cluster`` as a child of this process, one for all processes that share Redis.

    The child ends when this process does, also when that is killed.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._child: Child | None = None
        self._answered = False
        self._lines: deque[str] = deque(maxlen=20)
        #: See ``path_given_to_flask``.
        self.app_path: str | None = None

    def start(self) -> None:
        """Start the cluster unless workers answer, and wait until they do.

        Raises ``BrokerUnavailable`` when Redis is away, and ``BackgroundError`` when the workers
        end at once, or none answers within ``CELERY_START_TIMEOUT`` seconds.
        """
        if self._answered and (self._child is None or not self._child.exited.is_set()):
            return
        timeout = self._core.options.start_timeout
        deadline = time.monotonic() + timeout
        with redis_needed():
            while not self._workers_answer():
                self._spawn_once()
                if time.monotonic() > deadline:
                    raise BackgroundError(
                        f"No worker answered within {timeout:g} s (CELERY_START_TIMEOUT). Run "
                        f"'flask celery cluster' in a second window to see why.\n{self._said}"
                    )
                time.sleep(_LOOK_AGAIN)
        self._answered = True

    def stop(self) -> None:
        """Stop the cluster gracefully, if this process started it."""
        child, self._child, self._answered = self._child, None, False
        if child is not None:
            child.stop()
            child.wait()

    def _workers_answer(self) -> bool:
        beats = heartbeats.latest(self._core)
        alive = {beat.name.partition("@")[0] for beat in beats if beat.alive}
        return alive >= {spec.name for spec in self._core.options.workers}

    def _spawn_once(self) -> None:
        """Start the child, unless another process of the application does so now."""
        core, child = self._core, self._child
        if child is not None:
            # A cluster starts again what died; the first time is what counts here.
            died = any("ended with exit code" in line for line in list(self._lines))
            if died or child.exited.is_set():
                self.stop()
                core.redis.delete(core.keys.local_cluster)
                raise BackgroundError(f"The workers ended at once:\n{self._said}")
            return
        self._lines.clear()
        lifetime = max(1, int(core.options.start_timeout))
        if not core.redis.set(core.keys.local_cluster, os.getpid(), nx=True, ex=lifetime):
            return
        self._child = Child(
            "workers",
            [sys.executable, "-m", "flask", "celery", "cluster"],
            on_line=self._note,
            env=self._environment(),
            grace=core.options.worker_soft_shutdown_timeout + 15,
        )
        logger.info("Started the workers of CELERY_WORKERS (process %d).", self._child.pid)

    def _environment(self) -> dict[str, str]:
        """Let the child find the application where this process found it."""
        path = os.environ.get("FLASK_APP") if self.app_path is None else self.app_path
        if path is None:
            name = self._core.flask_app.import_name
            path = str(Path(sys.argv[0]).resolve()) if name == "__main__" else name
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return environment | ({"FLASK_APP": path} if path else {})

    @property
    def _said(self) -> str:
        return "\n".join(self._lines)

    def _note(self, line: str) -> None:
        self._lines.append(line)
        if folder := self._core.options.log_dir:
            with Path(folder, "cluster.log").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        else:
            print(line, flush=True)
