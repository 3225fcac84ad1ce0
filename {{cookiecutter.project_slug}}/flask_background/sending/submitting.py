"""What ``celery.submit`` does, and what runs the function in the worker."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from kombu import Producer

from ..base.errors import SubmitError
from ..core import Core
from . import functions
from .arguments import prepare
from .futures import Future
from .tasks import FlaskTask

#: What ``submit`` takes for itself; a function cannot have parameters of these names.
OPTIONS = ("queue", "countdown", "eta", "expires", "priority", "retry", "on_commit")


def options_of(fn: Callable[..., Any], given: tuple[Any, ...]) -> dict[str, Any]:
    """Return the options that were given. Raises ``SubmitError`` if ``fn`` has one of its own."""
    if inspect.isfunction(fn) and (taken := _option_of_its_own(fn)):
        raise SubmitError(
            f"{fn.__qualname__} has a parameter {taken!r}, which submit takes for itself. Use "
            "celery.apply(fn, args, kwargs), or give the parameter another name."
        )
    pairs = zip(OPTIONS, given, strict=True)
    return {option: value for option, value in pairs if value is not None}


@functools.lru_cache(maxsize=1024)
def _option_of_its_own(fn: Callable[..., Any]) -> str | None:
    parameters = inspect.signature(fn).parameters
    return next((name for name in OPTIONS if name in parameters), None)


@functools.cache
def _known_options() -> frozenset[str]:
    """Name what ``apply_async`` takes; part of it is only passed on."""
    takers = (Task.apply_async, Celery.send_task, Producer.publish)
    named = {name for taker in takers for name in inspect.signature(taker).parameters}
    return frozenset({"queue", "on_commit", "ignore_result", "stamped_headers", *named})


def send(
    core: Core, call: Any, fn: Any, args: tuple[Any, ...], kwargs: Any, options: dict[str, Any]
) -> Future:
    """Send a task, or a function as the arguments of the task ``call``; raises as ``submit``."""
    core.refuse_queue(options.get("queue"))  # here too, for tasks that run eagerly
    if unknown := options.keys() - _known_options() - set(options.get("stamped_headers") or ()):
        raise SubmitError(f"Celery's apply_async has no option {min(unknown)!r}.")
    if isinstance(fn, Task):
        task, name = fn, fn.name
        result = task.apply_async(args, kwargs, **options)
    else:
        own = core.options
        path = functions.path_of(fn, own.submit_packages)
        task, name = call, path.replace(":", ".")
        sent = prepare(args, kwargs, limit=own.max_argument_bytes, sanitize=own.sanitize_arguments)
        result = task.apply_async((path, *sent), shadow=name, **options)
    kept = not options.get("ignore_result", getattr(task, "ignore_result", False))
    return Future(core, result.id, name, kept=kept)


def run_function(self: FlaskTask, path: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Run a submitted function in the worker; the rule of what may run is in functions.py."""
    function = functions.resolve(path, self.app.options.submit_packages)
    if self.request.is_eager:
        self.request.shadow = path.replace(":", ".")  # a worker has it from the message
    return function(*args, **kwargs)
