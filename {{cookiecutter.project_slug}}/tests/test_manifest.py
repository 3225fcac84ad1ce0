"""The watcher of the manifest, against a real host for it and one that stands for Slack."""

import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from {{ cookiecutter.project_slug }} import create_app
from {{ cookiecutter.project_slug }}.extensions import celery
from {{ cookiecutter.project_slug }}.manifest import fetch, notify, store, tasks


class Host:
    """A web server in a thread. ``answer`` is what it does with a request; it notes each one."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = send(b"{}")
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                host.requests.append((dict(self.headers), self.rfile.read(length)))
                host.answer(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the output of the tests clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/x"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def send(
    body: bytes, status: int = 200, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Make an answer of a host."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def manifest(version: Any, **more: Any) -> bytes:
    return json.dumps({"version": version, **more}).encode()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture
def slack() -> Iterator[Host]:
    slack = Host()
    slack.answer = send(b"ok")
    yield slack
    slack.close()


@pytest.fixture
def watching(redis_url: str, host: Host, slack: Host) -> Iterator[Flask]:
    """The application on a real Redis, watching ``host`` and telling ``slack``.

    Its keys are its own, so no worker sees them: the tests run the tasks themselves, one by one.
    """
    settings = {
        "REDIS_URL": redis_url,
        "CELERY_TASK_ALWAYS_EAGER": False,
        "CELERY_KEY_PREFIX": "test-manifest:",
        "MANIFEST_URL": host.url,
        "SLACK_WEBHOOK_URL": slack.url,
    }
    app = create_app("testing", settings)
    with app.app_context():
        for key in celery.redis.scan_iter(celery.key("*")):
            celery.redis.delete(key)
        yield app


# Fetching


def test_fetch_gets_the_manifest_and_what_identifies_it(host: Host) -> None:
    host.answer = send(manifest("2.1", files=[1]), ETag='"abc"', Last_Modified="yesterday")

    fetched = fetch.fetch(host.url)

    assert fetched == fetch.Fetched("2.1", {"version": "2.1", "files": [1]}, '"abc"', "yesterday")


def test_fetch_asks_only_for_something_newer(host: Host) -> None:
    host.answer = send(b"", 304)

    assert fetch.fetch(host.url, etag='"abc"', last_modified="yesterday") is None
    headers, _ = host.requests[0]
    assert headers["If-None-Match"] == '"abc"'
    assert headers["If-Modified-Since"] == "yesterday"


def test_fetch_follows_a_redirect(host: Host) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/x":
            send(b"", 302, Location="/y")(handler)
        else:
            send(manifest(3))(handler)

    host.answer = answer

    fetched = fetch.fetch(host.url)

    assert fetched and fetched.version == "3"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (send(b"no", 404), fetch.NotAManifest),
        (send(b"{}", 204), fetch.NotAManifest),
        (send(b"ill", 503), fetch.Unreachable),
        (send(b"", 302, Location="/x"), fetch.Unreachable),
        (send(b"{", Content_Type="application/json"), fetch.NotAManifest),
        (send(b"\xff\xfe"), fetch.NotAManifest),
        (send(b""), fetch.NotAManifest),
        (send(b"[1]"), fetch.NotAManifest),
        (send(b"[" * 100_000), fetch.NotAManifest),
        (send(b'{"version": NaN}'), fetch.NotAManifest),
        (send(b'{"version": "1", "size": 1e999}'), fetch.NotAManifest),
        (send(b'{"name": "no version"}'), fetch.NotAManifest),
        (send(manifest(None)), fetch.NotAManifest),
        (send(manifest(True)), fetch.NotAManifest),
        (send(manifest("")), fetch.NotAManifest),
        (send(manifest({"major": 1})), fetch.NotAManifest),
        (send(manifest("1", blob="x" * fetch.MAX_BYTES)), fetch.NotAManifest),
        (send(gzip.compress(manifest("1")), Content_Encoding="gzip"), fetch.NotAManifest),
        (send(manifest("x" * 101)), fetch.NotAManifest),
        (send(manifest("1\n2026-01-01 ERROR forged")), fetch.NotAManifest),
        (send(b'{"version": "\\ud800"}'), fetch.NotAManifest),
        (send(b'{"version": "1", "key\\udfff": ["x"]}'), fetch.NotAManifest),
        (send(b"", 302, Location="ftp://127.0.0.1/x"), fetch.NotAManifest),
        (send(b"", 302, Location="//[::1"), fetch.Unreachable),
    ],
)
def test_fetch_refuses_what_is_no_manifest(
    host: Host, answer: Callable[[BaseHTTPRequestHandler], None], error: type[Exception]
) -> None:
    host.answer = answer

    with pytest.raises(error) as caught:
        fetch.fetch(host.url)

    assert str(caught.value).endswith(".")


def test_fetch_gives_up_on_a_host_that_is_not_there(host: Host) -> None:
    host.close()

    with pytest.raises(fetch.Unreachable, match="cannot be reached") as caught:
        fetch.fetch(host.url + "?key=hunter2")

    assert "hunter2" not in str(caught.value)


def silent(handler: BaseHTTPRequestHandler, released: threading.Event) -> None:
    released.wait(60)


def one_header_after_the_other(handler: BaseHTTPRequestHandler, released: threading.Event) -> None:
    handler.send_response(200)
    while not released.wait(0.02):
        handler.send_header("X-More", "x")
        handler.flush_headers()


def one_byte_after_the_other(handler: BaseHTTPRequestHandler, released: threading.Event) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not released.wait(0.02):
        handler.wfile.write(b" ")


@pytest.mark.parametrize("slow", [silent, one_header_after_the_other, one_byte_after_the_other])
def test_fetch_gives_up_on_a_slow_host_at_its_deadline(
    host: Host, slow: Callable[[BaseHTTPRequestHandler, threading.Event], None]
) -> None:
    released = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):  # the other side has gone
            slow(handler, released)

    host.answer = answer
    try:
        with pytest.raises(fetch.Unreachable):
            fetch.fetch(host.url, deadline=0.2)
    finally:
        released.set()


@pytest.mark.parametrize("inside", ["http://127.0.0.1:{}/x", "http://localhost:{}/x"])
def test_a_redirect_does_not_reach_the_private_network(
    host: Host, slack: Host, inside: str
) -> None:
    slack.answer = send(manifest("secret"))
    location = inside.format(slack.server.server_port)
    host.answer = send(b"", 302, Location=location)

    with pytest.raises(fetch.NotAManifest, match="private network"):
        fetch.fetch(host.url)

    assert slack.requests == []


# Storing and telling


def check() -> Any:
    """Run a check in this process, with its retries, and return its result."""
    return tasks.check_manifest.apply().get()


def tell() -> None:
    tasks.tell_slack.apply().get()


def test_a_new_version_is_stored_and_told_once(watching: Flask, host: Host, slack: Host) -> None:
    client = watching.test_client()
    for version, files in (("1", ["a"]), ("2", ["a", "b"])):
        host.answer = send(manifest(version, files=files), ETag=f'"{version}"')
        assert check() == {"version": version, "changed": True}
        tell()
    tell()

    texts = [json.loads(body)["text"] for _, body in slack.requests]
    assert texts == [
        "The manifest is watched now. Its version is 1.",
        "The manifest changed from version 1 to 2. Changed: files.",
    ]
    shown = client.get("/api/v1/manifest").json
    assert shown
    assert shown["version"] == "2"
    assert shown["manifest"] == {"version": "2", "files": ["a", "b"]}
    assert shown["etag"] == '"2"'
    assert [change.new for change in store.history()] == ["2", "1"]


def test_an_unchanged_manifest_is_noted_as_checked_and_told_to_nobody(
    watching: Flask, host: Host, slack: Host
) -> None:
    host.answer = send(manifest("1"), ETag='"1"')
    check()
    tell()
    slack.requests.clear()
    host.answer = send(b"", 304)

    assert check() == {"version": "1", "changed": False}

    tell()
    assert host.requests[-1][0]["If-None-Match"] == '"1"'
    assert slack.requests == []


def test_a_failed_check_keeps_the_manifest_and_shows_the_reason(
    watching: Flask, host: Host
) -> None:
    host.answer = send(manifest("1"))
    check()
    host.answer = send(b"{")

    with pytest.raises(fetch.NotAManifest):
        check()

    stored, last = store.load()
    assert stored and stored.version == "1"
    assert last.error and "not valid JSON" in last.error
    assert "not valid JSON" in watching.test_client().get("/").text


def test_a_host_that_is_ill_is_asked_again(watching: Flask, host: Host) -> None:
    answers = [send(b"", 503), send(b"", 503), send(manifest("1"))]
    host.answer = lambda handler: answers.pop(0)(handler)

    assert check() == {"version": "1", "changed": True}

    stored, last = store.load()
    assert stored and stored.version == "1"
    assert last.error is None


def test_while_slack_is_ill_the_change_waits_and_the_manifest_is_not_fetched_again(
    watching: Flask, host: Host, slack: Host
) -> None:
    host.answer = send(manifest("1"))
    slack.answer = send(b"ill", 500)
    check()
    fetched = len(host.requests)

    with pytest.raises(notify.NotTold):
        tell()
    slack.answer = send(b"ok")
    tell()

    assert len(host.requests) == fetched
    assert len(slack.requests) > 2
    assert next(store.untold(), None) is None


def test_slack_that_is_ill_for_long_is_told_of_the_latest_changes(
    watching: Flask, host: Host, slack: Host
) -> None:
    for version in range(store.HISTORY + 5):
        host.answer = send(manifest(str(version)))
        check()
    oldest = next(store.untold(), None)
    tell()

    assert oldest and oldest.new == "5"
    assert len(slack.requests) == store.HISTORY
    assert next(store.untold(), None) is None


def test_a_hostile_manifest_takes_little_of_redis_the_page_and_the_log(
    watching: Flask, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    for version in range(8):
        many = {f"{version}-{number}-{'k' * 900}": 1 for number in range(1000)}
        host.answer = send(manifest(str(version), **many))
        check()
    watching.config["PUBLIC_DASHBOARD"] = True

    assert len(watching.test_client().get("/").data) < 100_000
    assert len(caplog.text) < 100_000
    keys = celery.redis.scan_iter(celery.key("manifest*"))
    assert sum(celery.redis.memory_usage(key) or 0 for key in keys) < 2 * fetch.MAX_BYTES


@pytest.mark.parametrize("garbage", ["", "null", "[]", "{", '{"at": 1}', '{"a": ' + "[" * 5000])
def test_what_somebody_else_wrote_is_replaced(
    watching: Flask, host: Host, slack: Host, garbage: str
) -> None:
    celery.redis.set(celery.key("manifest"), garbage)
    for name in ("manifest:history", "manifest:untold"):
        celery.redis.lpush(celery.key(name), garbage)
    client = watching.test_client()
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/manifest").status_code == 404

    host.answer = send(manifest("1.0"))
    assert check()["changed"]
    tell()

    assert client.get("/api/v1/manifest").status_code == 200
    assert len(slack.requests) == 1


def test_two_checks_never_run_at_once(watching: Flask, host: Host) -> None:
    at_work = threading.Semaphore(1)
    alone: list[bool] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        alone.append(at_work.acquire(blocking=False))
        # Time enough for another check to come, if anything let it.
        threading.Event().wait(0.3)
        at_work.release()
        send(manifest("1"))(handler)

    def check_in_thread() -> None:
        with watching.app_context():
            check()

    host.answer = answer
    threads = [threading.Thread(target=check_in_thread) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert alone == [True, True, True]


def test_a_new_address_is_asked_without_conditions(watching: Flask, host: Host) -> None:
    host.answer = send(manifest("1"), ETag='"1"')
    check()
    watching.config["MANIFEST_URL"] = host.url + "/elsewhere"
    check()

    assert "If-None-Match" not in host.requests[-1][0]


# Over HTTP


def test_before_the_first_fetch_there_is_no_manifest(watching: Flask) -> None:
    assert watching.test_client().get("/api/v1/manifest").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer testing-token2"},
        {"Authorization": "Basic dGVzdGluZy10b2tlbg=="},
        {"Authorization": "testing-token"},
        {"Authorization": "Bearer \u00ff"},
    ],
    ids=str,
)
def test_an_update_needs_the_token(client: FlaskClient, headers: dict[str, str]) -> None:
    response = client.post("/api/v1/update-manifest", headers=headers)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert response.content_type == "application/problem+json"


def test_an_update_is_put_in_the_queue(watching: Flask) -> None:
    token = {"Authorization": f"Bearer {watching.config['API_TOKEN']}"}
    client = watching.test_client()

    response = client.post("/api/v1/update-manifest", headers=token)

    assert response.status_code == 202
    state = client.get(response.headers["Location"]).json
    assert state and state["status"] == "PENDING"


def test_without_an_address_there_is_nothing_to_update(watching: Flask) -> None:
    watching.config["MANIFEST_URL"] = ""
    token = {"Authorization": f"Bearer {watching.config['API_TOKEN']}"}
    client = watching.test_client()

    assert client.post("/api/v1/update-manifest", headers=token).status_code == 409
    assert "MANIFEST_URL is not set" in client.get("/").text


def test_the_sample_is_a_manifest_and_says_when_it_is_unchanged(client: FlaskClient) -> None:
    response = client.get("/sample-manifest.json")
    again = client.get("/sample-manifest.json", headers={"If-None-Match": response.headers["ETag"]})

    assert fetch.parse(response.data).version
    assert again.status_code == 304
