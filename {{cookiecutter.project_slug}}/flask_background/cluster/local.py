"""Workers started by the application itself, for development without a second window."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from ..base import keys
from ..base.errors import BackgroundError, BrokerUnavailable

if TYPE_CHECKING:
    from ..app import FlaskCelery

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 0.1


class LocalCluster:
    """``flask celery cluster`` as a child of this process, one for all processes that share Redis.

    The child ends when this process does, also when that is killed.
    """

    def __init__(self, celery: FlaskCelery) -> None:
        self._celery = celery
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = False

    def start(self) -> None:
        """Start the cluster unless workers answer, and wait until they do.

        Raises ``BrokerUnavailable`` when Redis is away, and ``BackgroundError`` when no worker
        answers within ``CELERY_START_TIMEOUT`` seconds.
        """
        if self._answered and (self._process is None or self._process.poll() is None):
            return
        timeout = self._celery.options.start_timeout
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
        process, self._process, self._answered = self._process, None, False
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()

    def _workers_answer(self) -> bool:
        alive = {beat.name.partition("@")[0] for beat in self._celery.heartbeats() if beat.alive}
        return alive >= {spec.name for spec in self._celery.options.workers}

    def _spawn_once(self) -> None:
        """Start the child, unless another process of the application does so now."""
        if self._process is not None and self._process.poll() is None:
            return
        lifetime = max(1, int(self._celery.options.start_timeout))
        if not self._celery.redis.set(keys.LOCAL_CLUSTER, os.getpid(), nx=True, ex=lifetime):
            return
        app = self._celery.flask_app
        environment = {"FLASK_APP": app.import_name, **os.environ}
        command = [sys.executable, "-m", "flask", "celery", "cluster"]
        if os.name == "posix":
            command += ["--exit-with-parent", str(os.getpid())]
        with ExitStack() as stack:
            output = None
            if self._celery.options.log_dir:
                path = Path(self._celery.options.log_dir, "cluster.log")
                output = stack.enter_context(path.open("ab"))
            self._process = subprocess.Popen(  # noqa: S603
                command,
                env=environment,
                stdout=output,
                stderr=output,
                cwd=Path(app.root_path).parent,
            )
        logger.info("Started the workers of CELERY_WORKERS (process %d).", self._process.pid)
        atexit.register(self.stop)
