"""The Flask extension: a Celery that takes its settings from a Flask application."""

from __future__ import annotations

import functools
import inspect
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import redis
from celery import Celery, Task, states
from celery.schedules import BaseSchedule, crontab
from celery.utils import uuid
from flask import Flask, g, has_app_context
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from .sending import functions
from .base import keys
from .sending.arguments import prepare
from .base.redis_urls import REQUEST_TIMEOUT, connect_redis
from .state.failed import DeadLetter
from .state.failed import read as read_dead_letters
from .state.failed import requeue as requeue_dead_letter
from .base.errors import (
    BrokerUnavailable,
    ConfigurationError,
    SubmitError,
    UnknownQueue,
    UnknownTask,
)
from .state.failures import Failure, put_back, read_failures, take
from .sending.futures import Future, FuturePool
from .worker.beat import Heartbeat, HeartbeatStep, read_heartbeats
from .worker.request import connect_signals
from .sending.listener import ResultListener
from .state.remote import Inspector, RemoteControl
from .state.results import TaskInfo, info_from_meta
from .state.scheduler import ScheduleStatus, schedule_status
from .base.settings import Options, celery_settings, read_options, tls_url
from .sending.tasks import FlaskTask

if TYPE_CHECKING:
    from .cluster.local import LocalCluster

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: The task that runs submitted functions.
SUBMITTED = "background.call"
#: The options of :meth:`FlaskCelery.submit`; a function cannot have parameters of these names.
_SUBMIT_OPTIONS = ("queue", "countdown", "eta", "expires", "priority", "retry")


