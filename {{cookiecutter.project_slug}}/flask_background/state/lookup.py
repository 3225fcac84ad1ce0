"""One task, by its id: what is known of it, and how to stop it."""

import logging
from typing import Any

from celery import states
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from ..base.errors import redis_needed
from ..base.keys import ISSUED_TTL
from ..base.records import CANCELLED, TaskInfo, info_from_meta, read
from ..core import Core

logger = logging.getLogger(__name__)


def task_meta(core: Core, task_id: str) -> dict[str, Any] | None:
    """Read a task's record; None for an id never issued. Raises ``BrokerUnavailable``."""
    store = core.backend if core.conf.task_always_eager else core.redis
    with redis_needed():
        text = store.get(core.backend.get_key_for_task(task_id))
    return read(text) if text else None


def task_info(core: Core, task_id: str) -> TaskInfo | None:
    """Say what is known of a task, if anything is. Raises ``BrokerUnavailable``."""
    meta = task_meta(core, task_id)
    return None if meta is None else info_from_meta(task_id, meta)


def cancel(core: Core, task_id: str) -> bool:
    """Stop a task; False if there is nothing to stop. Raises ``BrokerUnavailable``.

    The mark in Redis is what counts: workers look it up before a task begins, and with each
    heartbeat for those that run. The command only makes it quicker, and may be lost.
    """
    meta = task_meta(core, task_id)
    if meta is None or meta["status"] in states.READY_STATES:
        return False
    with redis_needed():
        # The mark outlives the task's record: that of one that waits for days is kept for longer.
        lifetime: Any = core.redis.ttl(core.keys.record(task_id))
        core.redis.set(core.keys.cancelled(task_id), 1, ex=max(lifetime, ISSUED_TTL))
        if meta["status"] not in (states.STARTED, "PROGRESS"):
            core.backend.store_result(task_id, CANCELLED, states.REVOKED)
            _bring_forward(core, task_id)
    try:
        core.control.revoke(task_id, terminate=True, wait=False)
    except (OperationalError, RedisError) as error:
        logger.warning("The workers hear only with their next heartbeat of a cancel: %s", error)
    return True


def _bring_forward(core: Core, task_id: str) -> None:
    """Have a task that waits for its time taken now, by a worker that drops it."""
    sign = f'"id": "{task_id}"'
    for queue in set(core.queue_lists().values()):
        key = core.keys.delayed(queue)
        for item, _ in core.redis.zscan_iter(key, match=f"*{sign}*"):
            if sign in item:
                core.redis.zadd(key, {item: 0}, xx=True)
