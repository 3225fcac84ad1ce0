"""``/metrics`` in Prometheus' format, read from Redis at each scrape.

The workers count in Redis what they do, so the answer is the same from every web process, and
nothing of it is lost when one restarts.
"""

from collections.abc import Iterator
from itertools import accumulate
from math import inf

from flask import current_app
from prometheus_client import core
from redis.exceptions import RedisError
{% if cookiecutter.database == "none" %}

from ..extensions import celery
{% else %}
from sqlalchemy.exc import SQLAlchemyError

from ..extensions import celery, db
{% endif %}


class Collector:
    """Queues, workers and tasks, as Redis knows them; the form is prometheus_client's."""

    def collect(self) -> Iterator[core.Metric]:
        """Read all of it; while Redis is away there is only ``redis_up 0``."""
        try:
            families = [_queues(), *_workers(), *_given_up(), *_tasks()]
        except RedisError as error:
            current_app.logger.warning("Redis did not answer the scrape: %s", error)
            families = []
        yield core.GaugeMetricFamily("redis_up", "If Redis answered this scrape.", bool(families))
        {% if cookiecutter.database != "none" %}
        yield from _database()
        {% endif %}
        yield from families


{% if cookiecutter.database != "none" %}
def _database() -> Iterator[core.Metric]:
    up = core.GaugeMetricFamily("database_up", "Whether the database answered this scrape.")
    try:
        waiting = db.outbox.waiting()
    except SQLAlchemyError as error:
        current_app.logger.warning("The database did not answer the scrape: %s", error)
        up.add_metric([], 0)
        yield up
        return
    up.add_metric([], 1)
    yield up
    yield core.GaugeMetricFamily("outbox_waiting", "Tasks to be sent, by the database.", waiting)


{% endif %}
def _queues() -> core.Metric:
    lengths = core.GaugeMetricFamily("celery_queue_length", "Tasks that wait.", labels=["queue"])
    for queue, length in celery.queue_lengths().items():
        lengths.add_metric([queue], length)
    return lengths


def _workers() -> tuple[core.Metric, core.Metric]:
    ages = core.GaugeMetricFamily(
        "celery_worker_heartbeat_age_seconds", "Since the last sign of life.", labels=["worker"]
    )
    busy = core.GaugeMetricFamily("celery_worker_active_tasks", "Tasks at work.", labels=["worker"])
    for worker in celery.heartbeats():
        ages.add_metric([worker.name], worker.age)
        busy.add_metric([worker.name], worker.active)
    return ages, busy


def _given_up() -> tuple[core.Metric, core.Metric]:
    dead, refused = celery.readiness().dead_letters, celery.refused_messages()
    return (
        core.GaugeMetricFamily("celery_dead_letters", "Tasks that were given up.", value=dead),
        core.CounterMetricFamily("celery_refused_messages", "Not signed.", value=refused),
    )


def _tasks() -> tuple[core.Metric, core.Metric]:
    ended = core.CounterMetricFamily("celery_tasks", "Tasks that ended.", labels=["task", "state"])
    durations = core.HistogramMetricFamily(
        "celery_task_duration_seconds", "How long tasks ran.", labels=["task"]
    )
    for task in celery.task_statistics():
        for state, count in task.ended.items():
            ended.add_metric([task.name, state], count)
        if any(task.durations.values()):
            bounds = ["+Inf" if bound == inf else str(bound) for bound in task.durations]
            # Prometheus wants in each class what is in the smaller ones too.
            counts = accumulate(task.durations.values())
            durations.add_metric([task.name], list(zip(bounds, counts, strict=True)), task.seconds)
    return ended, durations
