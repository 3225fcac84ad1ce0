"""The README's first command, used as a newcomer would: everything runs, and Ctrl-C ends it all."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import support
from devtools.dev.redis_server import EmbeddedRedis
from targets.stack import PATIENCE, Stack, processes_in, running


@pytest.fixture(scope="module")
def slack() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server that stands for Slack: its address, and the messages that it got."""
    messages: list[dict[str, Any]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            messages.append(json.loads(body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", messages
        server.shutdown()


@pytest.fixture(scope="module")
def demo(
    tmp_path_factory: pytest.TempPathFactory, slack: tuple[str, list[dict[str, Any]]]
) -> Iterator[Stack]:
    """``bin/demo``, running."""
    folder = tmp_path_factory.mktemp("demo")
    port = support.free_port()
    variables = {"SLACK_WEBHOOK_URL": slack[0], "MANIFEST_INTERVAL": "2"}
    command = [str(support.ROOT / "bin" / "demo"), "--dir", str(folder), "--port", str(port)]
    with running(command, support.ROOT, folder, port, variables) as stack:
        stack.project = folder / support.DEFAULT_SLUG
        yield stack


def test_the_page_loads(demo: Stack) -> None:
    status, page = demo.request("/")

    assert status == 200
    assert "<!doctype html>" in page.lower()


def test_a_task_goes_from_pending_over_progress_to_success(demo: Stack) -> None:
    status, task = demo.request("/api/v1/start-task", {"duration": 3})

    assert (status, task["status"]) == (202, "PENDING")
    seen = demo.end_of(task["task_id"])
    assert seen[-2:] == ["PROGRESS", "SUCCESS"], seen


def test_the_schedule_fetches_the_manifest_and_slack_hears_of_an_edit(
    demo: Stack, slack: tuple[str, list[dict[str, Any]]]
) -> None:
    def manifest() -> dict[str, Any]:
        status, stored = demo.request("/api/v1/manifest")
        return stored if status == 200 else {}

    first = demo.wait_until("the schedule stored a manifest", manifest)
    sample = demo.project / support.DEFAULT_SLUG / "manifest" / "sample-manifest.json"
    edited = json.loads(sample.read_text()) | {"version": "4711"}
    sample.write_text(json.dumps(edited))

    demo.wait_until("the edit arrived", lambda: manifest().get("version") == "4711")
    told = demo.wait_until(
        "Slack was told", lambda: [text for text in map(str, slack[1]) if "4711" in text]
    )
    assert first["version"] in told[0], "The message names the version before."


def test_an_update_on_demand_needs_the_token(demo: Stack) -> None:
    token = support.env_values(demo.project)["API_TOKEN"]

    assert demo.request("/api/v1/update-manifest", method="POST")[0] == 401
    assert demo.request("/api/v1/update-manifest", method="POST", token="wrong")[0] == 401
    status, task = demo.request("/api/v1/update-manifest", method="POST", token=token)
    assert status == 202
    assert demo.end_of(task["task_id"])[-1] == "SUCCESS"


def test_ctrl_c_stops_everything_and_leaves_no_process(demo: Stack) -> None:
    assert processes_in(demo.project) != []

    demo.process.send_signal(signal.SIGINT)

    assert demo.process.wait(PATIENCE) == 0
    assert processes_in(demo.project) == []


def test_whoever_has_no_flower_is_told_how_to_get_it(generated: Path) -> None:
    cluster = ("uv", "run", "--quiet", "flask", "celery", "cluster", "--flower")

    ended = support.run(*cluster, cwd=generated)

    assert "uv sync --extra flower" in ended.stderr
    assert ended.returncode == 1


def test_a_name_server_that_never_answers_does_not_hold_a_fetch(
    generated: Path, tmp_path: Path
) -> None:
    """In a network of its own, whose name server is a socket that nobody reads."""
    settings = tmp_path / "resolv.conf"
    settings.write_text("nameserver 127.0.0.1\noptions timeout:30\n")
    program = """
import socket, sys
from my_app.manifest.fetch import Unreachable, fetch
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
try:
    fetch("http://manifest.example/", deadline=1)
except Unreachable as error:
    sys.exit(str(error))
"""
    own = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    steps = f'mount --bind {settings} /etc/resolv.conf && ip link set lo up && exec "$@"'
    if support.run(*own, "sh", "-c", steps, "sh", "true", cwd=tmp_path).returncode:
        pytest.skip("this system lets nobody make a network of his own (unshare --user --net)")

    python = generated / ".venv" / "bin" / "python"
    done = support.run(*own, "sh", "-c", steps, "sh", python, "-c", program, cwd=generated)

    # The system itself would say after 60 s that name resolution failed.
    assert "cannot be reached: TimeoutError." in done.stderr


def test_redis_goes_away_and_comes_back(generated: Path, tmp_path: Path) -> None:
    """Without Redis each request has a clear answer; with it, all goes on by itself."""
    port = support.free_port()
    redis = EmbeddedRedis(tmp_path / "redis")
    redis.start()
    variables = {"REDIS_URL": redis.url, "MANIFEST_INTERVAL": "2"}
    command = ["uv", "run", "--quiet", "flask", "dev", "--no-reload", "--port", str(port)]
    try:
        with running(command, generated, tmp_path, port, variables) as stack:
            _run_a_task(stack)
            checked = _last_check(stack)
            redis.stop()

            assert stack.request("/")[0] == 200
            status, problem = stack.request("/api/v1/start-task", {"duration": 1})
            assert (status, problem["status"]) == (503, 503)
            assert "Nothing was started" in problem["detail"]
            status, problem = stack.request("/readyz")
            assert (status, problem["detail"]) == (503, "Redis cannot be reached.")

            redis.start()
            stack.wait_until("it is ready again", lambda: stack.request("/readyz")[0] == 200)
            _run_a_task(stack)
            stack.wait_until("the schedule goes on", lambda: _last_check(stack) != checked)
    finally:
        redis.stop()


def _run_a_task(stack: Stack) -> None:
    status, task = stack.request("/api/v1/start-task", {"duration": 1})
    assert status == 202
    assert stack.end_of(task["task_id"])[-1] == "SUCCESS"


def _last_check(stack: Stack) -> str:
    """When the watcher, which the schedule runs, looked last."""
    stored = stack.wait_until("a manifest is stored", lambda: stack.request("/api/v1/manifest"))
    return str(stored[1].get("checked_at"))
