"""A small application of these tests' own: functions and tasks for workers to run.

The tests import it, and their workers load it as FLASK_APP. Its settings come from the environment
variable SAMPLE_CONFIG (JSON), so that both sides can have the same. What a test needs of the
engine is imported here.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from celery import Task, shared_task, signals
from celery.schedules import BaseSchedule, schedstate
from celery.worker.control import inspect_command
from flask import Flask, current_app, g, has_app_context, has_request_context
from flask_background import FlaskCelery, FuturePool, connect_redis, current_task, progress
from kombu.asynchronous import get_event_loop

celery = FlaskCelery()


class Always(BaseSchedule):
    """A schedule that is due at every look."""

    def is_due(self, last_run_at: datetime) -> schedstate:
        return schedstate(True, 0)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return timedelta(0)


def create_app(settings: Mapping[str, Any] | None = None) -> Flask:
    """Make the application; each call is noted in the file that SAMPLE_STARTS names, if any."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "of the sample application"
    app.config.from_mapping(settings or json.loads(os.environ.get("SAMPLE_CONFIG", "{}")))
    if settings is None:
        log_to_stdout()
    if path := os.environ.get("SAMPLE_STARTS"):
        note(path, str(os.getpid()))
    if app.config.get("ALWAYS_DUE"):
        entry = {"task": "sample_app.double", "schedule": Always(), "args": (1,)}
        app.config["CELERY_BEAT_SCHEDULE"] = {"always": entry}
    celery.init_app(app)
    if "SQLALCHEMY_DATABASE_URI" in app.config:
        from sample_models import db

        db.init_app(app)
    if "STOP_AT_TASK" in app.config:
        signals.task_received.connect(stop_this_worker)
    return app


def log_to_stdout() -> None:
    """Write all log lines to standard output, each with the name of its process."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(levelname)s %(process_name)s %(name)s: %(message)s"))
    handler.addFilter(name_process)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def name_process(record: logging.LogRecord) -> bool:
    record.process_name = os.environ.get("PROCESS_NAME", "web")
    return True


def create_web() -> Flask:
    """Make the application with a page that submits a task and shows its result."""
    app = create_app()
    app.add_url_rule("/", view_func=lambda: str(celery.submit(add, 1, 2).result(timeout=30)))
    return app


def stop_this_worker(request: Any, **_: Any) -> None:
    """Stop the worker just after it gave a task to its child, and before the child says so."""
    hub: Any = get_event_loop()
    if request.name == celery.flask_app.config["STOP_AT_TASK"]:
        hub.call_soon(os.kill, os.getpid(), signal.SIGTERM)


# What a test and a task say to each other goes through lists in Redis, on which both can wait.


def mailbox() -> redis.Redis:
    """Connect to the Redis of the tasks, with time to wait."""
    return connect_redis(celery.redis_url, timeout=40)


def note(path: str, line: str) -> None:
    """Add a line to a file, in one write, as several processes may do at once."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def hold(name: str) -> str:
    """Say that it runs, and end when the test allows it."""
    with mailbox() as box:
        box.rpush(f"started:{name}", os.getpid())
        answer = box.blpop([f"release:{name}"], timeout=30)
        box.rpush(f"ended:{name}", os.getpid())
    return f"{name} released" if answer else f"{name} timed out"


def remember(name: str) -> str:
    """Leave a trace of the run."""
    with mailbox() as box:
        box.rpush(f"ran:{name}", os.getpid())
    return name


# Plain functions


def add(x: Any, y: Any = 0) -> Any:
    return x + y


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


def type_names(**values: Any) -> dict[str, str]:
    return {name: type(value).__name__ for name, value in values.items()}


def length(text: str) -> int:
    return len(text)


def repeat(text: str, times: int) -> str:
    return text * times


def nothing() -> None:
    pass


def process_id() -> int:
    return os.getpid()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def tidy(name: str) -> None:
    """Wait for ever, and tell of the end."""
    with mailbox() as box:
        try:
            box.rpush(f"started:{name}", os.getpid())
            time.sleep(3600)
        finally:
            box.rpush(f"tidied:{name}", "yes")


def hold_the_lock(seconds: int, name: str = "locked") -> str:
    """Let no other thread of the process run: a call by PyDLL does not release the lock."""
    with mailbox() as box:
        box.rpush(f"started:{name}", os.getpid())
    ctypes.PyDLL(None).sleep(seconds)
    return "held"


def note_twice(path: str, seconds: float) -> str:
    """Write two lines, with some time between them in which Redis may go."""
    note(path, "begun")
    time.sleep(seconds)
    note(path, "ended")
    return "written"


def make_another_application() -> None:
    create_app({"REDIS_URL": celery.redis_url, "CELERY_SUBMIT_PACKAGES": ["subprocess"]})


def die() -> None:
    os.kill(os.getpid(), 9)


class OwnError(Exception):
    """An error that the tests have as well."""


