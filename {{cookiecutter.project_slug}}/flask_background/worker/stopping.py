"""What happens when a worker starts, forks a child, and stops: handlers for Celery's signals.

Stopping: SIGTERM lets running tasks finish. After ``worker_soft_shutdown_timeout`` seconds those
that still run are ended and go back into their queue. (Celery's own soft shutdown waits for the
whole time even when the tasks end at once, and does not acknowledge them until then.)
"""

import logging
import os
import signal
from typing import Any

from celery import signals

from .. import celery_internals
from ..cluster.cluster import freeze_memory

logger = logging.getLogger(__name__)

#: Seconds that a pool child which ends waits for its worker to read its results.
_CHILD_PATIENCE = 2.0


def connect_signals() -> None:
    """Connect the handlers of this module; calling it again changes nothing."""
    signals.setup_logging.connect(_keep_logging)
    signals.worker_init.connect(_prepare_worker)
    signals.worker_process_init.connect(_prepare_child)


def _keep_logging(loglevel: int | None = None, **_: Any) -> None:
    """Leave the application's logging as it is. Celery sets up its own where nobody answers."""
    if loglevel:
        logging.getLogger("celery").setLevel(loglevel)


def _prepare_worker(sender: Any, **_: Any) -> None:
    sender.app.be_patient()
    freeze_memory()
    celery_internals.wait_less_for_children(_CHILD_PATIENCE)
    celery_internals.replace_children_soon()
    if hasattr(signal, "setitimer"):
        stop = BoundedStop(sender.app.options.worker_soft_shutdown_timeout)
        signals.worker_shutting_down.connect(stop.begin, weak=False)


class BoundedStop:
    """Gives the running tasks some seconds to end when the worker is told to stop."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begun = False

    def begin(self, how: str, **_: Any) -> None:
        """Start the clock, at the first gentle stop."""
        if how == "Warm" and not self._begun:
            self._begun = True
            signal.signal(signal.SIGALRM, self._end_tasks)
            signal.setitimer(signal.ITIMER_REAL, max(self._seconds, 0.001))

    def _end_tasks(self, *_: Any) -> None:
        seconds = self._seconds
        logger.warning("Tasks still run after %g s; they go back into their queue.", seconds)
        os.kill(os.getpid(), signal.SIGQUIT)


def _prepare_child(**_: Any) -> None:
    """Let a pool child finish its task when SIGTERM is sent to every process.

    In the solo pool, which sends this signal too, it is the worker itself that has to obey.
    """
    from billiard import current_process  # only workers need it

    if not current_process().daemon:
        return
    signals.task_prerun.connect(_ignore_sigterm)
    signals.task_postrun.connect(_obey_sigterm)


def _ignore_sigterm(**_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _obey_sigterm(**_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
