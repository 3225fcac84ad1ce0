"""What the page shows of tasks, to whom, with a real worker."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{ cookiecutter.project_slug }}.extensions import celery
from {{ cookiecutter.project_slug }}.main.words import duration, short_name


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


def test_half_a_letter_does_not_take_the_page_away(live_app: Flask, worker: object) -> None:
    """JSON can bring one ("\\ud800"), and UTF-8 has no way to write it."""
    client = live_app.test_client()
    with live_app.app_context():
        future = celery.submit(short_name, "half a letter: \ud800")
        future.result(timeout=30)

    for path in ("/", "/live", f"/tasks/{future.id}", f"/tasks/{future.id}/live"):
        response = client.get(path)
        assert response.status_code == 200
        assert "half a letter: ?" in response.text
    state = client.get(f"/api/v1/task-status/{future.id}").json
    assert state and state["result"] == "half a letter: \ud800"


def test_a_name_that_is_no_text_does_not_take_the_page_away(
    live_app: Flask, worker: object
) -> None:
    client = live_app.test_client()
    with live_app.app_context():
        good = celery.send_task("celery.accumulate", [1], shadow={"odd": 5})
        bad = celery.send_task("celery.accumulate", kwargs={"wrong": 1}, shadow=["\ud800"])
        for sent in (good, bad):
            celery.get(sent.id).exception(timeout=30)

    for path in ("/", "/live", f"/tasks/{good.id}", f"/tasks/{bad.id}", "/metrics"):
        token = {"Authorization": f"Bearer {live_app.config['API_TOKEN']}"}
        assert client.get(path, headers=token).status_code == 200
