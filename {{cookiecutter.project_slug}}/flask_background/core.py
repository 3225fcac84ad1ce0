"""The core that every layer stands on: the settings, Redis, and sending one message."""

import gc
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from celery import Celery, signals
from flask import Flask, g, has_app_context
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from redis import Redis
from redis.exceptions import RedisError

from . import celery_internals
from .base.errors import (
    BrokerUnavailable,
    ConfigurationError,
    NotCopied,
    NotWritable,
    UnknownQueue,
)
from .base.keys import Keys
from .base.options import Options, read_options
from .base.redis_urls import REQUEST_TIMEOUT, connect_redis
from .base.settings import DEFAULTS, HOOKS, celery_settings, tls_url
from .base.signing import Seal

#: The task that runs submitted functions.
SUBMITTED = "background.call"

#: How a web request publishes: Kombu would otherwise connect again and again, for seconds.
_BRIEF = {
    "socket_timeout": REQUEST_TIMEOUT,
    "socket_connect_timeout": REQUEST_TIMEOUT,
    "max_retries": 0,
}
#: How a worker does: it waits for Redis rather than fail a task's retry.
_PATIENT = {"max_retries": None, "interval_start": 0, "interval_step": 0.5, "interval_max": 5}
#: Seconds before a worker sends again what no Redis of several takes.
_AGAIN = 1.0

_BY_PREFIX: WeakValueDictionary[str, "Core"] = WeakValueDictionary()


