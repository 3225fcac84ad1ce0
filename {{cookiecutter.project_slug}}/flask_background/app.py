"""The Flask extension: a Celery that takes its settings from a Flask application."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from celery import Task
from flask import Flask

from .base.errors import redis_needed
from .base.records import TaskInfo, readable, whole
from .cluster.local import LocalCluster
from .commands.celery import celery_group, path_given_to_flask
from .core import SUBMITTED, Core
from .sending import schedules, submitting
from .sending.futures import Future
from .sending.pool import FuturePool
from .sending.tasks import FlaskTask, TaskNamespace
from .state import activity, failed, heartbeats, lookup, overview
from .state.activity import TaskStatistics
from .state.failed import FAILED, GIVEN_UP, REFUSED, FailedTask
from .state.heartbeats import Heartbeat
from .state.overview import Overview, Readiness
from .state.remote import Inspector
from .state.schedule import ScheduleStatus, schedule_status


class FlaskCelery(Core):
    """Celery for Flask: all that Celery's documentation says holds, and this is added.

    Make it at module level and call :meth:`init_app` in the application factory, or pass the
    application. ``base_task`` is a class of your own for all tasks; they still run inside the
    application context.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        base_task: type[Task[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        task_cls: type = base_task or FlaskTask
        if not issubclass(task_cls, FlaskTask):
            task_cls = type(str(task_cls.__name__), (FlaskTask, task_cls), {"abstract": True})
        super().__init__(app.import_name if app else None, task_cls=task_cls, **kwargs)
        activity.connect_signals()
        self._local_cluster = LocalCluster(self)
        self._call = self.task(name=SUBMITTED, bind=True)(submitting.run_function)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Take the settings of ``app``, bind the tasks to it, and add ``flask celery``.

        Called again with another application (as tests do), the tasks follow the new one.
        Raises ``ConfigurationError`` when a ``CELERY_*`` value cannot work.
        """
        super().init_app(app)
        self._local_cluster.app_path = path_given_to_flask()
        app.cli.add_command(celery_group)

    # Tasks and schedules

    @property
    def task(self) -> TaskNamespace:  # type: ignore[override]
        """The decorator ``@celery.task``; also ``celery.task.NAME`` and ``celery.task["NAME"]``."""
        return TaskNamespace(self)

    @property
    def schedule(self) -> schedules.ScheduleNamespace:
        """The decorator ``@celery.schedule(…)``; also ``celery.schedule.NAME``."""
        return schedules.ScheduleNamespace(self)

    def schedule_status(self) -> list[ScheduleStatus]:
        """When each scheduled task ran and runs next. Raises ``redis.exceptions.RedisError``."""
        return schedule_status(self)

    # Sending

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        queue: str | None = None,
        countdown: float | None = None,
        eta: Any = None,
        expires: Any = None,
        priority: int | None = None,
        retry: bool | None = None,
        on_commit: bool | None = None,
        **kwargs: Any,
    ) -> Future:
        """Send a function, or a registered task, to the workers.

        ``fn`` is a public function at the top of one of the application's modules. ``countdown``
        is in seconds, ``eta`` a datetime, ``expires`` either; ``priority`` 0 (first) to 9;
        ``retry`` whether to try again when Redis does not answer at once; ``on_commit`` whether to
        wait for the commit of the database session. All else goes to ``fn``.

        Raises ``SubmitError`` when ``fn`` or an argument cannot be sent, ``UnknownQueue``, and
        ``BrokerUnavailable`` within a second when Redis is away.
        """
        given = (queue, countdown, eta, expires, priority, retry, on_commit)
        options = submitting.options_of(fn, given)
        return self.apply(fn, args, kwargs, **options)

    def apply(
        self,
        fn: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Future:
        """Send as :meth:`submit` does, with any option of Celery's ``apply_async``."""
        if self.options.start_local_workers and not self.conf.task_always_eager:
            self.start()
        return submitting.send(self, self._call, fn, tuple(args), dict(kwargs or {}), options)

    def map(
        self, fn: Callable[..., Any], *arguments: Iterable[Any], **constants: Any
    ) -> FuturePool:
        """Submit ``fn`` once for each list of arguments: ``map(fn, [1, 2], [3, 4], y=2)``."""
        return FuturePool([self.submit(fn, *args, **constants) for args in arguments])

    def get(self, task_id: str) -> Future:
        """Take up the future of a task that was sent before, perhaps by another process."""
        return Future(self, task_id)

    # Looking and controlling

    def task_info(self, task_id: str) -> TaskInfo | None:
        """What is known of a task, None if nothing is (any more). Raises ``BrokerUnavailable``."""
        return lookup.task_info(self, task_id)

    def cancel(self, task_id: str) -> bool:
        """Stop a task: a waiting one never runs, a running one is ended where it stands.

        Returns False when the task had ended or is unknown. Raises ``BrokerUnavailable``.
        """
        return lookup.cancel(self, task_id)

    def failures(self) -> list[FailedTask]:
        """The latest tasks that failed, newest first. Raises ``RedisError``."""
        return failed.latest(self, FAILED)

    def dead_letters(self) -> list[FailedTask]:
        """Tasks given up, then those refused, the latest of each first. Raises ``RedisError``."""
        return failed.latest(self, GIVEN_UP) + failed.latest(self, REFUSED)

    def refused_messages(self) -> int:
        """How many messages and commands had no valid signature. Raises ``RedisError``."""
        return readable(whole, self.redis.hget(self.keys.counters, "refused")) or 0

    def run_again(self, task_id: str) -> Future | None:
        """Send a task that failed lately, or was given up, once more; None if it is not known.

        Each can be sent again once; one that failed gets a new id. Raises ``BrokerUnavailable``,
        ``UnknownQueue``, ``UnknownTask``, and ``BackgroundError`` for a message without a task.
        """
        with redis_needed():
            found = failed.find(self, task_id)
            sent = found and failed.send_again(self, found)
        return Future(self, *sent) if sent else None

    def readiness(self) -> Readiness:
        """Find out whether Redis takes tasks and a worker lives; it never raises for that."""
        return overview.readiness(self)

    def overview(self) -> Overview:
        """What waits, runs, ended and failed, and who works. Raises ``RedisError``."""
        return overview.take(self)

    def task_statistics(self) -> list[TaskStatistics]:
        """How the calls of each task ended and how long they ran. Raises ``RedisError``."""
        return activity.statistics(self)

    @property
    def inspect(self) -> Inspector:
        """Ask the workers: ``celery.inspect.ping()``, ``active()``, ``stats()`` and so on."""
        return Inspector(self)

    def status(self, timeout: float = 1.0) -> dict[str, str]:
        """Ask all workers for a sign of life: ``{"worker@host": "OK"}``.

        ``timeout`` is in seconds. Raises ``BrokerUnavailable``.
        """
        return dict.fromkeys(sorted(self.inspect.ping(timeout=timeout) or ()), "OK")

    def heartbeats(self) -> list[Heartbeat]:
        """What each worker said last. Raises ``redis.exceptions.RedisError``."""
        return heartbeats.latest(self)

    def queue_lengths(self) -> dict[str, int]:
        """How many tasks wait in each queue. Raises ``redis.exceptions.RedisError``."""
        return overview.queue_lengths(self)

    def key(self, name: str) -> str:
        """Name a key of the application's own, so that those that share a Redis do not meet."""
        return f"{self.keys.prefix}{name}"

    # Processes

    def start(self, argv: list[str] | None = None) -> Any:
        """Start the workers of the config on this machine, unless some answer already.

        They end with this process. With ``argv`` it is Celery's own ``start``: its command line.
        Raises ``BackgroundError`` when they end, or do not answer within ``CELERY_START_TIMEOUT``.
        """
        if argv is not None:
            return super().start(argv)
        return self._local_cluster.start()

    def stop(self) -> None:
        """Stop the workers that :meth:`start` started here. Others are left alone."""
        self._local_cluster.stop()
