"""The tasks of the watcher. The schedule and ``POST /api/v1/update-manifest`` run the same one."""

import logging
from typing import Any

from celery import shared_task
from flask import current_app
from redis.exceptions import RedisError
from redis.lock import Lock
{% if cookiecutter.database == "none" %}

from ..extensions import celery
{% else %}
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from ..extensions import celery, db
from ..models import Version
{% endif %}
from . import notify, store
from .fetch import FetchError, Unreachable, fetch

#: Seconds that one of these tasks may take, and after which its lock is free even if its worker
#: died. It waits for another one's lock at most LOCK_WAIT; with its retries it outlasts that.
TIME_LIMIT = 90
LOCK_TIMEOUT = 100
LOCK_WAIT = 30

_log = logging.getLogger(__name__)

#: The pattern for errors that may pass: try again, later each time, not all at the same moment.
#: https://docs.celeryq.dev/en/stable/userguide/tasks.html#automatic-retry-for-known-exceptions
_PATIENT: dict[str, Any] = {
    "retry_backoff": 5,
    "retry_jitter": True,
    "time_limit": TIME_LIMIT,
    "soft_time_limit": TIME_LIMIT - 10,
}


{% if cookiecutter.database == "none" %}
@shared_task(
    autoretry_for=(Unreachable, RedisError), retry_backoff_max=60, max_retries=4, **_PATIENT
)
{% else %}
@shared_task(
    autoretry_for=(Unreachable, RedisError, OperationalError),
    retry_backoff_max=60,
    max_retries=4,
    **_PATIENT,
)
{% endif %}
{% if cookiecutter.database == "none" %}
def check_manifest() -> dict[str, Any]:
{% else %}
def check_manifest(who: str = "the schedule") -> dict[str, Any]:
{% endif %}
    """Fetch the manifest, store it if it changed, and have Slack told. Never two at once."""
    url = current_app.config["MANIFEST_URL"]
    change = None
    with _lock("manifest:lock"):
        known, _ = store.load()
        # A new address, or one that was never fetched, is asked without conditions.
        same = known if known and known.url == url else None
        try:
            fetched = fetch(url, same.etag if same else None, same.last_modified if same else None)
        except FetchError as error:
            store.save_check(str(error))
            raise
        if fetched is None:
            store.save_check()
        else:
            {% if cookiecutter.database != "none" %}
            _note_version(fetched.version, who)
            {% endif %}
            change = store.save(fetched, url)
    if change:
        _log.info("%s", notify.message(change))
    if next(store.untold(), None):
        tell_slack.delay()
    latest = fetched or known
    return {"version": latest.version if latest else None, "changed": change is not None}
{% if cookiecutter.database != "none" %}


def _note_version(name: str, who: str) -> None:
    """Make a row of a version, unless it is the newest: this may run twice."""
    newest = db.session.scalar(select(Version.name).order_by(Version.id.desc()).limit(1))
    if name != newest:
        db.session.add(Version(name=name, found_by=who))
        db.session.commit()
{% endif %}


@shared_task(
    autoretry_for=(notify.NotTold, RedisError),
    retry_backoff_max=600,
    max_retries=6,
    ignore_result=True,
    **_PATIENT,
)
def tell_slack() -> None:
    """Tell Slack of each change that it does not know yet, in order.

    If Slack is ill this is retried, and the manifest is not fetched or stored again for it.
    """
    url = current_app.config["SLACK_WEBHOOK_URL"]
    with _lock("manifest:slack-lock"):
        for change in store.untold():
            if url:
                notify.tell(url, change)


def _lock(name: str) -> Lock:
    """Make a lock that frees itself. Entering it raises ``LockError``, which is a RedisError.

    ``flask_background.no_overlap`` would drop the second of two calls; here it has to wait, because
    the first one may have asked before the manifest changed.
    """
    return Lock(celery.redis, celery.key(name), LOCK_TIMEOUT, blocking_timeout=LOCK_WAIT)