class PickyError(Exception):
    """An error that cannot be made from its message."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


def fail(message: str = "it broke") -> None:
    raise ValueError(message)


def fail_own(message: str) -> None:
    raise OwnError(message)


def fail_picky(message: str) -> None:
    raise PickyError(message, code=7)


class SilentError(Exception):
    """An error whose text is not among its arguments."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class SilentLookupError(SilentError, LookupError):
    """The same, of a type that could stand in for it."""


def raise_one(kind: str) -> None:
    """Raise what a function may raise and a plain message does not carry."""
    errors: dict[str, BaseException] = {
        "silent": SilentError(code=7),
        "lookup": SilentLookupError(code=7),
        "group": ExceptionGroup("two failed", [ValueError("one"), OSError("two")]),
        "decimal": ValueError("too much", Decimal("1.10")),
        "exit": SystemExit("out of paper"),
        "interrupt": KeyboardInterrupt("by itself"),
    }
    raise errors[kind]


def open_file(path: str) -> None:
    Path(path).read_text()


def values() -> dict[str, Any]:
    """Return one of each that is more than JSON."""
    return {
        "moment": datetime(2026, 11, 20, 7, 30, tzinfo=UTC),
        "day": date(2026, 11, 20),
        "time": clock(7, 30),
        "amount": Decimal("1.10"),
        "id": UUID(int=7),
        "bytes": b"\xff",
        "nested": [{"amount": Decimal(2)}],
    }


def make(what: str) -> Any:
    """Return what cannot be a result."""
    made: dict[str, Any] = {"set": {1}, "type": {"__type__": "decimal", "__value__": "x"}}
    return made[what]


def count_up() -> Iterator[int]:
    yield 1


async def later() -> None:
    pass


async def count_later() -> AsyncIterator[int]:
    yield 1


def fail_unknown() -> None:
    raise type("MadeUpError", (Exception,), {})("made up")


def with_queue(queue: str) -> str:
    return f"for {queue}"


def make_nested() -> Any:
    def nested() -> None:
        pass

    return nested


nameless = lambda: None  # noqa: E731
borrowed = Path.cwd


def _private() -> None:
    pass


class Holder:
    def method(self) -> None:
        pass


# What a task finds around it


def surroundings() -> dict[str, Any]:
    """Tell about the context, and leave something in `g`."""
    found = {
        "app": current_app.name if has_app_context() else None,
        "request": has_request_context(),
        "left in g": g.get("left"),
        "request id": g.get("request_id"),
        "task": current_task.name if current_task else None,
    }
    g.left = "by an earlier task"
    return found


def own_context() -> int:
    return id(g._get_current_object())


def about_current_task() -> dict[str, Any]:
    request = current_task.request
    return {"id": request.id, "retries": request.retries, "eager": bool(request.is_eager)}


def report_progress(name: str) -> str:
    """Report 1 of 4, and wait for the test to have seen it."""
    progress(1, 4, "first quarter")
    return hold(name)


def own_state(name: str) -> str:
    current_task.update_state(state="DREAMING", meta={"of": "sheep"})
    return hold(name)


def eager_states() -> list[str]:
    """Set states, and look them up as another process would."""
    future = celery.get(str(current_task.request.id))
    progress(1, 2)
    states = [future.state]
    current_task.update_state(state="DREAMING", meta={"of": Decimal(1)})
    return [*states, future.state, str(future.info and future.info["of"])]


def wait_inside(task_id: str, how: str) -> Any:
    """Wait for another task in one of the ways that there are."""
    future = celery.get(task_id)
    ways: dict[str, Callable[[], Any]] = {
        "result": lambda: future.result(timeout=5),
        "exception": lambda: future.exception(timeout=5),
        "pool": lambda: FuturePool([future]).result(timeout=5),
        "wait": lambda: concurrent.futures.wait([future], timeout=5),
        "as_completed": lambda: list(concurrent.futures.as_completed([future], timeout=5)),
    }
    return ways[how]()


def submit_inside() -> str:
    return celery.submit(nothing).id


# Registered tasks


@celery.schedule(1, name="every-second", kwargs={"line": "decorated"})
def tick(line: str) -> None:
    """Write a line into the file that the settings name; only some tests do."""
    if path := current_app.config.get("LEDGER"):
        note(path, line)


@celery.task
def double(number: int) -> int:
    return 2 * number


@celery.task(name="named.elsewhere", bind=True)
def bound(self: Task[Any, Any], word: str) -> list[Any]:
    return [word, self.name, self.request.id]


@celery.task
def calls_another(number: int) -> list[Any]:
    """Call a task as a function: both must find the same context."""
    before = own_context()
    return [double(number), own_context() == before, current_app.name]


@celery.task(bind=True, max_retries=2, default_retry_delay=0)
def third_time_lucky(self: Task[Any, Any]) -> int:
    if self.request.retries < 2:
        raise self.retry(exc=OwnError("not yet"))
    return self.request.retries


@celery.task(ignore_result=True)
def forgetful(name: str) -> None:
    remember(name)


@shared_task
def shared(number: int) -> list[Any]:
    return [3 * number, current_app.name]


@inspect_command()
def count_timers(state: Any) -> int:
    """Answer how many timers the worker has; a control command of the tests' own."""
    return len(state.consumer.timer)
