"""Start tasks over the API and watch them."""

from __future__ import annotations

from typing import Any

from .client import Answer, Client

START = "/api/v1/start-task"
#: States in which a task has ended.
ENDED = ("SUCCESS", "FAILURE", "REVOKED")


def start(client: Client, duration: float, fail: bool = False) -> str:
    """Start the demo task and return the path of its state."""
    return accepted(client.post(START, data={"duration": duration, "fail": fail}))


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
