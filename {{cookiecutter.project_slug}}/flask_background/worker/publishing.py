"""What is sent on a channel: tasks, commands to the workers, and their answers.

Sending a task is one step in Redis (the script ``send``): its message, its record, so that it is
known from then on, and the call that wakes a worker.
"""

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from kombu.utils.json import dumps
from redis import Redis
from redis.exceptions import NoScriptError, RedisError

from .. import celery_internals
from ..base import scripts
from ..base.errors import NotCopied
from ..base.keys import ISSUED_TTL, Keys
from ..base.records import pending
from ..base.redis_urls import NAMELESS, sentinel_parameters
from ..base.signing import Seal
from ..core import Core, core_of
from ..state import failed

logger = logging.getLogger(__name__)

#: Answers to control commands go to queues with this exchange, and for so many seconds: whoever
#: asked may be gone.
_ANSWERS, _ANSWERS_KEPT = "reply.", 60
#: Milliseconds for which a replica may take to confirm a message, where there are replicas.
_COPIED_WITHIN = 300
#: How the name of the exchange for commands to the workers ends.
_COMMANDS = ".pidbox"


class PublishingChannel(celery_internals.Channel):
    """Sends with one script, and signs what it sends."""

    _plain: Redis | None = None

    def parameters_of(self, url: str) -> dict[str, Any]:
        """Return what connections need to a URL."""
        return sentinel_parameters(url) | NAMELESS

    def publish(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Sign a message, put it into its list, and wake a worker that waits."""
        expires = self.expires(queue)
        if (seal := self.seal) and not expires:
            seal.sign(message)
        if kwargs.get("_publish_batch") or expires:
            # Rare: batches, and queues for answers. Nobody waits for their call to wake.
            super().publish(queue, message, **kwargs)
            return
        key = self._key(self.list_for(queue, message))
        delivery, headers = message["properties"]["delivery_info"], message["headers"]
        if str(delivery["exchange"]).startswith(_ANSWERS):
            with self._client().pipeline(transaction=False) as pipe:
                pipe.lpush(key, dumps(message))
                pipe.expire(key, _ANSWERS_KEPT)
                pipe.execute()
            return
        task_id, record, delay = str(headers.get("id") or ""), "", self.delay_of(message)
        if task_id and not headers.get("ignore_result"):
            record = pending(task_id, headers.get("shadow") or headers.get("task"))
        names = self.keys
        keys = [*self.places(queue, key), names.recent, names.record(task_id)]
        values = [dumps(message), delay, task_id, record, ISSUED_TTL + int(delay)]
        if "primary" in self.pool.connection_kwargs:
            self._send_copied(keys, values)
        else:
            scripts.call(self._client(), "send", keys, *values)

    def _send_copied(self, keys: list[str], values: list[Any]) -> None:
        """Send where Redis has replicas: one of them has to confirm it, or it is taken out again.

        Raises ``NotCopied``. If a worker has taken it meanwhile, it runs.
        """
        client: Any = self._client()
        known, copies = scripts.evalsha("send", keys, values), 0
        for words in (known, ["EVAL", scripts.TEXT, *known[2:]]):
            with suppress(NoScriptError), client.pipeline(transaction=False) as pipe:
                pipe.execute_command(*words)
                pipe.wait(1, _COPIED_WITHIN)
                *_, copies = pipe.execute()
                break
        if not copies:
            with suppress(RedisError):
                scripts.call(client, "withdraw", keys, *values)
            raise NotCopied("No replica of Redis has confirmed it in time.")

    def delay_of(self, message: dict[str, Any]) -> float:
        """Say for how many seconds a message waits in Redis, and note that it need not again."""
        eta = message["headers"].get("eta")
        if not eta:
            return 0
        message["properties"]["delivery_info"]["due"] = True
        try:
            when = datetime.fromisoformat(eta)
            when = when if when.tzinfo else when.replace(tzinfo=self.core.timezone)
            return max(0.0, when.timestamp() - time.time())
        except (TypeError, ValueError, OverflowError):  # the worker says what is wrong with it
            return 0

    def places(self, queue: str, key: str) -> list[str]:
        """Name where a message may go: its list, the list to wake, the messages for later."""
        keys = self.keys
        return [key, keys.wake(queue), keys.delayed(queue)]

    def count_and_drop_delayed(self, queue: str) -> int:
        """Drop the messages of a queue that are for later, and return how many there were."""
        with self._client().pipeline() as pipe:
            pipe.zcard(self.keys.delayed(queue))
            pipe.delete(self.keys.delayed(queue))
            return int(pipe.execute()[0])

    def before_broadcast(self, exchange: str, message: dict[str, Any]) -> None:
        """Sign a command to the workers."""
        if self.seal and exchange.endswith(_COMMANDS):
            self.seal.sign_command(message)

    def hears(self, exchange: str, message: dict[str, Any]) -> bool:
        """Drop a command that is not signed, or came before."""
        if not exchange.endswith(_COMMANDS) or not self.seal:
            return True
        try:
            heard = self.seal.is_fresh_command(message)
        except Exception:  # whatever somebody published
            heard = False
        if not heard:
            logger.error("A command to the workers was dropped: it has no valid signature.")
            failed.count_refused(self.core)
        return heard

    @property
    def core(self) -> Core:
        """The application's Celery."""
        core = core_of(self.global_keyprefix)
        assert core is not None  # noqa: S101  (its application made this channel)
        return core

    @property
    def seal(self) -> Seal | None:
        """What signs the application's messages, if they are signed."""
        core = core_of(self.global_keyprefix)
        return core.seal if core else None

    def script(self, command: str, keys: Iterable[str], *values: Any) -> Any:
        """Run a command of ``redis.lua``. Raises ``RedisError``."""
        return scripts.call(self._client(), command, map(self._key, keys), *values)

    @property
    def keys(self) -> Keys:
        """The names of the application's keys."""
        return self.core.keys

    def _client(self) -> Redis:
        # Not the channel's own: it prefixes the keys of some commands, and forgets others.
        if self._plain is None or self._plain.connection_pool is not self.pool:
            self._plain = Redis(connection_pool=self.pool)
        return self._plain

    def _key(self, name: str) -> str:
        return f"{self.global_keyprefix}{name}"
