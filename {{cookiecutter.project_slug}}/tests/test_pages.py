"""Pages, health and headers, without Redis: this is also how they look when Redis is away."""

import re

import pytest
from flask import Flask, abort
from flask.testing import FlaskClient

from {{ cookiecutter.project_slug }}.main import live, words


def test_the_page_loads_without_redis_and_says_so(client: FlaskClient) -> None:
    response = client.get("/")

    assert response.status_code == 200
    assert "Redis cannot be reached" in response.text


def test_names_in_the_page_are_escaped(app: Flask) -> None:
    app.config["APP_NAME"] = "<script>alert(1)</script>"

    assert "<script>" not in app.test_client().get("/").text


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503])
def test_each_error_has_a_page_in_the_same_look(app: Flask, status: int) -> None:
    app.add_url_rule("/broken", view_func=lambda: abort(status))

    response = app.test_client().get("/broken", headers={"Accept": "text/html"})

    assert response.status_code == status
    assert response.mimetype == "text/html"
    assert "style.css" in response.text
    assert f"Error {status}" in response.text


def test_an_unchanged_part_of_the_page_is_not_sent_again(client: FlaskClient) -> None:
    first = client.get("/live")
    again = client.get("/live", headers={"If-None-Match": f"W/{first.headers['ETag']}"})

    assert first.status_code == 200
    assert float(first.headers["Poll-After"]) >= live.SHORTEST
    assert again.status_code == 304
    assert again.data == b""


def test_many_open_pages_are_told_to_come_back_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = live.Pace()
    pages = [0.0] * 200

    for tick in range(60 * 10):
        now = tick / 10
        pages = [now + pace.next() if due <= now else due for due in pages]

    assert pace.pause == pytest.approx(200 / live.MOST_POLLS, rel=0.3)


def test_the_address_of_a_static_file_changes_with_it(client: FlaskClient) -> None:
    found = re.search(r'href="(/static/style\.css\?v=[0-9a-f]+)"', client.get("/").text)
    assert found

    kept = client.get(found[1])
    outdated = client.get("/static/style.css?v=0123456789ab")

    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert outdated.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "under 0.1 s"), (4.26, "4.3 s"), (59.7, "1 min 0 s"), (65, "1 min 5 s")],
)
def test_spans_of_time_are_exact(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


def test_healthz_needs_nothing(client: FlaskClient) -> None:
    response = client.get("/healthz")

    assert (response.status_code, response.json) == (200, {"status": "ok"})


def test_readyz_says_why_it_is_not_ready(client: FlaskClient) -> None:
    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert response.json
    assert response.json["detail"] == "Redis cannot be reached."
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("path", ["/", "/static/style.css", "/healthz", "/nothing"])
def test_every_answer_has_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers

    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe-inline" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"


def test_https_is_demanded_in_production_only_over_https(app: Flask) -> None:
    app.config["CONFIG_NAME"] = "production"
    client = app.test_client()

    assert "Strict-Transport-Security" not in client.get("/healthz").headers
    secure = client.get("/healthz", base_url="https://localhost")
    assert "Strict-Transport-Security" in secure.headers


def test_an_error_is_a_page_for_people_and_a_problem_for_programs(client: FlaskClient) -> None:
    page = client.get("/nothing", headers={"Accept": "text/html"})
    problem = client.get("/nothing", headers={"Accept": "application/json"})

    assert page.status_code == problem.status_code == 404
    assert page.mimetype == "text/html"
    assert "There is nothing at this address." in page.text
    assert problem.mimetype == "application/problem+json"


def test_metrics_need_the_token(app: Flask, client: FlaskClient) -> None:
    refused = client.get("/metrics")
    token = app.config["API_TOKEN"]
    allowed = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})

    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert allowed.status_code == 200
    assert "redis_up 0.0" in allowed.text


def test_metrics_are_open_on_a_developers_own_machine(app: Flask) -> None:
    app.config["CONFIG_NAME"] = "development"
    client = app.test_client()

    assert client.get("/metrics").status_code == 200
    far = client.get("/metrics", environ_overrides={"REMOTE_ADDR": "192.0.2.1"})
    assert far.status_code == 401


def test_a_failure_of_the_application_shows_nothing_of_its_inside(app: Flask) -> None:
    @app.get("/api/broken")
    def broken() -> str:
        raise RuntimeError("the inside")

    app.config["PROPAGATE_EXCEPTIONS"] = False
    response = app.test_client().get("/api/broken")

    assert response.status_code == 500
    assert response.mimetype == "application/problem+json"
    assert "the inside" not in response.text
    assert response.json
    assert response.json["request_id"] == response.headers["X-Request-ID"]
