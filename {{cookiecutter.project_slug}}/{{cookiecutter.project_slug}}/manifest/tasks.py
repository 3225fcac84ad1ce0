"""The tasks of the watcher. The schedule and ``POST /api/v1/update-manifest`` run the same one."""

from __future__ import annotations

import logging
from typing import Any

from celery import Task, shared_task
from flask import current_app
from redis.exceptions import LockNotOwnedError

from ..extensions import redis
from . import notify, store
from .fetch import FetchError, Unreachable, fetch

#: Seconds that a check may take. A lock lives longer than its task can, and not much longer: it
#: frees itself when the worker that holds it died.
TIME_LIMIT = 60
LOCK_TIMEOUT = 75

_log = logging.getLogger(__name__)


@shared_task(
    bind=True,
    time_limit=TIME_LIMIT,
    soft_time_limit=TIME_LIMIT - 10,
    # The pattern for errors that may pass: try again, later each time, not all at the same moment.
    # https://docs.celeryq.dev/en/stable/userguide/tasks.html#automatic-retry-for-known-exceptions
    autoretry_for=(Unreachable,),
    retry_backoff=5,
    retry_backoff_max=60,
    retry_jitter=True,
    max_retries=3,
)
def check_manifest(self: Task[..., Any]) -> dict[str, Any]:
    """Fetch the manifest, store it if it changed, and have Slack told. Never two at once."""
    lock = redis.client.lock(redis.key("manifest:lock"), timeout=LOCK_TIMEOUT)
    if not lock.acquire(blocking=False):
        # Not skipped: what was asked for is done, after the other one. The tries outlast the lock.
        raise self.retry(countdown=10, max_retries=LOCK_TIMEOUT // 10 + 3)
    try:
        return _check(current_app.config["MANIFEST_URL"])
    finally:
        try:
            lock.release()
        except LockNotOwnedError:
            _log.warning("The check of the manifest outlasted its lock.")


def _check(url: str) -> dict[str, Any]:
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
        change = None
    else:
        change = store.save(fetched, url)
    if store.next_untold():
        tell_slack.delay()
    version = fetched.version if fetched else known.version if known else None
    if change:
        _log.info("%s", notify.message(change))
    return {"version": version, "changed": change is not None}


@shared_task(
    autoretry_for=(notify.NotTold,),
    retry_backoff=5,
    retry_backoff_max=600,
    retry_jitter=True,
    max_retries=6,
    time_limit=TIME_LIMIT,
    soft_time_limit=TIME_LIMIT - 10,
    ignore_result=True,
)
def tell_slack() -> None:
    """Tell Slack of each change that it does not know yet, in order.

    If Slack is ill this is retried, and the manifest is not fetched or stored again for it.
    """
    url = current_app.config["SLACK_WEBHOOK_URL"]
    lock = redis.client.lock(redis.key("manifest:slack-lock"), timeout=LOCK_TIMEOUT)
    if not lock.acquire(blocking=False):
        return
    try:
        while change := store.next_untold():
            if url:
                notify.tell(url, change)
            store.mark_told(change)
    finally:
        try:
            lock.release()
        except LockNotOwnedError:
            _log.warning("Telling Slack outlasted its lock.")
