"""The pool of a place: a process that runs one task at a time, in its main thread.

Nothing is handed over: the process that takes a message runs it. While it does, a thread listens to
commands and gives signs of life (beat.py), and the cluster, which is the parent, sees to what must
not depend on a busy process: the time limits, and the lease of a task that holds the interpreter's
lock (cluster/places.py). A signal of the cluster's or of the thread interrupts the task's function.
"""

import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import SoftTimeLimitExceeded, WorkerShutdown
from celery.worker import state
from kombu.exceptions import OperationalError

from ..base.interruption import TaskEnded, interruption
from ..cluster.liveness import pulse
from ..cluster.places import END_TASK, RENEW_PLACE, SOFT_LIMIT

logger = logging.getLogger(__name__)

worker: Any = state  # its types do not tell that the flags take exit codes

#: Seconds that a cancelled task has for what stands in its ``finally``.
_LAST_WORDS = 0.7
#: What the system counts memory in: kilobytes, on macOS bytes.
_KILOBYTE = 1024 if sys.platform == "darwin" else 1


class TaskPool(BasePool):
    """Runs one task after the other. ``base/settings.py`` names it."""

    # Celery listens to commands with a function for `spawn_n` then, not in the event loop.
    is_green = True
    body_can_be_buffer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limit = 1
        self._ended_count = 0
        #: The ids of the task that runs, and of one that is to end.
        self._running = self._cancelled = ""
        self._exit_code = os.EX_OK
        self._soft: float | None = None
        self._soft_at: float | None = None
        signals.worker_process_init.send(sender=self.options["initargs"][1])

    def on_start(self) -> None:
        """Take the signals that interrupt a task."""
        self._main = threading.get_ident()
        signal.signal(SOFT_LIMIT, self._interrupt)
        signal.signal(END_TASK, self._end)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any,
        kwargs: Any,
        callback: Any = None,
        accept_callback: Any = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        """Run a task: now, and in this thread."""
        request = callback.__self__
        self._running = request.id
        self._soft = soft = soft_timeout or self.options["soft_timeout"]
        hard = timeout or self.options["timeout"]
        pulse.slot.begin(request.message.delivery_tag, request.id, soft, hard)
        self._soft_at = time.monotonic() + soft if soft else None
        try:
            apply_target(target, args, kwargs, callback, accept_callback, propagate=(TaskEnded,))
        except TaskEnded:
            logger.info("%s was cancelled while it ran.", request.id)
        finally:
            self._running = ""
            pulse.slot.end()
        self._ended_count += 1
        if self._is_worn():
            self.restart()

    def _is_worn(self) -> bool:
        """Whether this process has done so many tasks, or grown so much, that it is replaced."""
        most, memory = self.options["maxtasksperchild"], self.options["max_memory_per_child"]
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KILOBYTE
        return bool((most and self._ended_count >= most) or (memory and used > memory))

    # Signals, in the main thread

    def _interrupt(self, *_: Any) -> None:
        # Marked as revoked: the one that was to end may have done so, and another begun since.
        if self._cancelled == self._running in worker.revoked:
            interruption.interrupt(TaskEnded("cancelled"))
        elif self._soft_at and time.monotonic() >= self._soft_at:
            interruption.interrupt(SoftTimeLimitExceeded(self._soft))

    def _end(self, *_: Any) -> None:
        """End the task and this process; the message goes back into its queue."""
        worker.should_stop = self._exit_code
        interruption.interrupt(WorkerShutdown(self._exit_code))

    # Commands, in the thread that listens to them

    def spawn_n(self, listen: Callable[..., None], *args: Any) -> None:
        """Listen to commands, and again after each loss of that connection."""
        threading.Thread(target=self._listen, args=(listen, *args), daemon=True).start()

    def _listen(self, listen: Callable[..., None], consumer: Any) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {END_TASK, SOFT_LIMIT})
        connection = consumer.connection
        while consumer.connection is connection:
            try:
                listen(consumer)
                return
            except WorkerShutdown:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except (*consumer.connection_errors, OperationalError) as error:
                logger.warning("Commands are not heard for a moment: %s", error)
                time.sleep(1)

    def terminate_job(self, pid: int, signum: Any = None) -> None:
        """End the running task; the whole process if it does not end within a second."""
        self._cancelled = self._running
        signal.pthread_kill(self._main, SOFT_LIMIT)
        threading.Timer(_LAST_WORDS, self._end_process, [pulse.slot.work]).start()

    def _end_process(self, work: Any) -> None:
        if work and pulse.slot.work == work:
            logger.warning("%s does not end; its process is killed.", work.id)
            os.kill(os.getpid(), signal.SIGKILL)

    def restart(self) -> None:
        """Have another process in place of this one, after the task that runs."""
        worker.should_stop = RENEW_PLACE

    def give_up(self) -> None:
        """End the task, because others will begin it, and have another process."""
        self._exit_code = RENEW_PLACE
        signal.pthread_kill(self._main, END_TASK)

    def grow(self, number: int = 1) -> None:
        """Have more places for this worker."""
        self._scale(number)

    def shrink(self, number: int = 1) -> None:
        """Have fewer, but at least one."""
        self._scale(-number)

    def _scale(self, more: int) -> None:
        if pulse.slot.first:
            least, most = pulse.slot.scale
            pulse.slot.scale = (max(1, least + more), max(1, most + more))

    @property
    def info(self) -> dict[str, Any]:
        """Say it for ``inspect stats``."""
        return {
            **super().info,
            "processes": [os.getpid()],
            "max-tasks-per-child": self.options["maxtasksperchild"] or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [self.options["soft_timeout"] or 0, self.options["timeout"] or 0],
        }


class Autoscaler:
    """What Celery tells of ``--autoscale`` and the command of that name; the cluster does it."""

    #: Seconds from one call of `maybe_scale` to the next.
    keepalive = 3600.0

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take nothing from Celery: the board has it all."""

    def maybe_scale(self, *_: Any) -> None:
        """Do nothing: the cluster looks."""

    def update(self, most: int | None = None, least: int | None = None) -> tuple[int, int]:
        """Set how many places there may be, and how many there shall be at least."""
        now_least, now_most = pulse.slot.scale
        least, most = now_least if least is None else max(1, least), most or now_most
        pulse.slot.scale = (least, most)
        return most, least

    def info(self) -> dict[str, int]:
        """Say it for ``inspect stats``."""
        least, most = pulse.slot.scale
        return {"min": least, "max": most}
