"""What differs on Heroku: what its platform decides, its form of log lines, HTTPS without nginx.

Nothing of it happens elsewhere: a dyno is known by the variable ``DYNO``.
https://devcenter.heroku.com/articles/dynos#local-environment-variables
"""

import json
import logging
import re
from collections.abc import Mapping

from flask import Flask, redirect, request
from pythonjsonlogger.core import RESERVED_ATTRS
from werkzeug.wrappers import Response

from .ops.move import copy_redis

_DEFAULTS = {
    # One router in front; it adds the client's address to X-Forwarded-For.
    "TRUSTED_PROXIES": "1",
    "LOG_FORMAT": "logfmt",
    # The smallest plan of Heroku Key-Value Store allows 20 connections to all processes together.
    "REDIS_MAX_CONNECTIONS": "2",
}

_PLAIN = re.compile(r"[!-~]+")
_HIDDEN = {*RESERVED_ATTRS, "data", "process_name", "color_message"}


def with_defaults(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Add to the environment of a dyno what its platform decides. What is set there wins."""
    if "DYNO" not in environ:
        return environ
    said = {name: value for name, value in environ.items() if value.strip()}
    defaults = dict(_DEFAULTS)
    if "REDIS_TLS_CA" not in said:
        # No public authority signed the certificates of Heroku Key-Value Store.
        defaults["REDIS_TLS_VERIFY"] = "none"
    return {**defaults, **said}


def init_app(app: Flask) -> None:
    """Lead browsers from http:// to https://, which the router leaves to the application."""
    app.cli.add_command(copy_redis)
    if app.config["HTTPS_ONLY"]:
        app.before_request(lead_to_https)


def lead_to_https() -> Response | None:
    """Redirect a request that came over plain HTTP; a before_request function."""
    if request.is_secure:
        return None
    return redirect(request.url.replace("http://", "https://", 1), 308)


class LogfmtFormatter(logging.Formatter):
    """``level=info process=web logger=my_app msg="…" request_id=…``, one line for a record.

    The form of the router's own lines; the platform adds the time and the name of the dyno.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as ``key=value`` pairs, in one line whatever it holds."""
        pairs = {
            "level": record.levelname.lower(),
            "process": getattr(record, "process_name", None),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        extra = {key: value for key, value in vars(record).items() if key not in _HIDDEN}
        pairs |= extra
        if record.exc_info:
            pairs["exception"] = self.formatException(record.exc_info)
        return " ".join(
            f"{key}={_quoted(value)}" for key, value in pairs.items() if value is not None
        )


def _quoted(value: object) -> str:
    text = str(value)
    plain = _PLAIN.fullmatch(text) and not {'"', "=", "\\"} & set(text)
    return text if plain else json.dumps(text)
