"""``CELERY_WORKERS``: which workers there are, what they serve, and the options of each."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

#: What each worker gets unless its own options say otherwise. Gossip and mingle only matter to
#: Celery's own monitors, and cost connections and commands; our heartbeat is worker/beat.py.
_DEFAULT_OPTIONS = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
#: Options of ``celery worker`` that are no worker's own.
_TAKEN = {"hostname", "detach", "beat"}
#: What Flower needs to know of a worker at all.
_WATCHED_OPTIONS = {"without_heartbeat": False, "task_events": True}


@dataclass(frozen=True)
class WorkerSpec:
    """One worker of the config: its name, the queues it serves (none: all), its options."""

    name: str
    queues: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def argv(self, loglevel: str, *, watched: bool = False) -> list[str]:
        """Spell the worker as arguments of ``celery worker``; ``watched`` if Flower is to see it.

        Celery's command line says what is wrong with an option or its value.
        """
        defaults = _DEFAULT_OPTIONS | (_WATCHED_OPTIONS if watched else {})
        argv = ["worker", "--hostname", f"{self.name}@{worker_host()}"]
        for key, value in {"loglevel": loglevel, **defaults, **self.options}.items():
            argv += _spell(key, value)
        if self.queues:
            argv += ["--queues", ",".join(self.queues)]
        return argv


def worker_host() -> str:
    """Name the machine, as Celery's command line takes it.

    A second cluster of one machine, as during a release, has another name in its environment.
    """
    return os.environ.get("CELERY_WORKER_HOST", "%h")


def parse_workers(value: object) -> tuple[WorkerSpec, ...]:
    """Read ``CELERY_WORKERS``: a number, a list of names, or a dict of options by name.

    Raises ``ConfigurationError`` that names the wrong value and shows a right one.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        names = ["worker"] if value == 1 else [f"worker{n}" for n in range(1, value + 1)]
        return tuple(WorkerSpec(name) for name in names)
    if isinstance(value, (list, tuple)) and value:
        workers = tuple(_worker(name, {}) for name in value)
    elif isinstance(value, Mapping) and value:
        workers = tuple(_worker(name, options) for name, options in value.items())
    else:
        raise ConfigurationError(
            f"CELERY_WORKERS is {value!r}. Give a number of workers (2), a list of their names "
            "(['mail', 'reports']), or options by name ({'mail': {'queues': ['mail']}})."
        )
    if len({worker.name for worker in workers}) < len(workers):
        raise ConfigurationError(f"CELERY_WORKERS names a worker twice: {value!r}.")
    return workers


def _worker(name: object, options: object) -> WorkerSpec:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"CELERY_WORKERS has the worker name {name!r}. A name begins with a letter and holds "
            "letters, digits, '-' and '_', such as 'reports'."
        )
    if not isinstance(options, Mapping):
        raise ConfigurationError(
            f"CELERY_WORKERS[{name!r}] is {options!r}. Give a dict of options, such as "
            "{'concurrency': 2, 'queues': ['reports']}."
        )
    rest = {str(key).replace("-", "_"): option for key, option in options.items()}
    if taken := _TAKEN & rest.keys():
        raise ConfigurationError(
            f"CELERY_WORKERS[{name!r}] has the option {min(taken)!r}, which the cluster decides."
        )
    return WorkerSpec(name, _queues(name, rest.pop("queues", ())), rest)


def _queues(worker: str, value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple, set)) or not all(
        isinstance(name, str) and name.strip() for name in names
    ):
        raise ConfigurationError(
            f"CELERY_WORKERS[{worker!r}]['queues'] is {value!r}. Give a list of names, such as "
            "['mail', 'reports']."
        )
    return tuple(dict.fromkeys(name.strip() for name in names))


def _spell(key: str, value: object) -> list[str]:
    flag = f"--{key.replace('_', '-')}"
    if value is None or isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, (list, tuple, set)):
        value = ",".join(str(item) for item in value)
    return [flag, str(value)]
