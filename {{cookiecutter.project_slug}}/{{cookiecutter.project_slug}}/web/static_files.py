"""Addresses of static files that change with their content, so that browsers may keep them.

``url_for("static", filename="style.css")`` gives ``/static/style.css?v=…``. An answer to such an
address may be kept for a year; without the version, or with an old one, it is asked for anew.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from werkzeug.security import safe_join

#: More than a year is not allowed.
FOR_EVER = "public, max-age=31536000, immutable"


def init_app(app: Flask) -> None:
    """Add the version to the addresses of static files, and the right to keep them."""
    folder = str(app.static_folder)

    @app.url_defaults
    def add_version(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static" and "v" not in values and (found := version(folder, values)):
            values["v"] = found

    @app.after_request
    def allow_keeping(response: Response) -> Response:
        sent = request.args.get("v")
        if request.endpoint == "static" and sent and response.status_code in (200, 304):
            current = sent == version(folder, request.view_args or {})
            response.headers["Cache-Control"] = FOR_EVER if current else "no-cache"
        return response


def version(folder: str, values: dict[str, Any]) -> str | None:
    """Return a short hash of the file ``values["filename"]``; None if there is no such file."""
    path = safe_join(folder, str(values.get("filename", ""))) or ""
    try:
        return _hash(path, Path(path).stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _hash(path: str, changed_at: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
