"""Log lines on standard output: text for people, JSON for machines (``LOG_FORMAT``).

Each line names the process, the request and the task that it belongs to. The id of a request goes
with the tasks that it starts, so one search finds all that a request caused.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from flask import Flask, Response, g, has_app_context, request
from flask_background import current_task
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from werkzeug.local import LocalProxy

{% if cookiecutter.use_heroku == "yes" %}
from ..heroku import LogfmtFormatter
{% endif %}
from . import sentry

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Asked for all the time: by whoever watches, and by every open page.
_QUIET_PATHS = ("/healthz", "/live")

access_log = logging.getLogger(f"{__package__}.access")


def init_app(app: Flask) -> None:
    """Send all log lines of this process to standard output, and note each request."""
    # Whatever sys.stdout is at the time of a line; tests exchange it.
    stdout: Any = LocalProxy(lambda: sys.stdout)
    handler = logging.StreamHandler(stdout)
    handler.name = "stdout"
    handler.addFilter(add_context)
    if app.config["SENTRY_DSN"]:
        handler.addFilter(sentry.sender(app.config["SENTRY_DSN"], app.config["CONFIG_NAME"]))
    handler.setFormatter(FORMATTERS[app.config["LOG_FORMAT"]]())
    root = logging.getLogger()
    root.handlers = [old for old in root.handlers if old.name != "stdout"]
    root.addHandler(handler)
    root.setLevel(app.config["LOG_LEVEL"])
    # It brings handlers of its own; one form of lines is enough.
    gunicorn = logging.getLogger("gunicorn.error")
    gunicorn.handlers.clear()
    gunicorn.propagate = True
    # gunicorn and the development server can write a line for each request; ours says more.
    logging.getLogger("gunicorn.access").disabled = True
    logging.getLogger("werkzeug").addFilter(_is_no_access_line)
    app.before_request(_begin_request)
    app.after_request(_end_request)


class TextFormatter(logging.Formatter):
    """``12:30:01 INFO web my_app: message [request=… task=…]``, one line for a message.

    What a client, a task or an error says cannot look like a line of its own: line breaks are
    written as ``\\n``, and the lines of a traceback are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        ids = {"request": "request_id", "task": "task_id"}
        context = [
            f"{label}={vars(record)[name]}" for label, name in ids.items() if name in vars(record)
        ]
        lines = [self.formatMessage(record) + (f" [{' '.join(context)}]" if context else "")]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        if record.stack_info:
            lines += record.stack_info.splitlines()
        return "\n    ".join(_printable(line) for line in lines)


def _printable(text: str) -> str:
    text = _COLOUR.sub("", text)
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


#: By LOG_FORMAT.
FORMATTERS: dict[str, Callable[[], logging.Formatter]] = {
    "text": lambda: TextFormatter(
        "%(asctime)s %(levelname)-7s %(process_name)s %(name)s: %(message)s"
    ),
    "json": lambda: JsonFormatter(
        ["levelname", "name", "message", "process_name"],
        rename_fields={"levelname": "level", "name": "logger", "process_name": "process"},
        # Celery adds the arguments and the result of each task, which may hold secrets.
        reserved_attrs=[*RESERVED_ATTRS, "data"],
        timestamp="time",
    ),
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
        task = current_task.request
        record.task_id = task.id
        record.task_name = task.shadow or current_task.name
        if request_id := task.get("request_id"):
            record.request_id = request_id
    return True


def _is_no_access_line(record: logging.LogRecord) -> bool:
    return " - - [" not in record.getMessage()


def _begin_request() -> None:
    g.started = time.perf_counter()
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid4().hex


def _end_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    if request.path not in _QUIET_PATHS:
        said = {
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "duration_ms": round((time.perf_counter() - g.started) * 1000, 1),
        }
        client = {"client": request.remote_addr}
        access_log.info("%s %s %d %.1f ms", *said.values(), extra=said | client)
    return response
