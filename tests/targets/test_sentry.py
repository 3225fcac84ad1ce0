"""Errors of requests and tasks reach Sentry, with their ids and without secrets."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import support
from devtools.dev.redis_server import EmbeddedRedis
from targets.browser import Process

#: Seconds; reached only when something is broken
PATIENCE = 60.0

# The lines of the source around an error are sent, so no secret stands in them.
VIEWS = """

@bp.post("/fail")
def fail() -> str:
    variable = "-".join(("secret", "variable"))
    raise RuntimeError(f"view: redis://ada:{variable}@host/0, http://host/?a={variable}")


@bp.post("/fail-later")
def fail_later() -> ResponseReturnValue:
    from .tasks import failing

    secret = "-".join(("secret", "argument"))
    return accepted(failing.delay(secret, key=secret).id)
"""
TASK = """

@shared_task
def failing(argument: str, key: str) -> None:
    raise RuntimeError("task")
"""


class Sentry:
    """A receiver of Sentry's protocol: all that was sent, and the events in it."""

    def __init__(self) -> None:
        self.sent = b""
        self.events: dict[str, Any] = {}
        self._came = threading.Condition()

    def take(self, body: bytes) -> None:
        """Take an envelope: JSON in lines, of which one is the event."""
        with self._came:
            self.sent += body
            for line in body.splitlines():
                event = json.loads(line)
                if "exception" in event:
                    text = event["exception"]["values"][-1]["value"]
                    self.events[text.partition(":")[0]] = event
            self._came.notify_all()

    def event(self, text: str) -> Any:
        """Wait for the event of the error whose text begins so."""
        with self._came:
            assert self._came.wait_for(lambda: text in self.events, PATIENCE), self.sent
            return self.events[text]


@pytest.fixture(scope="module")
def sentry() -> Iterator[tuple[str, Sentry]]:
    """Return the address that Sentry would show, and what came there."""
    received = Sentry()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.take(body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://public@127.0.0.1:{server.server_port}/1", received
        server.shutdown()


@pytest.fixture(scope="module")
def url(
    sentry: tuple[str, Sentry],
    render: Callable[[support.Answers], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Start a project in production that knows Sentry, and has a view and a task that fail."""
    project = render({})
    demo = project / support.DEFAULT_SLUG / "demo"
    for name, text in (("routes.py", VIEWS), ("tasks.py", TASK)):
        with (demo / name).open("a") as file:
            file.write(text)
    support.succeed("uv", "sync", "--quiet", "--locked", "--extra", "sentry", cwd=project)
    folder, port = tmp_path_factory.mktemp("sentry"), support.free_port()
    with EmbeddedRedis(folder / "redis") as redis:
        settings = {
            **{"FLASK_APP": support.DEFAULT_SLUG, "FLASK_CONFIG": "production"},
            **{
                "SECRET_KEY": "a-secret-key" * 3,
                "API_TOKEN": "a-secret-token" * 3,
                "PUBLIC_DEMO": "yes",
            },
            **{"REDIS_URL": redis.url, "SENTRY_DSN": sentry[0], "BIND": f"127.0.0.1:{port}"},
        }
        application = f"{support.DEFAULT_SLUG}:create_app()"
        processes = [
            Process(command, project, folder / f"{command[0]}.log", settings)
            for command in (
                ["gunicorn", "-c", "gunicorn.conf.py", application],
                ["flask", "celery", "cluster"],
            )
        ]
        try:
            for process in processes:
                process.start()
            yield f"http://127.0.0.1:{port}"
        finally:
            for process in processes:
                process.stop()


def post(url: str, request_id: str) -> int:
    """Send a request with secrets wherever there can be some; return the status."""
    headers = {
        "Authorization": "Bearer secret-header",
        "Content-Type": "application/json",
        "Cookie": "session=secret-cookie",
        "X-Request-ID": request_id,
    }
    request = urllib.request.Request(
        f"{url}?token=secret-token", b'{"password": "secret-body"}', headers
    )
    for _ in range(200):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            threading.Event().wait(0.1)  # the web server is about to start
    raise AssertionError(f"{url} does not answer.")


def test_an_error_of_a_request_arrives_with_its_id(url: str, sentry: tuple[str, Sentry]) -> None:
    assert post(f"{url}/fail", "request-1") == 500

    event = sentry[1].event("view")
    assert event["tags"]["request_id"] == "request-1"
    assert event["environment"] == "production"
    error = event["exception"]["values"][-1]
    assert error["type"] == "RuntimeError"
    assert error["stacktrace"]["frames"][-1]["function"] == "fail"
    assert "redis://***@host/0, http://host/?***" in error["value"]


def test_an_error_of_a_task_arrives_with_the_ids_of_task_and_request(
    url: str, sentry: tuple[str, Sentry]
) -> None:
    assert post(f"{url}/fail-later", "request-2") == 202

    event = sentry[1].event("task")
    assert event["tags"]["request_id"] == "request-2"
    assert event["tags"]["task_name"].endswith(".failing")
    assert event["tags"]["task_id"]
    assert event["exception"]["values"][-1]["stacktrace"]["frames"][-1]["function"] == "failing"


def test_no_secret_is_in_all_that_was_sent(url: str, sentry: tuple[str, Sentry]) -> None:
    sentry[1].event("view")
    sentry[1].event("task")
    assert b"secret-" not in sentry[1].sent


def test_without_the_library_the_start_ends_with_a_sentence(generated: Path) -> None:
    address = "http://public@127.0.0.1/1"
    done = support.run("uv", "run", "--quiet", "flask", "check", cwd=generated, SENTRY_DSN=address)

    assert done.returncode == 1
    assert "SENTRY_DSN: No module named 'sentry_sdk'. docs/sentry.md says" in done.stderr
    assert "Traceback" not in done.stderr
