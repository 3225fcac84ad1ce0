"""From the ``CELERY_*`` keys of a Flask config to Celery's settings.

Every ``CELERY_*`` key reaches Celery under its lower-case name (``CELERY_TASK_TIME_LIMIT`` is
``task_time_limit``); nothing else of the config does, so no secret lands in ``inspect conf``.
The names: https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

import functools
import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from celery.app.defaults import NAMESPACES, flatten
from celery.schedules import BaseSchedule
from kombu import Queue

from . import options as own
from .errors import ConfigurationError
from .options import Options
from .redis_urls import celery_url, has_sentinels, with_tls_rule

logger = logging.getLogger(__name__)

#: Where Celery finds the engine. It imports these by their names, so no import of ours leads there.
HOOKS = {
    "transport": "flask_background.worker.transport:Transport",  # what redis:// means to Kombu
    "consumer": "flask_background.worker.consumer:BackgroundConsumer",  # worker_consumer
    "heartbeat": "flask_background.worker.beat:HeartbeatStep",  # a step of that consumer
    "pool": "flask_background.worker.place:TaskPool",  # worker_pool in a place
    "autoscaler": "flask_background.worker.place:Autoscaler",  # worker_autoscaler in a place
    "settler": "flask_background.worker.settling:Settler",  # sees to what a killed place had
    "request": "flask_background.worker.request:BackgroundRequest",  # Task.Request
    "control": "flask_background.state.remote:RemoteControl",  # Celery.control_cls
    "scheduler": "flask_background.state.scheduler:RedisScheduler",  # beat_scheduler
    "results": "flask_background.state.results:ResultBackend",  # override_backends
    "eager results": "flask_background.state.results:EagerBackend",
}

#: Seconds from one heartbeat of a worker to the next.
INTERVAL = 5

#: A request may not hang on Redis: two more tries, at most half a second in all.
_BRIEF_RETRIES = {"max_retries": 2, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2}

DEFAULTS: dict[str, Any] = {
    # JSON only: whoever can write to Redis must not be able to run code.
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    # At least once: a task is acknowledged when it has ended, and comes back if its worker dies.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "worker_consumer": HOOKS["consumer"],
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    # Limits, in seconds; the soft one raises SoftTimeLimitExceeded in the task.
    "task_time_limit": 300,
    "task_soft_time_limit": 270,
    "task_track_started": True,
    "result_expires": 3600,
    "result_backend_always_retry": True,
    "result_backend_max_retries": 10,
    "result_backend_transport_options": {"retry_policy": _BRIEF_RETRIES | {"timeout": 1.0}},
    "task_publish_retry_policy": _BRIEF_RETRIES,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_pool_limit": 3,
    "redis_max_connections": 20,
    # One pool of connections for all threads that store results, not one for each.
    "result_backend_thread_safe": True,
    "redis_socket_timeout": 5,
    "redis_socket_connect_timeout": 2,
    "redis_socket_keepalive": True,
    "redis_retry_on_timeout": True,
    "redis_backend_health_check_interval": 25,
    # A place that grew is replaced after its task (kilobytes), and each one after so many tasks.
    # Replacing one costs seconds in which it takes no task, so it should be rare.
    "worker_max_memory_per_child": 200_000,
    "worker_max_tasks_per_child": 10_000,
    "worker_concurrency": 1,
    "worker_pool_restarts": True,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "task_default_queue": "default",
    "beat_scheduler": HOOKS["scheduler"],
    "beat_max_loop_interval": 5,
    "timezone": "UTC",
}

_TRANSPORT_DEFAULTS: dict[str, Any] = {
    # For how long a worker holds a task without a word to Redis; it renews this every 5 seconds.
    "visibility_timeout": 40,
    # How often each worker looks for tasks of workers that are gone.
    "unacked_restore_interval": 10,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 25,
}

#: Names that do not follow the rule ``CELERY_`` + setting, and work all the same.
_MORE_NAMES = {
    "CELERYBEAT_SCHEDULE": "beat_schedule",
    "CELERY_ALWAYS_EAGER": "task_always_eager",
}

#: Seconds. Some heartbeats may fail before a task counts as lost.
_SHORTEST_LEASE = 4 * INTERVAL

_JSON_ONLY = ("accept_content", "result_accept_content", "task_serializer", "result_serializer")


def celery_settings(config: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Make Celery's settings from a Flask config: our defaults, then what the config says.

    ``REDIS_URL`` is broker and result backend unless ``CELERY_BROKER_URL`` or
    ``CELERY_RESULT_BACKEND`` say otherwise. Raises ``ConfigurationError`` where a value would make
    the promise of this layer untrue.
    """
    settings = dict(DEFAULTS)
    url = config.get("REDIS_URL") or "redis://127.0.0.1:6379/0"
    settings |= {"broker_url": url, "result_backend": url}
    if limit := config.get("REDIS_MAX_CONNECTIONS"):
        settings |= {"redis_max_connections": limit, "broker_pool_limit": min(limit, 3)}
    _check_names([key for key in config if key.startswith("CELERY")])
    for key, value in config.items():
        if key in _MORE_NAMES:
            settings[_MORE_NAMES[key]] = value
        elif key.startswith("CELERY_") and key not in own.KEYS:
            settings[key.removeprefix("CELERY_").lower()] = value
    schedules = (config.get(f"CELERY{name}_SCHEDULE") or {} for name in ("BEAT", "_BEAT"))
    settings["beat_schedule"] = {name: entry for one in schedules for name, entry in one.items()}
    if settings.get("task_always_eager"):
        # Tests need no Redis: tasks run where they are sent, and their results are kept here.
        settings |= {
            "broker_url": "memory://",
            "result_backend": "cache+memory://",
            "task_store_eager_result": True,
        }
    for name in ("broker_url", "result_backend"):
        settings[name] = celery_url(tls_url(settings[name], config))
    if str(settings["result_backend"]).startswith("redis+socket:"):
        settings["redis_socket_keepalive"] = False  # is for TCP
    settings["override_backends"] = {
        **dict.fromkeys(("redis", "rediss", "socket"), HOOKS["results"]),
        "cache": HOOKS["eager results"],
    }
    _set_transport_options(settings, options.key_prefix)
    queues = options.queues | {settings["task_default_queue"]}
    settings.setdefault("task_queues", [Queue(name, routing_key=name) for name in sorted(queues)])
    _check(settings)
    return settings


