"""The demo task: takes as long as it is told, reports its progress, fails if asked to."""

import time

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from flask import current_app
from flask_background import progress

_MOST_STEPS = 100


class AskedToFail(Exception):
    """The demo task was asked to fail."""


class TookTooLong(Exception):
    """The demo task was asked to take longer than a task may."""


@shared_task
def long_task(duration: float, fail: bool = False) -> str:
    """Work for ``duration`` seconds; with ``fail``, give up half way.

    A task may run twice, for example when its worker's machine dies (delivery is at least once).
    This one may, because it changes nothing; see docs/add-a-task.md for those that do.
    """
    steps = max(1, min(_MOST_STEPS, round(duration * 2)))
    try:
        for step in range(steps):
            progress(step, steps, f"Step {step + 1} of {steps}")
            if fail and step >= steps // 2:
                raise AskedToFail(f"Gave up at step {step + 1} of {steps}, as it was asked to.")
            time.sleep(duration / steps)
    except SoftTimeLimitExceeded:
        # There is still a moment to clean up, before the hard limit ends the process.
        limit = current_app.config["CELERY_TASK_SOFT_TIME_LIMIT"]
        raise TookTooLong(f"Stopped after {limit} s, which is the limit.") from None
    return f"Task completed in {duration:g} seconds"
