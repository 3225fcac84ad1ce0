"""Start tasks over the API and watch them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import pytest

from .client import Answer, Client

START = "/api/v1/start-task"
#: States in which a task has ended.
ENDED = ("SUCCESS", "FAILURE", "REVOKED")


def start(client: Client, duration: float, fail: bool = False) -> str:
    """Start the demo task and return the path of its state."""
    body = {"duration": duration, "fail": fail}
    return accepted(client.post(START, data=body, token=client.token))


def sign_in(client: Client) -> dict[str, str]:
    """Sign in with the API token; return the headers of a form that the same browser sends."""
    page = client.get("/sign-in")
    if page.status == 403:
        pytest.skip("signing in wants https://")
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.expect(200).text)
    assert found, f"{page} has no token against forged forms."
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": page.headers["Set-Cookie"].partition(";")[0],
    }
    body = urlencode({"token": client.token, "csrf_token": found[1]}).encode()
    answer = client.post("/sign-in", body=body, headers=headers)
    assert answer.status == 303, f"{answer}: the API token was refused."
    return headers | {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def accepted(answer: Answer) -> str:
    """Fail the check unless ``answer`` accepts a task; return the path of the task's state."""
    task = answer.expect(202).json()
    assert task["status"] == "PENDING", f"{answer} should be PENDING: {task}"
    location = answer.headers.get("Location", "")
    assert location.endswith(f"/api/v1/task-status/{task['task_id']}"), (
        f"{answer} has a Location that is not the task's: {location!r}"
    )
    return f"/api/v1/task-status/{task['task_id']}"


def state(client: Client, path: str) -> dict[str, Any]:
    """Return what the API says of a task."""
    said: dict[str, Any] = client.get(path).expect(200).json()
    return said


def wait_for_state(
    client: Client, path: str, *states: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Watch a task until it is in one of ``states``.

    Returns the last thing that was said of it, and all things before that. Fails the check when it
    takes too long, or when the task ends in another state.
    """
    seen: list[dict[str, Any]] = []

    def look() -> dict[str, Any] | None:
        said = state(client, path)
        if said["status"] in states:
            return said
        assert said["status"] not in ENDED, f"The task should be {' or '.join(states)}: {said}"
        if not seen or said != seen[-1]:
            seen.append(said)
        return None

    return client.wait_for(f"The state {' or '.join(states)} of {path}", look), seen
