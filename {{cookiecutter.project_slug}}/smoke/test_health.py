"""The processes live."""

from __future__ import annotations

import pytest

from .client import Client


def test_the_web_server_answers(client: Client) -> None:
    """The web server is alive."""
    assert client.get("/healthz").expect(200).json() == {"status": "ok"}


@pytest.mark.log("worker")
def test_redis_and_a_worker_are_ready(client: Client) -> None:
    """Redis answers and a worker gives signs of life."""
    ready = client.get("/readyz").expect(200).json()
    assert ready["status"] == "ready", f"Not ready: {ready}"
    assert ready["workers"] >= 1, f"No worker lives: {ready}"


@pytest.mark.log("worker")
def test_a_worker_has_beaten_lately(client: Client) -> None:
    """The worker's sign of life is fresh, and it serves a queue."""

    def fresh() -> list[str] | None:
        workers = client.numbers("/api/v1/workers").json()
        alive = [worker for worker in workers if worker["heartbeat_age"] < 15]
        return [queue for worker in alive for queue in worker["queues"]] or None

    served = client.wait_for("A fresh sign of life of a worker", fresh)
    waiting = client.numbers("/api/v1/queues").json()
    unserved = sorted(set(waiting) - set(served))
    assert not unserved, f"No worker serves the queues {unserved}."
