"""``/metrics`` in Prometheus' format, read from Redis at each scrape.

What the workers did is counted in Redis (see ``activity.py``), so the answer is the same from every
web process, and none of it is lost when one restarts.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import accumulate
from math import inf

from flask import Blueprint, Response, current_app, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from ..extensions import celery
from ..web.security import require_token

bp = Blueprint("metrics", __name__)


@bp.get("/metrics")
def show() -> Response:
    """Answer a scrape. It needs the API token, except on a developer's own machine."""
    if current_app.config["CONFIG_NAME"] == "development" and _from_this_machine():
        return _exposition()
    return require_token(_exposition)()


def _from_this_machine() -> bool:
    try:
        return ip_address(request.remote_addr or "").is_loopback
    except ValueError:
        return False


def _exposition() -> Response:
    registry = CollectorRegistry()
    registry.register(RedisCollector())
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class RedisCollector(Collector):
    """Queues, workers and tasks, as Redis knows them."""

    def describe(self) -> list[Metric]:
        """Promise no names, so that registering does not read Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read all of it; while Redis is away there is only ``redis_up 0``."""
        up = GaugeMetricFamily("redis_up", "Whether Redis answered this scrape.")
        try:
            families = [*_queues(), *_workers(), *_tasks()]
            up.add_metric([], 1)
        except RedisError as error:
            current_app.logger.warning("Redis did not answer the scrape: %s", error)
            families = []
            up.add_metric([], 0)
        yield up
        yield from families


def _queues() -> Iterator[Metric]:
    lengths = GaugeMetricFamily("celery_queue_length", "Tasks that wait.", labels=["queue"])
    for queue, length in celery.queue_lengths().items():
        lengths.add_metric([queue], length)
    yield lengths


def _workers() -> Iterator[Metric]:
    ages = GaugeMetricFamily(
        "celery_worker_heartbeat_age_seconds", "Since the last sign of life.", labels=["worker"]
    )
    active = GaugeMetricFamily("celery_worker_active_tasks", "Tasks that run.", labels=["worker"])
    for worker in celery.heartbeats():
        ages.add_metric([worker.name], worker.age)
        active.add_metric([worker.name], worker.active)
    yield ages
    yield active
    dead = GaugeMetricFamily("celery_dead_letters", "Tasks that were given up.")
    dead.add_metric([], celery.readiness().dead_letters)
    yield dead


def _tasks() -> Iterator[Metric]:
    ended = CounterMetricFamily("celery_tasks", "Tasks that ended.", labels=["task", "state"])
    durations = HistogramMetricFamily(
        "celery_task_duration_seconds", "How long tasks ran.", labels=["task"]
    )
    for task in celery.task_statistics():
        for state, count in task.ended.items():
            ended.add_metric([task.name, state], count)
        if any(task.durations.values()):
            names = ("+Inf" if bound == inf else str(bound) for bound in task.durations)
            totals = accumulate(task.durations.values())
            durations.add_metric([task.name], list(zip(names, totals, strict=True)), task.seconds)
    yield ended
    yield durations
