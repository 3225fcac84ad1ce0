"""The parts of the API and of the metrics that hold for every task, with a real worker."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{ cookiecutter.project_slug }}.main.words import duration


@pytest.fixture
def live_client(live_app: Flask, worker: object) -> FlaskClient:
    return live_app.test_client()


def submit(app: Flask) -> str:
    """Have a worker do something, and return the task's id when it has ended."""
    with app.app_context():
        future = app.extensions["celery"].submit(duration, 120)
        future.result(timeout=30)
    task_id: str = future.id
    return task_id


def test_ready_with_a_worker(live_client: FlaskClient) -> None:
    response = live_client.get("/readyz")

    assert response.status_code == 200
    {% if cookiecutter.database == "none" %}
    expected = {"status": "ready", "redis": "ok", "workers": 1, "dead_letters": 0}
    {% else %}
    expected = {"status": "ready", "redis": "ok", "database": "ok", "workers": 1, "dead_letters": 0}
    {% endif %}
    assert response.json == expected


def test_the_state_of_a_task_tells_its_name_and_result(
    live_app: Flask, live_client: FlaskClient
) -> None:
    task_id = submit(live_app)

    state = live_client.get(f"/api/v1/task-status/{task_id}").json

    assert state
    assert state["status"] == "SUCCESS"
    assert state["name"].endswith(".main.words.duration")
    assert state["result"] == "2 min"


def test_a_submitted_task_is_listed_on_the_page(live_app: Flask, live_client: FlaskClient) -> None:
    task_id = submit(live_app)

    assert f"/tasks/{task_id}" in live_client.get("/").text
    assert "2 min" in live_client.get(f"/tasks/{task_id}").text


def test_a_task_that_ended_cannot_be_cancelled(live_app: Flask, live_client: FlaskClient) -> None:
    assert live_client.delete(f"/api/v1/task-status/{submit(live_app)}").status_code == 409


def test_queues_and_workers_are_listed(live_client: FlaskClient) -> None:
    workers = live_client.get("/api/v1/workers").json

    assert live_client.get("/api/v1/queues").json == {"default": 0}
    assert workers and workers[0]["queues"] == ["default"]
    assert workers[0]["heartbeat_age"] < 30


def test_the_schedule_is_listed(live_client: FlaskClient) -> None:
    response = live_client.get("/api/v1/schedule")

    assert response.status_code == 200
    assert isinstance(response.json, list)


def test_metrics_count_what_the_worker_did(live_app: Flask, live_client: FlaskClient) -> None:
    submit(live_app)
    token = {"Authorization": f"Bearer {live_app.config['API_TOKEN']}"}

    text = live_client.get("/metrics", headers=token).text
    assert "celery_refused_messages_total 0.0" in text

    assert "redis_up 1.0" in text
    assert 'celery_queue_length{queue="default"} 0.0' in text
    assert "celery_worker_heartbeat_age_seconds{" in text
    assert '.main.words.duration"}' in text
