"""A running project as the tests of targets use it, and the Redis that they switch off."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120.0  # seconds; reached only when something is broken
LOOK = 0.2  # seconds between two looks
REQUEST = 10.0  # seconds for one request


class Stack:
    """A running project: its address, its folder, and the process that started it."""

    def __init__(
        self, url: str, project: Path, process: subprocess.Popen[bytes], log: Path
    ) -> None:
        self.url = url
        self.project = project
        self.process = process
        self.log = log

    def request(
        self, path: str, body: object = None, method: str | None = None, token: str = ""
    ) -> tuple[int, Any]:
        """Send a request; return the status, and the body (JSON as an object)."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(
            self.url + path,
            headers=headers,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST) as answer:
                return answer.status, _decoded(answer.headers, answer.read())
        except urllib.error.HTTPError as answer:
            return answer.code, _decoded(answer.headers, answer.read())

    def wait_until(self, what: str, condition: Any) -> Any:
        """Look until ``condition()`` is true and return what it gave; fail with the log."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if found := condition():
                    return found
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(LOOK)
        pytest.fail(f"Waited in vain: {what}.\n{self.log.read_text(errors='replace')[-6000:]}")

    def end_of(self, task_id: str) -> list[str]:
        """Watch a task to its end; return the states that were seen, in order."""
        seen: list[str] = []

        def ended() -> bool:
            status, task = self.request(f"/api/v1/task-status/{task_id}")
            assert status == 200, task
            if task["status"] not in seen[-1:]:
                seen.append(task["status"])
            return task["status"] in ("SUCCESS", "FAILURE", "REVOKED")

        self.wait_until(f"the end of the task {task_id}", ended)
        return seen


def _decoded(headers: Any, body: bytes) -> Any:
    return json.loads(body) if "json" in headers.get("Content-Type", "") else body.decode()


@contextmanager
def running(
    command: list[str], cwd: Path, folder: Path, port: int, variables: dict[str, str]
) -> Iterator[Stack]:
    """Start a command that serves the application on ``port``, wait for it, and stop it."""
    log = folder / "output.log"
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    stack = Stack(f"http://127.0.0.1:{port}", cwd, process, log)
    try:
        stack.wait_until("the application is ready", lambda: stack.request("/readyz")[0] == 200)
        yield stack
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def processes_in(folder: Path) -> list[str]:
    """Name what runs with ``folder``, or a folder below it, as its working folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended meanwhile
    return found
