"""Asking the workers and telling them what to do, from the application's code."""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from celery import Celery
from celery.app.control import Control

from .. import celery_internals
from ..base.errors import BackgroundError, redis_needed
from ..core import Core
from . import heartbeats
from .lookup import task_info

logger = logging.getLogger(__name__)

#: Seconds for which a command waits. Workers try again after 2, 4, 6 … seconds, and count as alive
#: for 30 seconds without a sign of life: none that counts needs longer once Redis is back.
_WORKERS_BACK_WITHIN = 10.0


class Inspector:
    """Celery's ``inspect`` commands as methods: ``ping``, ``active``, ``stats``, ``registered`` …

    Each takes ``timeout`` (seconds, default 1) and ``destination`` (names of workers), and the
    command's own arguments. The answer is a dict by worker, or None when no worker answered.
    ``inspect["ping"]`` is ``inspect.ping``.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def __getattr__(self, command: str) -> Callable[..., Any]:
        if not hasattr(self._celery.control.inspect, command):
            raise AttributeError(f"Celery's inspect has no command {command!r}.")

        def ask(*args: Any, timeout: float = 1.0, destination: Any = None, **kwargs: Any) -> Any:
            names = _names(destination)
            with redis_needed():
                inspect = self._celery.control.inspect(timeout=timeout, destination=names)
                return getattr(inspect, command)(*args, **kwargs)

        return ask

    __getitem__ = __getattr__


def _names(destination: str | Iterable[str] | None) -> list[str] | None:
    """Name the workers that are meant; None for all. A text may name several: ``a@x,b@x``."""
    if isinstance(destination, str):
        destination = destination.split(",")
    return None if destination is None else list(destination)


class RemoteControl(Control):
    """Celery's ``control`` commands, made safe where they are not.

    Those that workers answer return the answers, by worker. With ``reply`` given, each is Celery's
    own in all.
    """

    # What the types of Celery do not tell.
    app: Core
    mailbox: Any
    #: The workers that refused the last command, and why.
    refused: Mapping[str, str] = {}

    def broadcast(  # type: ignore[override]
        self,
        command: str,
        arguments: Any = None,
        destination: Any = None,
        connection: Any = None,
        *,
        wait: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Send a command to the workers, over a connection of its own unless one is given.

        Redis keeps no command for a worker that does not listen now. So this waits for those that
        give signs of life and have lost their connection, when Redis was restarted for example.

        Celery would hold one of the pool and then wait for a second one to send with. Some
        threads that do so at once hold all there are, and wait for each other forever. And one
        of the pool may have died with the last restart of Redis, which is not tried again.
        """
        destination = destination and self._with_places(destination)
        if connection is not None:
            return super().broadcast(command, arguments, destination, connection, **kwargs)
        with self.app.connection_for_write() as own:
            if wait and self.app.conf.worker_enable_remote_control:
                self._wait_for_workers(own.default_channel)
            answers = super().broadcast(command, arguments, destination, own, **kwargs)
        if kwargs.get("reply"):
            known = list(self._for_locked(command, destination, _by_worker(answers)))
            answers = [*(answers or ()), *known]
            if callback := kwargs.get("callback"):
                for answer in known:
                    callback(answer)
        self.refused = _refusals(_by_worker(answers))
        return answers

    def _with_places(self, destination: Iterable[str]) -> list[str]:
        """Add the other places of the workers that are named: a worker's are NAME.2@HOST …"""
        wanted = set(destination)
        for beat in heartbeats.latest(self.app):
            name, _, host = beat.name.partition("@")
            if f"{name.partition('.')[0]}@{host}" in wanted:
                wanted.add(beat.name)
        return sorted(wanted)

    def _for_locked(
        self, command: str, destination: Any, heard: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Answer for the places that cannot, while a task holds the interpreter's lock."""
        for beat in heartbeats.latest(self.app):
            meant = beat.name not in heard and (not destination or beat.name in destination)
            if meant and beat.alive and beat.locked:
                answer = _known_of(self.app, beat, command)
                if answer is not None:
                    yield {beat.name: answer}

    def _wait_for_workers(self, channel: Any) -> None:
        if not isinstance(channel, celery_internals.Channel):
            return  # another transport
        end = time.monotonic() + _WORKERS_BACK_WITHIN
        while True:
            alive = sum(beat.alive for beat in heartbeats.latest(self.app))
            silent = alive - channel.listeners(self.mailbox.exchange.name)
            if silent <= 0:
                return
            if time.monotonic() > end:
                logger.warning("%d of %d workers will not hear the command.", silent, alive)
                return
            time.sleep(0.05)

    def autoscale(self, first: int, second: int, **kwargs: Any) -> Any:  # type: ignore[override]
        """Let the pools grow and shrink between two sizes, which are easily mixed up."""
        return super().autoscale(max(first, second), min(first, second), **kwargs)


def _known_of(core: Core, beat: heartbeats.Heartbeat, command: str) -> Any:
    """Say what is known here of a place's answer to a command; None if nothing."""
    if command == "active":
        tasks = filter(None, (task_info(core, task_id) for task_id in beat.tasks))
        who = {"hostname": beat.name, "worker_pid": beat.pid}
        return [{"id": task.id, "name": task.name, **who} for task in tasks]
    known = {
        "ping": {"ok": "pong"},
        "reserved": [],
        "active_queues": [{"name": queue} for queue in beat.queues],
        "stats": {"pid": beat.pid, "pool": {"max-concurrency": beat.concurrency}},
    }
    return known.get(command)


def _by_worker(answers: Iterable[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {worker: answer for one in answers or () for worker, answer in one.items()}


def _refusals(answers: Mapping[str, Any]) -> dict[str, str]:
    return {
        worker: answer["error"]
        for worker, answer in answers.items()
        if isinstance(answer, Mapping) and "error" in answer
    }


def _answering(name: str) -> Callable[..., Any]:
    plain = getattr(RemoteControl, name)

    @functools.wraps(plain)
    def command(self: RemoteControl, *args: Any, destination: Any = None, **options: Any) -> Any:
        options["destination"] = _names(destination)
        with redis_needed():
            if "reply" in options:
                return plain(self, *args, **options)
            answers = _by_worker(plain(self, *args, reply=True, **options))
        if refused := _refusals(answers):
            said = "; ".join(f"{worker}: {reason}" for worker, reason in refused.items())
            raise BackgroundError(f"{name} was refused by {said}")
        return answers

    return command


_ANSWERED = "add_consumer autoscale cancel_consumer pool_grow pool_restart pool_shrink"
for _name in (*_ANSWERED.split(), "rate_limit", "time_limit"):
    setattr(RemoteControl, _name, _answering(_name))
