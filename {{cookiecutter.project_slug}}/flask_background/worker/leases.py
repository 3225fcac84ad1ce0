"""What a worker has taken and not acknowledged, each message on a lease that it renews.

The heartbeat calls :meth:`QoS.renew`. A message whose lease was not renewed is put back by whatever
worker looks next: a dead worker's tasks return, and long tasks go on.
"""

import logging
import time
from collections import Counter
from typing import Any

from redis.exceptions import RedisError

from .. import celery_internals
from ..state import activity

logger = logging.getLogger(__name__)

#: How many messages of lost workers are put back in one go.
_AT_ONCE = 200


class QoS(celery_internals.QoS):
    """What a channel has taken and not acknowledged."""

    channel: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: For each tag how many times in a row Redis did not have it.
        self.missing: Counter[str] = Counter()
        self._sweep_at = 0.0

    def append(self, message: Any, delivery_tag: str) -> None:
        """Remember a message; in Redis it is noted since it was taken."""
        if delivery_tag == self.channel.taken.tag:
            message.taken = self.channel.taken
            self.hold(message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Drop a message that is done. If Redis refuses or is silent, it comes back.

        Held on to, it would keep its place among those that this worker may hold, for ever.
        """
        if delivery_tag in activity.LET_GO:
            self.forget(delivery_tag)  # its end has told Redis
            return
        try:
            super().ack(delivery_tag)
        except RedisError as error:
            logger.error("A task that has ended will be done again: %s", error)
            self.forget(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put a message back at once, or drop it; if that cannot be, it comes back later."""
        try:
            super().reject(delivery_tag, requeue)
        except RedisError as error:
            logger.error("A task comes back only when its lease ends: %s", error)
            self.forget(delivery_tag)

    def renew(self) -> None:
        """Extend the leases of what this channel holds. Raises ``RedisError``."""
        if held := self.held:
            answer = self.channel.script("renew", [self.unacked_index_key], *held)
            missing = {tag.decode() for tag in answer}.intersection(self.held)
            self.missing = Counter({tag: self.missing[tag] + 1 for tag in missing})
            # Missing once is a task that ends at this moment.
            if lost := sum(times == 2 for times in self.missing.values()):
                logger.warning("%d tasks were given to other workers meanwhile.", lost)

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Put back what workers hold that have not renewed their leases."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + self.channel.unacked_restore_interval / 2
        lease = self.visibility_timeout
        tags = self.channel.script("expired", [self.unacked_index_key], lease, _AT_ONCE)
        restored = sum(self.channel.put_back(tag.decode(), lease=lease) for tag in tags)
        if restored:
            logger.warning("%d tasks of lost workers go back into their queues.", restored)
        if len(tags) == _AT_ONCE:
            self._sweep_at = 0.0

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back whose delivery failed; ``leftmost`` behind all others."""
        self.channel.put_back(tag, command="LPUSH" if leftmost else "RPUSH")

    def restore_unacked(self, client: Any = None) -> None:
        """Put everything back because this worker stops; that is no failed delivery."""
        try:
            for tag in self.held:
                self.channel.put_back(tag, failed_before=False)
        except RedisError as error:
            logger.warning("Tasks at work come back when their leases end: %s", error)
        self.forget_all()
