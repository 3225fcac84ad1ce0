"""The demo task and the two ways to start it.

Most tests need neither Redis nor a worker: in the testing configuration a task runs at once, in the
process that sends it. The last ones use a real worker; ``live_app`` and ``worker`` start it.
"""

import time
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from flask import Flask
from flask.testing import FlaskClient

from {{ cookiecutter.project_slug }} import config, create_app

START = "/api/v1/start-task"

BAD_BODIES = [
    (b"", "not valid JSON"),
    (b"{", "not valid JSON"),
    (b"\xff\xfe\x00", "not valid JSON"),
    (b"[" * 60_000, "nested too deeply"),
    (b"null", "must be a JSON object"),
    (b"[3]", "must be a JSON object"),
    (b'"duration"', "must be a JSON object"),
    (b'{"duration": "3"}', "'duration' must be a number"),
    (b'{"duration": true}', "'duration' must be a number"),
    (b'{"duration": null}', "'duration' must be a number"),
    (b'{"duration": [3]}', "'duration' must be a number"),
    (b'{"duration": -0.1}', "'duration' must be a number"),
    (b'{"duration": 3601}', "'duration' must be a number"),
    (b'{"duration": 1e999}', "'duration' must be a number"),
    (b'{"duration": 1' + b"0" * 400 + b"}", "'duration' must be a number"),
    (b'{"duration": 1' + b"0" * 5000 + b"}", "not valid JSON"),
    (b'{"duration": NaN}', "NaN is not part of JSON"),
    (b'{"duration": Infinity}', "Infinity is not part of JSON"),
    (b'{"duration": 0, "fail": 1}', "'fail' must be true or false"),
    (b'{"duration": 0, "fail": "yes"}', "'fail' must be true or false"),
    (b'{"duration": 0, "fail": null}', "'fail' must be true or false"),
    (b'{"duration": 0, "\\ud800": 1}', "unknown field"),
    (b'{"duration": 0, "Fail": true}', "unknown field 'Fail'"),
]


def test_a_task_is_accepted_and_its_address_told(client: FlaskClient) -> None:
    response = client.post(START, json={"duration": 0})

    assert response.status_code == 202
    assert response.json
    assert response.json["status"] == "PENDING"
    assert response.headers["Location"] == f"/api/v1/task-status/{response.json['task_id']}"
    assert client.get(response.headers["Location"]).json == {
        "task_id": response.json["task_id"],
        "name": long_task_name(client.application),
        "status": "SUCCESS",
        "progress": None,
        "result": "Task completed in 0 seconds",
        "error": None,
    }


