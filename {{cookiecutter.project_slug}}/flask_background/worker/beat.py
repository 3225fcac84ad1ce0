"""The heartbeat: each worker tells that its consumer takes tasks.

A step of the worker's consumer, called from the event loop that takes the tasks: a worker whose
process lives but whose consumer stands still falls silent. In a place, whose loop also runs the
tasks, a thread beats as long as the loop turns or runs a task.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer.control import Control
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from .. import celery_internals
from ..base.settings import INTERVAL
from ..cluster.liveness import pulse
from ..cluster.places import END_TASK, SOFT_LIMIT
from ..state import heartbeats
from .place import TaskPool
from .transport import CONFIRMED_WITHIN

logger = get_logger(__name__)


class HeartbeatStep(bootsteps.StartStopStep):
    """Beats while the consumer takes tasks; stops when its connection is lost.

    What counts as alive must hear commands: one that is sent before Redis has confirmed the
    worker's subscription is lost, and nobody is told. So this step comes after ``Control``, the
    step of Celery's start that subscribes, and which waits for the confirmation here (see
    ``Channel.basic_consume``). All that tells of the worker comes later: its first heartbeat,
    systemd's ``READY``, and the line "ready" in the log, which the last step writes, the event
    loop. A lost connection stops all steps and starts them again in the same order.
    """

    requires = (Control,)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        self._timer: Any = None
        self._stopped = threading.Event()
        self._turned_at = 0.0
        self._complained = False
        super().__init__(consumer, **kwargs)

    def start(self, consumer: Any) -> None:
        """Begin to beat."""
        self._wait_for_commands(consumer)
        self._forget_old(consumer)
        self._beat(consumer)
        self._stopped = threading.Event()
        if isinstance(consumer.pool, TaskPool):
            self._turn()
            self._timer = consumer.timer.call_repeatedly(INTERVAL, self._turn)
            beat = threading.Thread(target=self._beat_beside, args=(consumer, self._stopped))
            beat.daemon = True
            beat.start()
        else:
            self._timer = consumer.timer.call_repeatedly(INTERVAL, self._beat, (consumer,))
        if chores := consumer.app.chores:
            threading.Thread(target=_do, args=(chores, self._stopped), daemon=True).start()

    def stop(self, consumer: Any) -> None:
        """Stop beating: the connection is lost, or the worker ends."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shutdown(self, consumer: Any) -> None:
        """Leave the list of workers."""
        self.stop(consumer)
        try:
            consumer.app.redis.hdel(consumer.app.keys.workers, consumer.hostname)
        except RedisError as error:
            logger.debug("Could not take the heartbeat back: %s", error)

    def _wait_for_commands(self, consumer: Any) -> None:
        """Wait where a green thread subscribes, with a connection of its own."""
        pause, end = threading.Event(), time.monotonic() + CONFIRMED_WITHIN
        steps: list[Any] = [step for step in consumer.steps if isinstance(step, Control)]
        for step in steps:
            while step.is_green and not step.box.consumer:
                if time.monotonic() > end:
                    raise RedisConnectionError("The subscription to commands is not confirmed.")
                pause.wait(0.01)

    def _beat(self, consumer: Any) -> None:
        """Tell the outside and Redis; end what was cancelled; sweep; renew the leases.

        When the leases are about to end, ``renew_leases`` raises the error of a lost connection,
        and the consumer gives up what it holds.
        """
        pulse.beat()
        self._tell_redis(consumer)
        if not isinstance(consumer.pool, TaskPool):  # whose loop has the timer, and no such entries
            celery_internals.drop_cancelled_timers(consumer.timer)
        consumer.renew_leases()

    def _turn(self) -> None:
        """Note that the event loop turns."""
        self._turned_at = time.monotonic()

    def _beat_beside(self, consumer: Any, stopped: threading.Event) -> None:
        """Beat from a thread, beside a task that keeps the event loop."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {END_TASK, SOFT_LIMIT})
        while not stopped.wait(INTERVAL):
            if state.active_requests or time.monotonic() - self._turned_at < 2 * INTERVAL:
                try:
                    self._beat(consumer)
                except RedisConnectionError as error:
                    logger.error("%s The task ends; it comes back later.", error)
                    consumer.pool.give_up()

    def _tell_redis(self, consumer: Any) -> None:
        running = state.active_requests
        said = {
            "pid": os.getpid(),
            "queues": sorted(queue.name for queue in consumer.task_consumer.queues),
            "active": len(running),
            "processed": sum(state.total_count.values()) - len(running),
            "concurrency": consumer.controller.concurrency,
            "tasks": [request.id for request in islice(running, heartbeats.MOST_TASKS)],
        }
        held = {request.id: request for request in tuple(state.reserved_requests)}
        try:
            cancelled = heartbeats.write(consumer.app, consumer.hostname, said, held)
            self._complained = False
        except RedisError as error:
            if not self._complained:
                logger.warning("The heartbeat could not be written: %s", error)
            self._complained = True
            return
        for task_id in cancelled:
            # The command to end it was lost. Marked so, it does not begin if it has not begun.
            state.revoked.add(task_id)
            if consumer.can_end_tasks:
                held[task_id].terminate(consumer.pool)

    def _forget_old(self, consumer: Any) -> None:
        core = consumer.app
        exchange = core.control.mailbox.exchange.name
        try:
            shown = {beat.name for beat in heartbeats.latest(core)}
            for name in set(core.redis.hkeys(core.keys.workers)) - shown:
                # One that was killed did not take itself off the list for control commands.
                consumer.task_consumer.channel.delete_queue(f"{name}.{exchange}", exchange)
                core.redis.hdel(core.keys.workers, name)
        except RedisError as error:
            logger.debug("Could not clear old heartbeats: %s", error)


def _do(chores: Mapping[str, Callable[[], None]], stopped: threading.Event) -> None:
    """Do what shall be done every few seconds, in a thread that may wait for a database."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, {END_TASK, SOFT_LIMIT})
    while not stopped.wait(INTERVAL):
        for name, chore in chores.items():
            try:
                chore()
            except Exception:
                logger.exception("The worker failed at %s; it tries again.", name)
