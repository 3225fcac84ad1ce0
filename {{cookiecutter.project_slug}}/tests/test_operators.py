"""Who signs in, what it takes, and what others may see."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{ cookiecutter.project_slug }} import create_app


def sign_in(client: FlaskClient, token: str) -> int:
    """Send the form of the sign-in page as a browser does; return the status."""
    client.get("/sign-in")
    with client.session_transaction() as session:
        csrf = session["csrf"]
    return client.post("/sign-in", data={"token": token, "csrf_token": csrf}).status_code


@pytest.fixture
def closed() -> FlaskClient:
    """A browser on a server in production."""
    settings = {"CONFIG_NAME": "production", "PUBLIC_DASHBOARD": False}
    return create_app("testing", settings).test_client()


def test_the_token_signs_in_and_another_does_not(app: Flask, client: FlaskClient) -> None:
    assert sign_in(client, "wrong") == 401
    assert "Sign out" not in client.get("/").text

    assert sign_in(client, app.config["API_TOKEN"]) == 303
    assert "Sign out" in client.get("/").text


def test_signing_in_needs_the_token_of_the_form(app: Flask, client: FlaskClient) -> None:
    client.get("/sign-in")

    assert client.post("/sign-in", data={"token": app.config["API_TOKEN"]}).status_code == 403


@pytest.mark.parametrize("token", ["", "ü", "\ud800", "x" * 5000])
def test_odd_tokens_are_wrong_ones(client: FlaskClient, token: str) -> None:
    assert sign_in(client, token.encode("utf-8", "replace").decode()) == 401


def test_signing_out_ends_the_session(app: Flask, client: FlaskClient) -> None:
    sign_in(client, app.config["API_TOKEN"])
    client.get("/")
    with client.session_transaction() as session:
        csrf = session["csrf"]

    assert client.post("/sign-out").status_code == 403
    assert client.post("/sign-out", data={"csrf_token": csrf}).status_code == 303
    assert "Sign out" not in client.get("/").text


def test_a_new_token_ends_all_sessions(app: Flask, client: FlaskClient) -> None:
    sign_in(client, app.config["API_TOKEN"])

    app.config["API_TOKEN"] = "another-token"

    assert "Sign out" not in client.get("/").text


def test_the_cookie_is_for_this_site_and_its_server_only(app: Flask) -> None:
    app.config["SESSION_COOKIE_SECURE"] = True
    cookie = app.test_client().get("/sign-in").headers["Set-Cookie"]

    for part in ("HttpOnly", "SameSite=Lax", "Secure", "Path=/"):
        assert part in cookie


def test_wrong_tokens_are_limited_and_the_right_one_never_is() -> None:
    settings = {"RATELIMIT_ENABLED": True, "RATELIMIT_SIGN_IN": "2 per hour"}
    limited = create_app("testing", settings)
    token = limited.config["API_TOKEN"]

    tokens = [token, token, token, "wrong", "wrong", "wrong", token]
    statuses = [sign_in(limited.test_client(), sent) for sent in tokens]

    assert statuses == [303, 303, 303, 401, 401, 429, 303]


def test_a_network_of_ipv6_guesses_as_often_as_one_address() -> None:
    settings = {"RATELIMIT_ENABLED": True, "RATELIMIT_SIGN_IN": "2 per hour"}
    limited = create_app("testing", settings)

    def guess(address: str) -> int:
        client = limited.test_client()
        client.environ_base["REMOTE_ADDR"] = address
        return sign_in(client, "wrong")

    assert [guess(f"2001:db8:1:2::{host:x}") for host in range(3)] == [401, 401, 429]
    assert guess("2001:db8:1:3::1") == 401
    assert [guess(f"::ffff:192.0.2.{host}") for host in range(3)] == [401, 401, 401]
    assert [guess(address) for address in ("192.0.2.9", "::ffff:192.0.2.9", "")] == [401, 401, 401]
    assert guess("192.0.2.9") == 429


@pytest.mark.parametrize("path", ["/tasks/run-again", "/sign-out"])
def test_an_operators_forms_are_refused_to_others(client: FlaskClient, path: str) -> None:
    assert client.post(path, data={"task_id": "x"}).status_code == 403


def test_a_closed_page_shows_no_numbers(closed: FlaskClient) -> None:
    page = closed.get("/")

    assert page.status_code == 200
    assert "sign in" in page.text
    assert "live.js" not in page.text
    assert "Redis cannot be reached" not in page.text
    assert closed.get("/live").status_code == 403


@pytest.mark.parametrize("name", ["workers", "queues", "schedule"])
def test_the_api_shows_no_numbers_where_the_page_does_not(closed: FlaskClient, name: str) -> None:
    token = {"Authorization": f"Bearer {closed.application.config['API_TOKEN']}"}

    assert closed.get(f"/api/v1/{name}").status_code == 403
    assert closed.get(f"/api/v1/{name}", headers=token).status_code == 503  # there is no Redis


def test_in_production_the_token_is_not_asked_for_over_http(closed: FlaskClient) -> None:
    plain, secure = "http://app.example", "https://app.example"
    page = closed.get("/sign-in", base_url=plain)
    closed.get("/sign-in", base_url=secure)
    with closed.session_transaction(base_url=secure) as session:
        form = {"token": closed.application.config["API_TOKEN"], "csrf_token": session["csrf"]}

    assert page.status_code == 403
    assert "<form" not in page.text
    assert closed.post("/sign-in", data=form, base_url=plain).status_code == 403
    assert closed.post("/sign-in", data=form, base_url=secure).status_code == 303


def test_a_closed_page_opens_for_an_operator(closed: FlaskClient) -> None:
    sign_in(closed, closed.application.config["API_TOKEN"])

    assert closed.get("/live").status_code == 200
