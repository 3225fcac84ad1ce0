"""The task class: every task runs inside the application context and knows its request."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

from celery import Celery, Task, current_task
from celery.exceptions import TaskPredicate
from celery.utils.serialization import get_pickleable_exception
from flask import Flask, current_app, g, has_app_context

from ..base.errors import TaskError
from ..base.interruption import interruption
from ..base.settings import HOOKS
from ..core import SUBMITTED, Core
from .arguments import check_options, check_result, load_references, prepare, short_text


class FlaskTask(Task):  # type: ignore[type-arg]
    """Celery's task, run in the context of the Flask application that its Celery belongs to."""

    abstract = True
    app: Core
    Request = HOOKS["request"]
    _from_settings: Sequence[str] = ()

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Take from the settings what the class leaves open; anew for another application."""
        for name in cls.__dict__.get("_from_settings", ()):
            setattr(cls, name, None)
        cls._from_settings = [
            name for name, _ in cls.from_config if getattr(cls, name, None) is None
        ]
        return super().bind(app)

    @property
    def id(self) -> str | None:
        """The id of the running call, or None outside of one."""
        task_id: str | None = self.request.id
        return task_id

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's function. Celery calls this in the worker; a direct call works too."""
        inline = bool(self.request.called_directly or self.request.is_eager)
        with application_context(self.app.flask_app, reuse=inline):
            if request_id := self.request.get("request_id"):
                g.request_id = request_id
            if self.request.called_directly:
                return self.run(*load_references(args), **load_references(kwargs))
            with self._readable_errors(), interruption.possible():
                result = self.run(*load_references(args), **load_references(kwargs))
            if not self.request.ignore_result:
                check_result(self.backend.prepare_value(result), self.app.options.max_result_bytes)
            return result

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """Send it, as ``delay`` does; with ``on_commit`` when the database session commits.

        Raises ``SubmitError``, ``UnknownQueue`` and ``BrokerUnavailable``.
        """
        check_options(options)
        on_commit = options.pop("on_commit", False)
        own = self.app.options
        # Arguments of a retry are fit for a message already, as are those of a submitted function.
        if not (options.get("retries") or self.name.startswith((SUBMITTED, "celery."))):
            args, kwargs = prepare(
                tuple(args or ()),
                dict(kwargs or {}),
                limit=own.max_argument_bytes,
                sanitize=own.sanitize_arguments,
            )
        if on_commit:
            return self.app.keep(self.name, args, kwargs, options)
        return self.send_prepared(args, kwargs, *more, **options)

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> Any:
        """Send it when the transaction of the database session commits, and only then."""
        return self.apply_async(args, kwargs, on_commit=True)

    def send_prepared(self, args: Any, kwargs: Any, *more: Any, **options: Any) -> Any:
        """Send it with arguments that are fit for a message already."""
        shown = {"argsrepr": short_text(args or ()), "kwargsrepr": short_text(kwargs or {})}
        return super().apply_async(args, kwargs, *more, **shown | options)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        """Let the task fail with what its record can hold, also where it means to end Python."""
        try:
            yield
        except TaskPredicate:
            raise  # Celery's own: a retry, for one
        except (SystemExit, KeyboardInterrupt) as error:
            stopped = isinstance(error, KeyboardInterrupt) and self.request.is_eager
            if stopped or type(error) not in (SystemExit, KeyboardInterrupt):
                raise
            raise TaskError(type(error).__name__, str(error)) from error
        except Exception as error:
            # Celery would put a base of its type in its place, without the message.
            if get_pickleable_exception(error) is error:
                raise
            raise TaskError(type(error).__name__, str(error)) from error

    def progress(self, current: float, total: float, message: str = "") -> None:
        """Report how far the running task is; see :func:`progress`."""
        percent = round(100 * current / total) if total else 100
        meta = {"current": current, "total": total, "percent": percent, "message": message}
        self.update_state(state="PROGRESS", meta=meta)


def progress(current: float, total: float, message: str = "") -> None:
    """Set the running task's state to ``PROGRESS``, with current, total, percent and message.

    Outside of a task nothing happens, so that a function can be called directly as well.
    """
    if current_task:
        task: Any = current_task
        task.progress(current, total, message)


@contextmanager
def application_context(app: Flask, *, reuse: bool) -> Iterator[None]:
    """Enter the context of ``app``; with ``reuse`` not when it is the current one already.

    An eager task runs inside a request. A second context there would end the request's own
    resources (a database session, say) when the task ends. In a worker each task has its own.
    """
    if reuse and has_app_context() and current_app._get_current_object() is app:  # type: ignore[attr-defined]
        yield
    else:
        with app.app_context():
            yield


class ByName:
    """Has its items as attributes as well."""

    def __getattr__(self, name: str) -> Any:
        items: Any = self
        try:
            return items[name]
        except KeyError as error:
            raise AttributeError(*error.args) from None


class TaskNamespace(ByName):
    """``@celery.task``, and the registered tasks by name.

    ``celery.task.add`` and ``celery.task["add"]`` find a task by its whole name, by the last part
    of that, or by the name of its function.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    @overload
    def __call__[**P, R](self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def __call__(self, **options: Any) -> Callable[[Callable[..., Any]], Task[..., Any]]: ...

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Make a task, as ``Celery.task`` does. It belongs to this Celery and to no other."""
        options.setdefault("shared", False)
        return Celery.task(self._celery, *args, **options)

    def __getitem__(self, name: str) -> Task[Any, Any]:
        """Return the task of that name. Raises ``KeyError`` unless it is one."""
        if name in self._celery.tasks:
            return self._celery.tasks[name]
        found = [
            task
            for full_name, task in self._celery.tasks.items()
            if name in (full_name.rpartition(".")[2], type(task).__name__)
            and not full_name.startswith("celery.")
        ]
        if len(found) != 1:
            what = "No task has" if not found else "More than one task has"
            raise KeyError(f"{what} the name {name!r}. Use celery.task['package.module.name'].")
        return found[0]
