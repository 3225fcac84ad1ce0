"""What the page shows of tasks, to whom, with a real worker."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{ cookiecutter.project_slug }}.extensions import celery
from {{ cookiecutter.project_slug }}.main.words import duration


@pytest.fixture
def failed_id(live_app: Flask, worker: object) -> str:
    """The id of a task that failed."""
    with live_app.app_context():
        future = celery.submit(duration, "no number")
        with pytest.raises(TypeError):
            future.result(timeout=30)
        return future.id


def sign_in(client: FlaskClient) -> None:
    client.get("/sign-in")
    with client.session_transaction() as session:
        csrf = session["csrf"]
    token = client.application.config["API_TOKEN"]
    client.post("/sign-in", data={"token": token, "csrf_token": csrf})


def test_a_public_page_in_production_shows_neither_ids_nor_errors(
    live_app: Flask, failed_id: str
) -> None:
    live_app.config["CONFIG_NAME"] = "production"
    page = live_app.test_client().get("/").text

    assert "Failed lately" in page
    assert "TypeError" in page
    assert "unsupported" not in page and "not supported" not in page
    assert failed_id not in page


def test_an_operator_sees_the_error_and_runs_the_task_again(
    live_app: Flask, failed_id: str
) -> None:
    live_app.config["CONFIG_NAME"] = "production"
    client = live_app.test_client()
    sign_in(client)
    page = client.get("/").text
    with client.session_transaction() as session:
        form = {"task_id": failed_id, "csrf_token": session["csrf"]}

    first = client.post("/tasks/run-again", data=form)
    second = client.post("/tasks/run-again", data=form)

    assert f'value="{failed_id}"' in page
    assert first.status_code == 303
    assert failed_id not in first.headers["Location"]
    assert second.status_code == 409


def test_a_form_cancels_a_waiting_task(live_app: Flask, worker: object) -> None:
    client = live_app.test_client()
    with live_app.app_context():
        task_id = celery.submit(duration, 1, countdown=600).id

    assert client.post("/tasks/cancel", data={"task_id": task_id}).status_code == 303
    assert "cancelled" in client.get(f"/tasks/{task_id}").text
    assert client.post("/tasks/cancel", data={"task_id": task_id}).status_code == 409
    assert client.post("/tasks/cancel", data={"task_id": "no-such-task"}).status_code == 404
