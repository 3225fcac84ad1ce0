"""What the tasks did: the ids of the latest, and counts by task and outcome. Kept in Redis.

It holds for every task, however it was sent, and it is bounded: the list has ``KEPT`` entries, and
there is one counter for each task's name and outcome.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from celery import signals
from redis.exceptions import RedisError

from ..core import SUBMITTED, Core

#: How many of the latest tasks are remembered.
KEPT = 100
#: Upper bounds of the classes that durations are counted in, in seconds.
BUCKETS = (0.05, 0.25, 1, 5, 15, 60, 300)

logger = logging.getLogger(__name__)
_started: dict[str, float] = {}


@dataclass
class TaskStatistics:
    """How the calls of one task ended, and how long they ran.

    ``ended`` counts by Celery's state; ``durations`` counts by the upper bounds of ``BUCKETS``
    and ``inf``, each class without the ones below it; ``seconds`` is the sum of all durations.
    """

    name: str
    ended: dict[str, int] = field(default_factory=dict)
    durations: dict[float, int] = field(default_factory=dict)
    seconds: float = 0.0
