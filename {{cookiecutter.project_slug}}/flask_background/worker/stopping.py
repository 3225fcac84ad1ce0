"""What happens when a worker starts: handlers for Celery's signals."""

import logging
from typing import Any

from celery import signals

from ..cluster.cluster import freeze_memory


def connect_signals() -> None:
    """Connect the handlers of this module; calling it again changes nothing."""
    signals.setup_logging.connect(_keep_logging)
    signals.worker_init.connect(_prepare_worker)


def _keep_logging(loglevel: int | None = None, **_: Any) -> None:
    """Leave the application's logging as it is. Celery sets up its own where nobody answers."""
    if loglevel:
        logging.getLogger("celery").setLevel(loglevel)


def _prepare_worker(sender: Any, **_: Any) -> None:
    sender.app.be_patient()
    freeze_memory()
