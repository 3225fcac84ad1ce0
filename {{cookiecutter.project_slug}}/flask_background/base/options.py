"""The engine's own keys of the config: workers, limits, processes. Celery does not see them."""

from dataclasses import dataclass, field, fields
from typing import TypeGuard

from flask import Flask

from .errors import ConfigurationError
from .workers import WorkerSpec, parse_workers

#: Numbers that the engine works with: the smallest one, and an example.
_NUMBERS: dict[str, tuple[int, int]] = {
    "CELERY_TASK_TIME_LIMIT": (0, 300),
    "CELERY_TASK_SOFT_TIME_LIMIT": (0, 270),
    "CELERY_MAX_DELIVERIES": (1, 5),
    "CELERY_MAX_ARGUMENT_BYTES": (0, 262_144),
    "CELERY_MAX_RESULT_BYTES": (0, 262_144),
    "CELERY_START_TIMEOUT": (0, 10),
    "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": (0, 20),
}
#: Where None means that there is no limit.
_UNLIMITED = ("CELERY_TASK_TIME_LIMIT", "CELERY_TASK_SOFT_TIME_LIMIT")


@dataclass(frozen=True)
class Options:
    """Each is the config's ``CELERY_`` and the name in capitals; times are in seconds."""

    workers: tuple[WorkerSpec, ...] = ()
    submit_packages: tuple[str, ...] = ()
    key_prefix: str = ""
    unsigned_tasks: tuple[str, ...] = ()
    accept_unsigned: bool = False
    max_argument_bytes: int = 256 * 1024
    max_result_bytes: int = 256 * 1024
    max_deliveries: int = 5
    sanitize_arguments: bool = True
    start_local_workers: bool = False
    start_timeout: float = 10.0
    worker_soft_shutdown_timeout: float = 20.0
    scheduler: bool = True
    flower: bool = False
    flower_port: int = 5555
    flower_address: str = "127.0.0.1"
    log_level: str = "info"
    log_dir: str | None = None
    #: All queues that some worker serves; follows from ``workers``.
    queues: frozenset[str] = field(default_factory=frozenset)


#: The keys of the config by the names of the options.
KEYS = {f"CELERY_{one.name.upper()}": one.name for one in fields(Options) if one.name != "queues"}


def read_options(app: Flask, default_queue: str) -> Options:
    """Read those of an application. Raises ``ConfigurationError`` for what cannot work."""
    config = app.config
    values = {option: config[key] for key, option in KEYS.items() if key in config}
    for key, (least, example) in _NUMBERS.items():
        value, unlimited = config.get(key, example), key in _UNLIMITED
        if not (is_number(value, least) or (value is None and unlimited)):
            none = ", or None for no limit" if unlimited else ""
            raise ConfigurationError(
                f"{key} is {value!r}. Give a number of {least} or more, such as {example}{none}."
            )
    workers = parse_workers(values.pop("workers", 1))
    extra = values.pop("submit_packages", ())
    if not isinstance(extra, (list, tuple, set, frozenset)):
        example_name = extra if isinstance(extra, str) else "package"
        raise ConfigurationError(
            f"CELERY_SUBMIT_PACKAGES is {extra!r}: write a list, such as ['{example_name}']."
        )
    queues = {queue for worker in workers for queue in worker.queues}
    if not all(worker.queues for worker in workers):  # one without a list takes from all
        queues.add(config.get("CELERY_TASK_DEFAULT_QUEUE", default_queue))
    return Options(
        workers=workers,
        submit_packages=(app.import_name.partition(".")[0], *extra),
        key_prefix=values.pop("key_prefix", f"{app.name}:"),
        queues=frozenset(queues),
        **values,
    )


def is_number(value: object, least: float) -> TypeGuard[float]:
    """Tell whether a value is a number of ``least`` or more."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= least
