"""Log lines on standard output: text for people, JSON for machines (``LOG_FORMAT``).

Each line names the process, the request and the task that it belongs to. The id of a request goes
with the tasks that it starts, so one search finds all that a request caused.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TextIO
from uuid import uuid4

from flask import Flask, Response, g, has_app_context, request
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from flask_background import current_task
{% if cookiecutter.use_heroku == "yes" %}
from ..heroku import LogfmtFormatter
{% endif %}

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Asked for all the time: by whoever watches, and by every open page.
_QUIET_PATHS = ("/healthz", "/live")

access_log = logging.getLogger(f"{__package__}.access")


def configure(app: Flask) -> None:
    """Send all log lines of this process to standard output, and note each request."""
    handler = _StdoutHandler()
    handler.addFilter(add_context)
    handler.setFormatter(FORMATTERS[app.config["LOG_FORMAT"]]())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _StdoutHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(app.config["LOG_LEVEL"])
    # It brings handlers of its own; one form of lines is enough.
    gunicorn = logging.getLogger("gunicorn.error")
    gunicorn.handlers.clear()
    gunicorn.propagate = True
    # Some platforms have gunicorn write a line for each request; ours says more.
    logging.getLogger("gunicorn.access").disabled = True
    werkzeug = logging.getLogger("werkzeug")
    werkzeug.removeFilter(_is_no_access_line)
    werkzeug.addFilter(_is_no_access_line)
    app.before_request(_begin_request)
    app.after_request(_end_request)


class _StdoutHandler(logging.StreamHandler[TextIO]):
    """Write to whatever ``sys.stdout`` is at the time; tests exchange it."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


class TextFormatter(logging.Formatter):
    """``12:30:01 INFO web my_app: message [request=… task=…]``, one line for a message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(process_name)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        # What a client sent must not look like a log line of its own.
        message = _COLOUR.sub("", record.message)
        record.message = _CONTROL.sub(lambda match: repr(match[0])[1:-1], message)
        context = [
            f"{label}={value}"
            for label, value in (
                ("request", getattr(record, "request_id", None)),
                ("task", getattr(record, "task_id", None)),
            )
            if value
        ]
        return super().formatMessage(record) + (f" [{' '.join(context)}]" if context else "")


def json_formatter() -> logging.Formatter:
    """Make the formatter of ``LOG_FORMAT=json``: one object for each line."""
    return JsonFormatter(
        ["levelname", "name", "message", "process_name"],
        rename_fields={"levelname": "level", "name": "logger", "process_name": "process"},
        # Celery adds the arguments and the result of each task, which may hold secrets.
        reserved_attrs=[*RESERVED_ATTRS, "data"],
        timestamp="time",
        json_ensure_ascii=False,
    )


#: By LOG_FORMAT.
FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {
    "text": TextFormatter,
    "json": json_formatter,
    {% if cookiecutter.use_heroku == "yes" %}
    "logfmt": LogfmtFormatter,
    {% endif %}
}


def add_context(record: logging.LogRecord) -> bool:
    """Add the ids of the current request and task to a log record; a logging filter."""
    record.process_name = os.environ.get("PROCESS_NAME", "web")
    if has_app_context() and g.get("request_id"):
        record.request_id = g.request_id
    if current_task and current_task.request.id:
        # Celery's own lines about a task are written outside of the application's context.
        request = current_task.request
        record.task_id = request.id
        record.task_name = request.shadow or current_task.name
        if request_id := request.get("request_id"):
            record.request_id = request_id
    return True


def _is_no_access_line(record: logging.LogRecord) -> bool:
    """Drop the development server's line for each request, for there is ours."""
    return " - - [" not in record.getMessage()


def _begin_request() -> None:
    g.started = time.perf_counter()
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid4().hex


def _end_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    if request.path not in _QUIET_PATHS:
        milliseconds = round((time.perf_counter() - g.started) * 1000, 1)
        access_log.info(
            "%s %s %d %.1f ms",
            request.method,
            request.path,
            response.status_code,
            milliseconds,
            extra={
                "method": request.method,
                "path": request.path,
                "status": response.status_code,
                "duration_ms": milliseconds,
                "client": request.remote_addr,
            },
        )
    return response