class Core(Celery):
    """A Celery that takes its settings from a Flask application."""

    control_cls = HOOKS["control"]
    backend: Any
    control: Any

    def __init__(self, main: str | None, **kwargs: Any) -> None:
        super().__init__(main, **kwargs)
        signals.setup_logging.connect(_keep_logging)
        signals.worker_init.connect(_begin_worker)
        # In this process the URLs of Redis mean the engine's transport.
        TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), HOOKS["transport"]))
        self.steps["consumer"].add(HOOKS["heartbeat"])
        self.options = Options()
        self.keys = Keys("")
        self.seal: Seal | None = None
        self._flask_app: Flask | None = None
        self._scheduled: dict[str, dict[str, Any]] = {}
        #: Whether this process, a worker, waits for Redis.
        self.patient = False
        #: The worker's name, in a worker.
        self.node_name = ""
        self._own: dict[str, Any] = {}
        self._making = threading.RLock()
        #: Takes what is sent ``on_commit``; the extension of a database sets it.
        self.keep: Callable[[str, Any, Any, dict[str, Any]], Any] = _refuse_to_keep
        #: What each worker does every few seconds beside its tasks, by name.
        self.chores: dict[str, Callable[[], None]] = {}

    def init_app(self, app: Flask) -> None:
        """Take the settings of ``app``, and bind the tasks to it and to no other any more."""
        if self.patient:
            raise ConfigurationError(
                "This process is a worker: what it may run was settled when it started. Do not "
                "make another application in it."
            )
        options = read_options(app, DEFAULTS["task_default_queue"])
        settings = celery_settings(app.config, options)
        self.seal = None if settings.get("task_always_eager") else Seal(app.config)
        self.keep, self.chores = _refuse_to_keep, {}
        self.after_fork()
        self._flask_app, self.options, self.keys = app, options, Keys(options.key_prefix)
        _BY_PREFIX[options.key_prefix] = self
        #: The URL of Redis, with the rule for TLS applied.
        self.redis_url = tls_url(app.config.get("REDIS_URL") or settings["broker_url"], app.config)
        settings["beat_schedule"] = {**(settings.get("beat_schedule") or {}), **self._scheduled}
        self.config_from_object(settings, force=True)
        celery_internals.bind_tasks(self)
        # Shared tasks belong to the application that was made last, in every thread.
        self.set_default()
        self.set_current()
        app.extensions["celery"] = self

    @property
    def flask_app(self) -> Flask:
        """The application that tasks run in. Raises ``RuntimeError`` before ``init_app``."""
        if self._flask_app is None:
            raise RuntimeError("This FlaskCelery has no application yet. Call init_app(app) first.")
        return self._flask_app

    def add_entry(self, name: str, entry: dict[str, Any]) -> None:
        """Add an entry to the schedule. Raises ``ValueError`` for a name that is taken."""
        if name in self._scheduled:
            raise ValueError(
                f"Two schedules have the name {name!r}. Give one of them another: "
                "@celery.schedule(…, name='…')."
            )
        self._scheduled[name] = entry
        if self._flask_app is not None:
            self.conf.beat_schedule[name] = entry

    # What this process has once

    def once_per_process[T](self, name: str, make: Callable[[], T]) -> T:
        """Return what ``make`` made for that name; threads that come at once get the same."""
        with self._making:
            if name not in self._own:
                self._own[name] = make()
            made: T = self._own[name]
            return made

    @property
    def redis(self) -> Redis:
        """A client of Redis, which answers text and gives up after half a second."""
        limit = self.conf.redis_max_connections
        return self.once_per_process(
            "redis", lambda: connect_redis(self.redis_url, max_connections=limit)
        )

    def after_fork(self) -> None:
        """Drop what belongs to other settings, or to the process that forked this one."""
        if self._flask_app is None:
            return
        if (listener := self._own.get("listener")) is not None:
            listener.close()
        celery_internals.drop_connections(self)
        if self.seal:
            self.seal.begin()
        self._making = threading.RLock()  # the parent's may have been held at that moment
        self._own = {}

    # Sending

    def send_task(  # type: ignore[override]
        self, name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        """Publish a task's message; every way of sending ends here.

        A web request hears within a second when Redis does not take it. It is not tried again: it
        might have been taken, and would run twice.

        Raises ``BrokerUnavailable`` and ``UnknownQueue``.
        """
        self.refuse_queue(options.get("queue"))
        if has_app_context() and (request_id := g.get("request_id")):
            options["headers"] = {"request_id": request_id, **(options.get("headers") or {})}
        if not self.patient:
            options.setdefault("retry", False)
        while True:
            try:
                return super().send_task(name, args, kwargs, **options)
            except (OperationalError, RedisError) as error:
                refused = isinstance(error.__cause__ or error, (NotCopied, NotWritable))
                if self.patient and options.get("retry") is not False and refused:
                    time.sleep(_AGAIN)  # Kombu waits only for a Redis that it cannot reach
                    continue
                shown = options.get("shadow") or name
                raise BrokerUnavailable(f"Redis did not take the task {shown}: {error}") from error

    def queue_lists(self) -> dict[str, str]:
        """Name the lists of all queues, without the prefix, and the queue of each.

        Kombu keeps a list for each priority step; that of step 0 has the queue's own name.
        https://docs.celeryq.dev/en/stable/userguide/routing.html#redis-message-priorities
        """
        options = self.conf.broker_transport_options
        separator = options.get("sep", "\x06\x16")
        steps = options.get("priority_steps", (0, 3, 6, 9))
        return {
            f"{queue.name}{separator}{step}" if step else queue.name: queue.name
            for queue in self.conf.task_queues
            for step in steps
        }

    def refuse_queue(self, queue: object) -> None:
        """Raise ``UnknownQueue`` for a queue that no worker of the config serves."""
        served = self.options.queues
        if isinstance(queue, str) and served and queue not in served:
            raise UnknownQueue(
                f"No worker serves the queue {queue!r}. CELERY_WORKERS has: "
                f"{', '.join(sorted(served))}."
            )

    def connection_for_write(self, url: Any = None, **kwargs: Any) -> Any:
        """Make a connection to publish on. A web request may not wait long; a worker may."""
        if not self.patient:
            kwargs["transport_options"] = {**_BRIEF, **(kwargs.get("transport_options") or {})}
        return super().connection_for_write(url, **kwargs)

    def be_patient(self) -> None:
        """Let this process, a worker, wait for Redis rather than fail a task's retry."""
        self.patient = True
        self.conf.task_publish_retry_policy = _PATIENT


def freeze_memory() -> None:
    """Keep what is loaded out of the collector's sight, so that forks go on sharing it."""
    gc.collect()
    gc.freeze()


def _begin_worker(sender: Any, **_: Any) -> None:
    sender.app.be_patient()
    freeze_memory()


def _keep_logging(loglevel: int | None = None, **_: Any) -> None:
    """Leave the application's logging as it is. Celery sets up its own where nobody answers."""
    if loglevel:
        logging.getLogger("celery").setLevel(loglevel)


def _refuse_to_keep(*_: Any) -> Any:
    raise ConfigurationError("on_commit needs a database, and this application has none.")


def core_of(prefix: str) -> Core | None:
    """Return the one whose keys in Redis have a prefix; of several the one that was made last."""
    return _BY_PREFIX.get(prefix)


def find_core(app: Flask) -> Core:
    """Return the Celery of ``app``. Raises ``ConfigurationError`` when it has none."""
    celery = app.extensions.get("celery")
    if not isinstance(celery, Core):
        raise ConfigurationError(
            "The application has no FlaskCelery. Call celery.init_app(app) in its factory."
        )
    return celery