@functools.cache
def _old_names() -> dict[str, str]:
    """Return the keys that older Celery had, with those of today."""
    found = {}
    for space, inside in NAMESPACES.items():
        for name, option in inside.items() if isinstance(inside, dict) else ():
            for old in option.old:
                found[old.format(name).upper()] = f"CELERY_{space}_{name}".upper()
    return found


def _check_names(given: Iterable[str]) -> None:
    """Refuse old names of settings, and warn of those that nobody reads."""
    settings = {"visibility_timeout", *DEFAULTS, *dict(flatten(NAMESPACES))}
    known = {f"CELERY_{name.upper()}" for name in settings} | own.KEYS.keys() | _MORE_NAMES.keys()
    said = []
    for key in sorted(set(given) - known):
        if key in _old_names():
            raise ConfigurationError(f"{key} is an old name. Write {_old_names()[key]}.")
        nearest = get_close_matches(key, known, 1, cutoff=0.8)
        said.append(f"{key} (did you mean {nearest[0]}?)" if nearest else key)
    if said:
        logger.warning("Nobody reads these settings: %s", ", ".join(said))


def tls_url(url: str, config: Mapping[str, Any]) -> str:
    """Apply the config's TLS rule (``REDIS_TLS_VERIFY``, ``REDIS_TLS_CA``) to a Redis URL."""
    return with_tls_rule(
        url, verify=config.get("REDIS_TLS_VERIFY", True), ca_file=config.get("REDIS_TLS_CA")
    )


def _set_transport_options(settings: dict[str, Any], prefix: str) -> None:
    """Put the keys' prefix and the visibility timeout where Celery reads them on Redis.

    https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout
    """
    transport = dict(_TRANSPORT_DEFAULTS)
    if has_sentinels(str(settings["broker_url"])):
        # A primary that stands still says nothing; who waits for it shall soon ask for another.
        transport["health_check_interval"] = INTERVAL
    transport |= dict(settings.get("broker_transport_options") or {})
    visibility = settings.get("visibility_timeout", transport["visibility_timeout"])
    transport |= {"visibility_timeout": visibility, "global_keyprefix": prefix}
    settings["visibility_timeout"] = visibility
    settings["broker_transport_options"] = transport
    settings["result_backend_transport_options"] = {
        **(settings["result_backend_transport_options"] or {}),
        "visibility_timeout": visibility,
        "global_keyprefix": prefix,
    }


#: What to do about a schedule that cannot work.
SAY_WHEN = (
    "Give seconds (a number above 0), a timedelta, or a schedule of Celery's such as "
    "crontab(hour=7)."
)


def can_say_when(schedule: object) -> bool:
    """Tell whether a task can run by that."""
    every = getattr(schedule, "run_every", schedule)
    if isinstance(every, timedelta):
        return every > timedelta(0)
    longest = timedelta.max.total_seconds()
    return isinstance(schedule, BaseSchedule) or (own.is_number(every, 0) and 0 < every <= longest)


def _check(settings: Mapping[str, Any]) -> None:
    for name, entry in (settings.get("beat_schedule") or {}).items():
        if not can_say_when(when := dict(entry).get("schedule")):
            raise ConfigurationError(
                f"The schedule of {name!r} in CELERY_BEAT_SCHEDULE is {when!r}. {SAY_WHEN}"
            )
    for name in _JSON_ONLY:
        if settings[name] not in ("json", ["json"], ("json",)):
            raise ConfigurationError(
                f"CELERY_{name.upper()} is {settings[name]!r}: tasks and results are JSON only, "
                "because pickle lets whoever can write to Redis run code. Remove the setting."
            )
    if not own.is_number(lease := settings["visibility_timeout"], _SHORTEST_LEASE):
        raise ConfigurationError(
            f"The visibility timeout is {lease!r} seconds, but a worker says only "
            f"every {INTERVAL} s that it still holds its tasks: others would get them while they "
            f"run. Set CELERY_VISIBILITY_TIMEOUT to {_SHORTEST_LEASE} or more."
        )
