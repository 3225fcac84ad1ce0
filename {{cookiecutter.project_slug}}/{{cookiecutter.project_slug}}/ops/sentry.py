"""Errors to Sentry, where ``SENTRY_DSN`` is set: what the log has with a traceback, and its ids.

Arguments, variables, headers and bodies stay here, and so do passwords and queries of addresses.
"""

import atexit
import logging
import re
from importlib import import_module
from typing import Any

from ..config import ConfigError

_IDS = ("request_id", "task_id", "task_name", "process_name")
_SECRETS = re.compile(r"(?<=://)[^\s/@]*(?=@)|(?<=\?)[^\s'\"]+")


def sender(dsn: str, environment: str) -> Any:
    """Return a logging filter that sends the errors which it sees. Raises ``ConfigError``."""
    try:
        sentry: Any = import_module("sentry_sdk")
        # Its integrations would add requests and arguments.
        options = {"default_integrations": False, "include_local_variables": False}
        sentry.init(dsn, environment=environment, before_send=_without_secrets, **options)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"SENTRY_DSN: {error}. docs/sentry.md says what it needs.") from None
    atexit.register(sentry.flush, timeout=2)

    def send(record: logging.LogRecord) -> bool:
        if record.exc_info and record.levelno >= logging.ERROR:
            tags = {name: value for name, value in vars(record).items() if name in _IDS}
            sentry.capture_exception(record.exc_info[1], tags=tags)
        return True

    return send


def _without_secrets(event: Any, _: Any) -> Any:
    for error in event["exception"]["values"]:
        error["value"] = _SECRETS.sub("***", error["value"] or "")
    return event
