"""What only the operator may read."""

from __future__ import annotations

import pytest

from .client import Client

#: 401 from the application; 403 or 404 from a proxy that keeps the address to itself.
CLOSED = (401, 403, 404)


def test_metrics_are_closed(client: Client) -> None:
    """Nobody reads the metrics without the API token."""
    answer = client.get("/metrics")
    if answer.status == 200 and client.host in ("127.0.0.1", "localhost", "::1"):
        pytest.skip("in development the metrics are open to the same machine")
    assert answer.status in CLOSED, f"{answer}: the metrics are open to everybody."
    answer = client.get("/metrics", token="wrong")
    assert answer.status in CLOSED, f"{answer}: a wrong token opens the metrics."


def test_metrics_count_tasks_and_workers(client: Client, token: str) -> None:
    """With the API token, the metrics are there in Prometheus' format."""
    answer = client.get("/metrics", token=token)
    assert answer.status != 401, (
        "The API token was refused. Give the one of this deployment with --api-token."
    )
    if answer.status in CLOSED:
        pytest.skip("the proxy keeps the metrics to itself")
    answer.expect(200)
    for name in ("redis_up 1.0", "celery_queue_length{", "celery_worker_heartbeat_age_seconds{"):
        assert name in answer.text, f"{answer} does not hold {name!r}."
