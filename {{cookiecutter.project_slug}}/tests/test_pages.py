"""Pages, health and headers, without Redis: this is also how they look when Redis is away."""

import pytest
from flask import Flask
from flask.testing import FlaskClient


def test_the_page_loads_without_redis_and_says_so(client: FlaskClient) -> None:
    response = client.get("/")

    assert response.status_code == 200
    assert "Redis cannot be reached" in response.text


def test_names_in_the_page_are_escaped(app: Flask) -> None:
    app.config["APP_NAME"] = "<script>alert(1)</script>"

    assert "<script>" not in app.test_client().get("/").text


def test_healthz_needs_nothing(client: FlaskClient) -> None:
    response = client.get("/healthz")

    assert (response.status_code, response.json) == (200, {"status": "ok"})


def test_readyz_says_why_it_is_not_ready(client: FlaskClient) -> None:
    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert response.json
    assert response.json["detail"] == "Redis does not answer."
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