class FlaskCelery(Celery):
    """Celery for Flask: all that Celery's documentation says holds, and this is added.

    Make it at module level and call :meth:`init_app` in the application factory, or pass the
    application. ``base_task`` is a class of your own for all tasks; they still run inside the
    application context.
    """

    control_cls = f"{__package__}.state.remote:RemoteControl"
    control: RemoteControl
    backend: Any
    _tasks: Any

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
        connect_signals()
        self._flask_app: Flask | None = None
        self._options = Options()
        self._scheduled: dict[str, dict[str, Any]] = {}
        self._redis: redis.Redis | None = None
        self._listener: ResultListener | None = None
        self._local_cluster: LocalCluster | None = None
        self._patient = False
        self._making = threading.Lock()
        self.steps["consumer"].add(HeartbeatStep)
        self._call = self.task(name=SUBMITTED, bind=True)(_run_function)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Take the settings of ``app`` and bind the tasks to it.

        Called again with another application (as tests do), the tasks follow the new one.
        Raises ``ConfigurationError`` when a ``CELERY_*`` value cannot work.
        """
        from .commands.celery import celery_group

        options = read_options(app.config, app.import_name.partition(".")[0])
        settings = celery_settings(app.config, options)
        self.forget_connections()
        self._flask_app, self._options = app, options
        settings["beat_schedule"] = {**(settings.get("beat_schedule") or {}), **self._scheduled}
        self.config_from_object(settings, force=True)
        for task in self._tasks.values():
            task.bind(self)
        # Shared tasks belong to the application that was made last, in every thread.
        self.set_default()
        self.set_current()
        app.extensions["celery"] = self
        app.cli.add_command(celery_group)

    @property
    def flask_app(self) -> Flask:
        """The application that tasks run in. Raises ``RuntimeError`` before ``init_app``."""
        if self._flask_app is None:
            raise RuntimeError("This FlaskCelery has no application yet. Call init_app(app) first.")
        return self._flask_app

    @property
    def options(self) -> Options:
        """What the config says about this layer itself: workers, limits, local processes."""
        return self._options

    @property
    def redis_url(self) -> str:
        """The URL of Redis, with the rule for TLS applied."""
        config = self.flask_app.config
        return tls_url(config.get("REDIS_URL") or self.conf.broker_url, config)

    @property
    def redis(self) -> redis.Redis:
        """A client of this layer's own, which gives up after half a second."""
        with self._making:  # a second one, made at the same time, would close the first one
            if self._redis is None:
                self._redis = connect_redis(
                    self.redis_url, max_connections=self.conf.redis_max_connections
                )
            return self._redis

    # Tasks and schedules

    @property
    def task(self) -> TaskNamespace:  # type: ignore[override]
        """The decorator ``@celery.task``; also ``celery.task.NAME`` and ``celery.task["NAME"]``."""
        return TaskNamespace(self)

    def schedule(
        self,
        when: float | BaseSchedule | None = None,
        *,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **crontab_fields: Any,
    ) -> Callable[[Callable[..., Any]], Any]:
        """Decorate a function or a task that runs by the clock.

        ``when`` is a number of seconds or one of Celery's schedules (``crontab``, ``solar``);
        without it the keywords are those of ``crontab`` (``hour=7, minute=30``). ``args`` and
        ``kwargs`` are passed at each run; ``options`` go to ``apply_async``. A run that waited
        longer than the interval is dropped, because the next one is there by then.

        Raises ``ValueError`` for a name that is taken, or when no time is given.
        """
        if (when is None) == (not crontab_fields):
            raise ValueError(
                "Say when: a number of seconds, a schedule, or fields of a crontab such as "
                "hour=7, minute=30; and only one of these."
            )
        moment = crontab(**crontab_fields) if when is None else when

        def decorate(function: Callable[..., Any]) -> Any:
            task = function if hasattr(function, "apply_async") else self.task(function)
            task_name = getattr(function, "name", None) or self.gen_task_name(
                function.__name__, function.__module__
            )
            defaults = {"expires": moment} if isinstance(moment, (int, float)) else {}
            self._add_entry(
                name or task_name,
                {
                    "task": task_name,
                    "schedule": moment,
                    "args": tuple(args),
                    "kwargs": dict(kwargs or {}),
                    "options": {**defaults, **(options or {})},
                },
            )
            return task

        return decorate

    def _add_entry(self, name: str, entry: dict[str, Any]) -> None:
        if name in self._scheduled:
            raise ValueError(
                f"Two schedules have the name {name!r}. Give one of them another: "
                "@celery.schedule(…, name='…')."
            )
        self._scheduled[name] = entry
        if self._flask_app is not None:
            self.conf.beat_schedule[name] = entry

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
        **kwargs: Any,
    ) -> Future:
        """Send a function, or a registered task, to the workers.

        ``fn`` is a public function at the top of one of the application's modules. ``countdown``
        is in seconds, ``eta`` a datetime, ``expires`` either; ``priority`` 0 (first) to 9;
        ``retry`` whether to try again when Redis does not answer at once. All else goes to ``fn``.

        Raises ``SubmitError`` when ``fn`` or an argument cannot be sent, ``UnknownQueue``, and
        ``BrokerUnavailable`` within a second when Redis is away.
        """
        given = (queue, countdown, eta, expires, priority, retry)
        options = {
            option: value
            for option, value in zip(_SUBMIT_OPTIONS, given, strict=True)
            if value is not None
        }
        _refuse_clash(fn)
        return self.apply(fn, args, kwargs, **options)

    def apply(
        self,
        fn: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Future:
        """Send as :meth:`submit` does, with any option of Celery's ``apply_async``."""
        self._refuse_queue(options.get("queue"))  # here too, for tasks that run eagerly
        sent_args, sent_kwargs = prepare(
            tuple(args),
            dict(kwargs or {}),
            limit=self._options.max_argument_bytes,
            sanitize=self._options.sanitize_arguments,
        )
        if self._options.start_local_workers and not self.conf.task_always_eager:
            self.start()
        task: Any = self._call
        if hasattr(fn, "apply_async"):
            task = fn
            name = str(task.name)
            result = task.apply_async(sent_args, sent_kwargs, **options)
        else:
            path = functions.path_of(fn, self._options.submit_packages)
            name = path.replace(":", ".")
            result = task.apply_async((path, sent_args, sent_kwargs), shadow=name, **options)
        kept = not options.get("ignore_result", getattr(task, "ignore_result", False))
        return Future(self, result.id, name, kept=kept)

    def map(
        self, fn: Callable[..., Any], *arguments: Iterable[Any], **constants: Any
    ) -> FuturePool:
        """Submit ``fn`` once for each list of arguments: ``map(fn, [1, 2], [3, 4], y=2)``."""
        return FuturePool([self.submit(fn, *args, **constants) for args in arguments])

    def get(self, task_id: str) -> Future:
        """Take up the future of a task that was sent before, perhaps by another process."""
        return Future(self, task_id)

    def send_task(  # type: ignore[override]
        self, name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        """Publish a task's message; every way of sending ends here.

        First the task is made known in the result store. That tells a task that waits from an id
        that nobody issued, and fails within half a second when Redis does not answer, where the
        publishing itself would wait longer.

        Raises ``BrokerUnavailable`` and ``UnknownQueue``.
        """
        self._refuse_queue(options.get("queue"))
        task_id = options["task_id"] = options.get("task_id") or uuid()
        if has_app_context() and (request_id := g.get("request_id")):
            options["headers"] = {"request_id": request_id, **(options.get("headers") or {})}
        announced = False
        try:
            announced = self._announce(task_id, options.get("shadow") or name, options)
            return super().send_task(name, args, kwargs, **options)
        except (OperationalError, RedisError) as error:
            if announced:
                self._withdraw(task_id)
            name = options.get("shadow") or name
            raise BrokerUnavailable(f"Redis did not take the task {name}: {error}") from error

    def _announce(self, task_id: str, name: str, options: Mapping[str, Any]) -> bool:
        if options.get("ignore_result"):
            return False
        record = {"status": states.PENDING, "result": None, "task_id": task_id, "name": name}
        key = self.backend.get_key_for_task(task_id)
        lifetime = keys.ISSUED_TTL + int(options.get("countdown") or 0)
        try:
            # A task that is sent again by itself (a retry) has a record already.
            return bool(self.redis.set(key, json.dumps(record), nx=True, ex=lifetime))
        except RedisError:
            if self._patient:
                return False  # the publishing waits for Redis
            raise

    def _withdraw(self, task_id: str) -> None:
        try:
            self.redis.delete(self.backend.get_key_for_task(task_id))
        except RedisError:
            self.log.get_default_logger().debug("The record of %s stays until it expires.", task_id)

    def _refuse_queue(self, queue: object) -> None:
        served = self._options.queues
        if isinstance(queue, str) and served and queue not in served:
            raise UnknownQueue(
                f"No worker serves the queue {queue!r}. CELERY_WORKERS has: "
                f"{', '.join(sorted(served))}."
            )

    def connection_for_write(self, url: Any = None, **kwargs: Any) -> Any:
        """Make a connection to publish on. A web request may not wait long; a worker may."""
        if not self._patient:
            brief = {
                "socket_timeout": REQUEST_TIMEOUT,
                "socket_connect_timeout": REQUEST_TIMEOUT,
                # Else Kombu connects again and again, for seconds.
                "max_retries": 1,
                "interval_start": 0,
                "interval_step": 0,
            }
            kwargs["transport_options"] = {**brief, **(kwargs.get("transport_options") or {})}
        return super().connection_for_write(url, **kwargs)

    def be_patient(self) -> None:
        """Let this process, a worker, wait for Redis rather than fail a task's retry."""
        self._patient = True
        self.conf.task_publish_retry_policy = {
            "max_retries": None,
            "interval_start": 0,
            "interval_step": 0.5,
            "interval_max": 5,
        }

    # Looking and controlling

    @property
    def listener(self) -> ResultListener:
        """What wakes the futures of this process; made when the first one is waited for."""
        with self._making:
            if self._listener is None:
                self._listener = ResultListener(self)
            return self._listener

    def task_meta(self, task_id: str) -> dict[str, Any] | None:
        """Read the result backend's record of a task; None for an id that was never issued.

        Raises ``BrokerUnavailable``.
        """
        key = self.backend.get_key_for_task(task_id)
        try:
            store = self.backend if self.conf.task_always_eager else self.redis
            text = store.get(key)
        except (OperationalError, RedisError) as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error
        return json.loads(text) if text else None

    def task_info(self, task_id: str, meta: Mapping[str, Any] | None = None) -> TaskInfo | None:
        """Say what is known of a task; None for an id that was never issued or has expired."""
        if meta is None:
            meta = self.task_meta(task_id)
        return None if meta is None else info_from_meta(task_id, meta)

    def cancel(self, task_id: str) -> bool:
        """Stop a task: a waiting one never runs, a running one is ended with its pool child.

        Returns False when the task had ended or is unknown. Raises ``BrokerUnavailable``.
        """
        meta = self.task_meta(task_id)
        if meta is None or meta["status"] in states.READY_STATES:
            return False
        try:
            self.redis.set(keys.cancelled(task_id), 1, ex=keys.ISSUED_TTL)
            if meta["status"] not in (states.STARTED, "PROGRESS"):
                self.backend.store_result(task_id, keys.CANCELLED_META, states.REVOKED)
            self.control.revoke(task_id, terminate=True)
        except (OperationalError, RedisError) as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error
        return True

    def failures(self) -> list[Failure]:
        """The latest tasks that failed, newest first. Raises ``redis.exceptions.RedisError``."""
        return read_failures(self)

    def run_again(self, task_id: str) -> Future | None:
        """Send a task that failed lately, or was given up, once more; None if it is not known.

        Each can be sent again once; one that failed gets a new id. Raises ``BrokerUnavailable``,
        ``UnknownQueue``, ``UnknownTask``, and ``BackgroundError`` for a message without a task.
        """
        try:
            letter = next((one for one in read_dead_letters(self) if one.id == task_id), None)
            taken = take(self, task_id)
            if letter is not None:
                sent = requeue_dead_letter(self, letter)
                return Future(self, letter.id, letter.name) if sent else None
        except RedisError as error:
            raise BrokerUnavailable(f"Redis does not answer: {error}") from error
        if taken is None:
            return None
        failure, text = taken
        message = dict(failure.again or {})
        task = self.tasks.get(message.pop("name"))
        try:
            if task is None:
                raise UnknownTask(f"There is no task {failure.name!r} in this version.")
            result = task.apply_async(**message)
        except Exception:
            put_back(self, text)
            raise
        return Future(self, result.id, failure.name)

    def dead_letters(self) -> list[DeadLetter]:
        """The tasks that were given up, latest first. Raises ``redis.exceptions.RedisError``."""
        return read_dead_letters(self)

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
        return read_heartbeats(self)

    def queue_lengths(self) -> dict[str, int]:
        """How many tasks wait in each queue. Raises ``redis.exceptions.RedisError``."""
        names = sorted(queue.name for queue in self.conf.task_queues)
        with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                for step in self._priority_keys(name):
                    pipe.llen(step)
            lengths = iter(pipe.execute())
        return {name: sum(next(lengths) for _ in self._priority_keys(name)) for name in names}

    def _priority_keys(self, queue: str) -> list[str]:
        # Kombu keeps a list for each priority step; that of step 0 has the queue's own name.
        # https://docs.celeryq.dev/en/stable/userguide/routing.html#redis-message-priorities
        steps = self.conf.broker_transport_options.get("priority_steps", (0, 3, 6, 9))
        separator = self.conf.broker_transport_options.get("sep", "\x06\x16")
        return [queue if step == 0 else f"{queue}{separator}{step}" for step in steps]

    # Processes

    def start(self, argv: list[str] | None = None) -> Any:
        """Start the workers of the config on this machine, unless some answer already.

        They end with this process. With ``argv`` it is Celery's own ``start``: its command line.
        Raises ``BackgroundError`` when they do not answer within ``CELERY_START_TIMEOUT``.
        """
        if argv is not None:
            return super().start(argv)
        from .cluster.local import LocalCluster

        with self._making:
            if self._local_cluster is None:
                self._local_cluster = LocalCluster(self)
        self._local_cluster.start()
        return None

    def stop(self) -> None:
        """Stop the workers that :meth:`start` started here. Others are left alone."""
        if self._local_cluster is not None:
            self._local_cluster.stop()

    def forget_connections(self) -> None:
        """Drop connections that belong to other settings, or to the process that forked this."""
        if self._flask_app is None:
            return
        if self._listener is not None:
            self._listener.close()
        self._pool = None
        self._backend_cache = None
        self._local = threading.local()  # where Celery keeps the backend of each thread
        self.__dict__.pop("amqp", None)
        self._making = threading.Lock()  # a forked process may have it as it was held
        self._redis = self._listener = None


class TaskNamespace:
    """``@celery.task``, and the registered tasks by name.

    ``celery.task.add`` finds a task by the name of its function, ``celery.task["pkg.mod.add"]``
    by its whole name.
    """

    def __init__(self, celery: FlaskCelery) -> None:
        self._celery = celery

    @overload
    def __call__(self, function: Callable[_P, _R], /) -> Task[_P, _R]: ...

    @overload
    def __call__(self, **options: Any) -> Callable[[Callable[..., Any]], Task[..., Any]]: ...

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Make a task, as ``Celery.task`` does. It belongs to this Celery and to no other."""
        options.setdefault("shared", False)
        return Celery.task(self._celery, *args, **options)

    def __getitem__(self, name: str) -> Task[Any, Any]:
        """Return the task of that whole name. Raises ``KeyError``."""
        return self._celery.tasks[name]

    def __getattr__(self, name: str) -> Task[Any, Any]:
        """Return the task whose function has that name. Raises ``AttributeError``."""
        found = [
            task
            for full_name, task in self._celery.tasks.items()
            if full_name.rpartition(".")[2] == name and not full_name.startswith("celery.")
        ]
        if len(found) != 1:
            what = "No task has" if not found else "More than one task has"
            raise AttributeError(
                f"{what} the name {name!r}. Use celery.task['package.module.name']."
            )
        return found[0]


def _run_function(self: FlaskTask, path: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Run a submitted function in the worker; the rule of what may run is in functions.py."""
    function = functions.resolve(path, self.app.options.submit_packages)
    if self.request.is_eager:
        self.request.shadow = path.replace(":", ".")  # a worker has it from the message
    return function(*args, **kwargs)


@functools.lru_cache(maxsize=256)
def _clashes(fn: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(fn).parameters
    return tuple(name for name in _SUBMIT_OPTIONS if name in parameters)


def _refuse_clash(fn: Callable[..., Any]) -> None:
    if inspect.isfunction(fn) and (names := _clashes(fn)):
        raise SubmitError(
            f"{fn.__qualname__} has a parameter {names[0]!r}, which submit takes for itself. Use "
            "celery.apply(fn, args, kwargs), or give the parameter another name."
        )


def find_celery(app: Flask) -> FlaskCelery:
    """Return the FlaskCelery of ``app``. Raises ``ConfigurationError`` when it has none."""
    celery = app.extensions.get("celery")
    if not isinstance(celery, FlaskCelery):
        raise ConfigurationError(
            "The application has no FlaskCelery. Call celery.init_app(app) in its factory."
        )
    return celery
