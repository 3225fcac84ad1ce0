"""Whatever a client sends gets a clear 4xx, never a 500."""

import io

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from {{ cookiecutter.project_slug }} import config, create_app

ODD_IDS = [
    "nothing-like-this",
    "00000000-0000-4000-8000-000000000000",
    "x" * 5000,
    "%00",
    "%0d%0aX-Injected:1",
    "%ff%fe",
    "..%2f..%2fetc%2fpasswd",
    "'; DROP TABLE tasks",
    "{}",
    "🙈",
]

ODD_HEADERS = [
    {"Accept": "application/json;q=nonsense, ,,;;"},
    {"Accept": "*/*;q=0"},
    {"Accept-Encoding": "\u00ff"},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer \u00ff\u00fe"},
    {"Authorization": "Basic !!!!"},
    {"Authorization": ""},
    {"Content-Length": "nonsense"},
    {"Content-Type": "application/json; charset=nonsense"},
    {"Content-Type": "multipart/form-data"},
    {"Cookie": "session=.eJ.nonsense; ;;="},
    {"Host": "a b"},
    {"Host": "[::1"},
    {"If-Modified-Since": "yesterday"},
    {"If-None-Match": '"'},
    {"Origin": "http://["},
    {"Range": "bytes=9-1"},
    {"Sec-Fetch-Site": "nonsense"},
    {"X-Forwarded-For": "not, an, address"},
    {"X-Forwarded-Host": "[bad"},
    {"X-Forwarded-Proto": "javascript"},
    {"X-Request-ID": "x" * 65},
]


def check_problem(response: TestResponse, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem = response.json
    assert problem
    assert problem["status"] == status
    assert problem["title"] and problem["detail"].endswith(".")


@pytest.mark.parametrize("task_id", ODD_IDS)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_id_that_was_never_issued_is_not_found(
    client: FlaskClient, method: str, task_id: str
) -> None:
    check_problem(client.open(f"/api/v1/task-status/{task_id}", method=method), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/healthz", "GET"),
        ("PUT", "/api/v1/schedule", "GET"),
        ("PATCH", "/api/v1/task-status/x", "DELETE"),
        ("TRACE", "/metrics", "GET"),
        ("NONSENSE", "/api/v1/queues", "GET"),
    ],
)
def test_a_method_that_is_not_possible_is_told_which_are(
    client: FlaskClient, method: str, path: str, allowed: str
) -> None:
    response = client.open(path, method=method)

    check_problem(response, 405)
    assert allowed in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/api/v1/schedule", "/healthz", "/api/nothing"])
def test_a_large_body_is_refused_wherever_it_is_sent(client: FlaskClient, path: str) -> None:
    check_problem(client.post(path, data=b"x" * (64 * 1024 + 1)), 413)


class BrokenStream(io.BytesIO):
    """What a server hands on when a chunk of the body is malformed."""

    def readinto(self, buffer: object, /) -> int:
        raise RuntimeError("Invalid chunk size: b'zz'")


@pytest.mark.parametrize(
    ("stream", "status"), [(BrokenStream(), 400), (io.BytesIO(b" " * 100_000), 413)]
)
def test_a_bad_body_in_chunks_is_refused(
    client: FlaskClient, stream: io.BytesIO, status: int
) -> None:
    response = client.post(
        "/api/v1/schedule",
        input_stream=stream,
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )

    check_problem(response, status)


@pytest.mark.parametrize("headers", ODD_HEADERS, ids=str)
@pytest.mark.parametrize("proxies", [0, 1])
def test_odd_headers_do_no_harm(app: Flask, headers: dict[str, str], proxies: int) -> None:
    if proxies:
        from werkzeug.middleware.proxy_fix import ProxyFix

        app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1)  # type: ignore[method-assign]
    client = app.test_client()

    for method, path in (("GET", "/"), ("GET", "/metrics"), ("POST", "/api/v1/nothing")):
        response = client.open(path, method=method, headers=headers)
        assert response.status_code < 500, response.text


@pytest.mark.parametrize("sent", ["a", "A-b_c.9", "x" * 64])
def test_a_good_request_id_comes_back(client: FlaskClient, sent: str) -> None:
    response = client.get("/healthz", headers={"X-Request-ID": sent})

    assert response.headers["X-Request-ID"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a;b", "<script>", "ä", "a\tb"])
def test_a_bad_request_id_is_replaced(client: FlaskClient, sent: str) -> None:
    response = client.get("/healthz", headers={"X-Request-ID": sent})

    assert len(response.headers["X-Request-ID"]) == 32


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_another_sites_page_cannot_post_here(client: FlaskClient, headers: dict[str, str]) -> None:
    check_problem(client.post("/api/v1/schedule", headers=headers), 403)


def test_the_sites_own_page_can_post_here(client: FlaskClient) -> None:
    response = client.post("/api/v1/schedule", headers={"Origin": "http://localhost"})

    assert response.status_code == 405


@pytest.mark.parametrize("path", ["/", "/sign-in", "/nothing", "/api/v1/queues", "/healthz"])
def test_a_host_that_is_not_ours_is_refused(path: str) -> None:
    hosts = config.load("testing", environ={"TRUSTED_HOSTS": "app.example, .app.example"})
    client = create_app("testing", {"TRUSTED_HOSTS": hosts["TRUSTED_HOSTS"]}).test_client()

    check_problem(client.get(path, base_url="https://evil.example"), 400)
    check_problem(client.get(path, headers={"Host": "app.example.evil.example"}), 400)
    for ours in ("https://app.example", "https://www.app.example", "http://127.0.0.1:8000"):
        assert client.get(path, base_url=ours).status_code != 400