def test_a_task_takes_five_seconds_unless_told_otherwise(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    started = client.post(START, json={})

    assert started.status_code == 202
    state = client.get(started.headers["Location"]).json
    assert state and state["result"] == "Task completed in 5 seconds"


@pytest.fixture
def production() -> FlaskClient:
    """A stranger on a server in production."""
    environ = {"SECRET_KEY": "k" * 40, "API_TOKEN": "t" * 40, "REDIS_URL": "redis://127.0.0.1:1/0"}
    {% if cookiecutter.database == "sqlite" %}
    environ["DATABASE_URL"] = "sqlite://"
    {% elif cookiecutter.database == "postgresql" %}
    environ["DATABASE_URL"] = "postgresql://127.0.0.1:1/none"
    {% endif %}
    settings = config.load("production", environ=environ)
    eager = {"CELERY_TASK_ALWAYS_EAGER": True, "SESSION_COOKIE_SECURE": False}
    return create_app("testing", settings | eager).test_client()


def test_in_production_only_operators_keep_the_workers_busy(production: FlaskClient) -> None:
    token = {"Authorization": f"Bearer {production.application.config['API_TOKEN']}"}

    refused = production.post(START, json={"duration": 0})
    assert refused.status_code == 401
    assert refused.content_type == "application/problem+json"
    assert production.post("/tasks", data={"duration": "0"}).status_code == 401
    assert "<form" not in production.get("/").text
    assert production.post(START, json={"duration": 0}, headers=token).status_code == 202

    production.get("/sign-in")
    with production.session_transaction() as session:
        form = {"token": "t" * 40, "csrf_token": session["csrf"]}
    production.post("/sign-in", data=form)
    assert production.post(START, json={"duration": 0}).status_code == 202
    assert production.post("/tasks", data={"duration": "0"}).status_code == 303


def test_a_setting_opens_the_demo_for_short_tasks(production: FlaskClient) -> None:
    production.application.config["PUBLIC_DEMO"] = True

    assert production.post(START, json={"duration": 0}).status_code == 202
    assert production.post(START, json={"duration": 31}).status_code == 400
    assert production.post("/tasks", data={"duration": "31"}).status_code == 400


def test_a_failed_task_is_an_answer_with_its_error(client: FlaskClient) -> None:
    started = client.post(START, json={"duration": 0, "fail": True})

    response = client.get(started.headers["Location"])

    assert response.status_code == 200
    assert response.json
    assert response.json["status"] == "FAILURE"
    assert response.json["error"].startswith("AskedToFail: Gave up at step 1")
    assert response.json["result"] is None


@pytest.mark.parametrize(("body", "expected"), BAD_BODIES, ids=lambda value: str(value)[:40])
def test_a_bad_body_is_refused_with_the_reason(
    client: FlaskClient, body: bytes, expected: str
) -> None:
    response = client.post(START, data=body, content_type="application/json")

    assert response.status_code == 400, response.text
    assert response.content_type == "application/problem+json"
    assert response.json
    assert expected in response.json["detail"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_declared_as_json_is_refused(
    client: FlaskClient, content_type: str | None
) -> None:
    response = client.post(START, data=b'{"duration": 0}', content_type=content_type)

    assert response.status_code == 415


def test_a_body_that_is_too_large_is_refused(client: FlaskClient) -> None:
    body = b'{"duration": 0' + b" " * 65_536 + b"}"

    assert client.post(START, data=body, content_type="application/json").status_code == 413


def test_a_task_that_takes_too_long_says_so(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reach_the_limit(*_: object) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr("time.sleep", reach_the_limit)
    started = client.post(START, json={"duration": 3600}).headers["Location"]

    state = client.get(started).json

    assert state and state["error"] == "TookTooLong: Stopped after 270 s, which is the limit."


def test_the_form_starts_a_task_and_shows_it(client: FlaskClient) -> None:
    response = client.post("/tasks", data={"duration": "0"}, follow_redirects=True)

    assert response.status_code == 200
    assert "Task completed in 0 seconds" in response.text


def test_the_form_shows_why_a_task_failed(client: FlaskClient) -> None:
    response = client.post("/tasks", data={"duration": "0", "fail": "on"}, follow_redirects=True)

    assert "Gave up at step 1" in response.text


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-1", "1e9", "<b>"])
def test_a_bad_form_gets_a_page_that_says_why(client: FlaskClient, text: str) -> None:
    response = client.post("/tasks", data={"duration": text})

    assert response.status_code == 400
    assert response.mimetype == "text/html"
    assert "duration" in response.text
    assert "<b>" not in response.text


def test_too_many_starts_are_refused_for_a_while() -> None:
    limits = {"RATELIMIT_ENABLED": True, "RATELIMIT_ENQUEUE": "2 per minute"}
    app = create_app("testing", limits)
    client = app.test_client()

    answers = [client.post(START, json={"duration": 0}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 61
    assert answers[-1].content_type == "application/problem+json"
    assert client.get("/healthz").status_code == 200


def test_operators_are_not_limited() -> None:
    app = create_app("testing", {"RATELIMIT_ENABLED": True, "RATELIMIT_ENQUEUE": "1 per minute"})
    client = app.test_client()

    def starts(token: str) -> list[int]:
        headers = {"Authorization": f"Bearer {token}"}
        answers = (client.post(START, json={"duration": 0}, headers=headers) for _ in range(3))
        return [answer.status_code for answer in answers]

    assert starts("wrong") == [202, 429, 429]
    assert starts(app.config["API_TOKEN"]) == [202, 202, 202]


def test_strangers_who_are_refused_are_counted() -> None:
    limits = {"RATELIMIT_ENABLED": True, "RATELIMIT_ENQUEUE": "2 per minute", "PUBLIC_DEMO": False}
    client = create_app("testing", limits).test_client()

    answers = [client.post(START, json={"duration": 0}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [401, 401, 429]


def test_without_redis_a_start_is_refused_for_now() -> None:
    app = create_app("testing", {"CELERY_TASK_ALWAYS_EAGER": False, "RATELIMIT_ENABLED": True})

    response = app.test_client().post(START, json={"duration": 0})

    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.usefixtures("worker")
def test_a_real_worker_reports_progress_and_the_result(live_app: Flask) -> None:
    client = live_app.test_client()

    started = client.post(START, json={"duration": 2}).headers["Location"]
    states = follow(client, started)

    assert states[-1]["status"] == "SUCCESS"
    progress = [state["progress"]["current"] for state in states if state["progress"]]
    assert progress and progress == sorted(progress)


@pytest.mark.usefixtures("worker")
def test_a_running_task_is_stopped_and_a_waiting_one_never_runs(live_app: Flask) -> None:
    client = live_app.test_client()
    running, waiting = (
        client.post(START, json={"duration": 600}).headers["Location"] for _ in range(2)
    )
    follow(client, running, until="PROGRESS")

    assert client.delete(waiting).status_code == 202
    assert client.delete(running).status_code == 202

    assert follow(client, running)[-1]["status"] == "REVOKED"
    assert follow(client, waiting)[-1]["status"] == "REVOKED"
    assert client.delete(running).status_code == 409


@pytest.mark.usefixtures("worker")
def test_the_page_shows_what_the_workers_do(live_app: Flask) -> None:
    client = live_app.test_client()
    started = client.post(START, json={"duration": 0, "fail": True}).headers["Location"]
    follow(client, started)

    page = client.get("/").text

    assert "long_task" in page
    assert "AskedToFail: Gave up" in page
    assert "alive" in page


def follow(client: FlaskClient, address: str, until: str | None = None) -> list[dict[str, Any]]:
    """Ask for a task's state until it has ended, or is in the state ``until``."""
    states = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = client.get(address).json
        assert state
        states.append(state)
        if state["status"] in (until, "SUCCESS", "FAILURE", "REVOKED"):
            return states
        time.sleep(0.1)
    raise AssertionError(f"The task has not ended: {states[-1]}")


def long_task_name(app: Flask) -> str:
    celery: Celery = app.extensions["celery"]
    return next(name for name in celery.tasks if name.endswith(".long_task"))
