"""Workers started by the application itself, for development without a second window."""

import logging
import os
import sys
import time
from collections import deque
from pathlib import Path

from redis.exceptions import RedisError

from ..base.errors import BackgroundError, BrokerUnavailable
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

    def start(self) -> None:
        """Start the cluster unless workers answer, and wait until they do.

        Raises ``BrokerUnavailable`` when Redis is away, and ``BackgroundError`` when the workers
        end at once, or none answers within ``CELERY_START_TIMEOUT`` seconds.
        """
        if self._answered and (self._child is None or not self._child.exited.is_set()):
            return
        timeout = self._core.options.start_timeout
        deadline = time.monotonic() + timeout
        try:
            while not self._workers_answer():
                self._spawn_once()
                if time.monotonic() > deadline:
                    raise BackgroundError(
                        f"No worker answered within {timeout:g} s (CELERY_START_TIMEOUT). Run "
                        "'flask celery cluster' in a second window to see why."
                    )
                time.sleep(_LOOK_AGAIN)
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error
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
        if self._child is not None:
            if self._child.exited.is_set():
                code, said = self._child.returncode, "\n".join(self._lines)
                self._child = None
                raise BackgroundError(f"The workers ended with exit code {code}:\n{said}")
            return
        core = self._core
        lifetime = max(1, int(core.options.start_timeout))
        if not core.redis.set(core.keys.local_cluster, os.getpid(), nx=True, ex=lifetime):
            return
        name = core.flask_app.import_name
        self._child = Child(
            "workers",
            [sys.executable, "-m", "flask", "celery", "cluster"],
            on_line=self._note,
            env={"FLASK_APP": name, **os.environ},
            cwd=_folder_of(name),
            grace=core.options.worker_soft_shutdown_timeout + 15,
        )
        logger.info("Started the workers of CELERY_WORKERS (process %d).", self._child.pid)

    def _note(self, line: str) -> None:
        self._lines.append(line)
        if folder := self._core.options.log_dir:
            with Path(folder, "cluster.log").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        else:
            print(line, flush=True)


def _folder_of(import_name: str) -> Path:
    """Return the folder from which the application's module, or its package, is imported."""
    top = sys.modules[import_name.partition(".")[0]]
    file = Path(str(top.__file__)).resolve()
    return file.parents[1] if hasattr(top, "__path__") else file.parent
