"""Example: a watcher that fetches a remote manifest, keeps it in Redis and tells Slack of changes.

``fetch`` gets it, ``store`` keeps it, ``notify`` tells of changes, ``tasks`` puts them together.
"""

from flask import Flask

from .routes import bp
from .tasks import check_manifest

__all__ = ["bp", "init_app"]


def init_app(app: Flask) -> None:
    """Put the watcher on the schedule, every ``MANIFEST_INTERVAL`` seconds.

    Without ``MANIFEST_URL`` there is nothing to watch, and it stays off.
    """
    if app.config["MANIFEST_URL"]:
        interval = app.config["MANIFEST_INTERVAL"]
        app.config.setdefault("CELERY_BEAT_SCHEDULE", {})["manifest-watch"] = {
            "task": check_manifest.name,
            "schedule": float(interval),
            # A run that waited longer is dropped, because the next one is there by then.
            "options": {"expires": interval},
        }
