"""The heartbeat: each worker tells in Redis that its consumer is alive.

A step of the worker's consumer writes it from the event loop that takes the tasks, so a worker
whose process lives but whose consumer stands still falls silent. Reading all of them is one
command; asking the workers themselves (``celery inspect ping``) takes a second and a process.
"""

from __future__ import annotations

import heapq
import json
import os
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu.asynchronous.timer import Timer
from redis.exceptions import RedisError

from ..base import keys
from ..base.settings import INTERVAL
from ..cluster import liveness

if TYPE_CHECKING:
    from ..app import FlaskCelery

logger = get_logger(__name__)

#: Seconds of silence after which a worker counts as gone.
LOST_AFTER = 30
#: How many of its running tasks a worker names.
MOST_TASKS = 20
#: Seconds for which a silent worker is still shown.
_FORGET_AFTER = 3600

# KEYS: workers. ARGV: name, what the worker says. The time is that of Redis, because the clocks of
# machines differ and may be set. Its first command needs no memory, so that a full Redis lets it
# pass: a worker is not lost because there is no room.
_BEAT = """
redis.call('PERSIST', KEYS[1])
local now = redis.call('TIME')
local at = now[1] .. '.' .. string.format('%06d', now[2])
redis.call('HSET', KEYS[1], ARGV[1], at .. ' ' .. ARGV[2])
"""


@dataclass(frozen=True)
class Heartbeat:
    """What a worker said last: ``age`` seconds ago, with ``active`` tasks at work.

    ``tasks`` are the ids of those tasks, but no more than ``MOST_TASKS``. ``processed`` tasks have
    ended since the worker began.
    """

    name: str
    pid: int
    queues: tuple[str, ...]
    age: float
    active: int
    processed: int
    concurrency: int = 1
    tasks: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether the worker has beaten within the last 30 seconds."""
        return self.age < LOST_AFTER


def read_heartbeats(app: FlaskCelery) -> list[Heartbeat]:
    """Read the last heartbeat of each worker. Raises ``redis.exceptions.RedisError``."""
    with app.redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(keys.WORKERS)
        (seconds, microseconds), records = pipe.execute()
    beats = []
    for name, record in records.items():
        at, _, text = record.partition(" ")
        said = json.loads(text)
        age = max(0.0, seconds + microseconds / 1e6 - float(at))
        if age < _FORGET_AFTER:
            queues, tasks = tuple(said.pop("queues")), tuple(said.pop("tasks", ()))
            beats.append(Heartbeat(name=str(name), age=age, queues=queues, tasks=tasks, **said))
    return sorted(beats, key=lambda beat: beat.name)


def forget_cancelled(timer: Any) -> None:
    """Drop the entries of the event loop's timer that were cancelled.

    Kombu keeps each until its time comes. The time limit of every task is such an entry, so a busy
    worker would hold those of the last minutes: half a megabyte for a thousand tasks.
    """
    if isinstance(timer, Timer):
        timer._queue[:] = [event for event in timer._queue if not event.entry.canceled]
        heapq.heapify(timer._queue)


class HeartbeatStep(bootsteps.StartStopStep):
    """Beats while the consumer takes tasks; stops when its connection is lost."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        self._timer: Any = None
        self._complained = False
        super().__init__(consumer, **kwargs)

    def start(self, consumer: Any) -> None:
        """Begin to beat."""
        self._forget_old(consumer)
        self._beat(consumer)
        self._timer = consumer.timer.call_repeatedly(INTERVAL, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop beating: the connection is lost, or the worker ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shutdown(self, consumer: Any) -> None:
        """Leave the list of workers."""
        self.stop(consumer)
        try:
            consumer.app.redis.hdel(keys.WORKERS, consumer.hostname)
        except RedisError as error:
            logger.debug("Could not take the heartbeat back: %s", error)

    def _beat(self, consumer: Any) -> None:
        liveness.beat()
        said = {
            "pid": os.getpid(),
            "queues": sorted(queue.name for queue in consumer.task_consumer.queues),
            "active": len(state.active_requests),
            "processed": sum(state.total_count.values()) - len(state.active_requests),
            "concurrency": consumer.controller.concurrency,
            "tasks": [request.id for request in islice(state.active_requests, MOST_TASKS)],
        }
        try:
            consumer.app.redis.eval(_BEAT, 1, keys.WORKERS, consumer.hostname, json.dumps(said))
            self._complained = False
        except RedisError as error:
            if not self._complained:
                logger.warning("The heartbeat could not be written: %s", error)
            self._complained = True
        forget_cancelled(consumer.timer)
        consumer.renew_leases()

    def _forget_old(self, consumer: Any) -> None:
        app = consumer.app
        exchange = app.control.mailbox.exchange.name
        try:
            beats = {beat.name for beat in read_heartbeats(app)}
            for name in set(app.redis.hkeys(keys.WORKERS)) - beats:
                # One that was killed did not take itself off the list for control commands.
                consumer.task_consumer.channel._delete(f"{name}.{exchange}", exchange, "", "")
                app.redis.hdel(keys.WORKERS, name)
        except RedisError as error:
            logger.debug("Could not clear old heartbeats: %s", error)
