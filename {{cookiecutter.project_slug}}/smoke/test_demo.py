"""Work in the background, from the start to the end."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from . import tasks
from .client import Client

pytestmark = [pytest.mark.log("worker"), pytest.mark.usefixtures("demo")]


def test_a_task_runs_to_its_result(client: Client) -> None:
    """A task is accepted, tells its progress, and ends with its result."""
    task = tasks.start(client, 2)
    ended, before = tasks.wait_for_state(client, task, "SUCCESS")
    assert ended["result"], f"The task has no result: {ended}"
    assert ended["error"] is None, f"The task succeeded with an error: {ended}"
    shown = [said["progress"]["percent"] for said in before if said["progress"]]
    assert len(shown) > 1, f"No progress was seen, only {before}"
    assert shown == sorted(shown), f"The progress went back: {shown}"


def test_a_failing_task_shows_its_error(client: Client) -> None:
    """A task that fails is an answer like any other, with the error's text."""
    ended, _ = tasks.wait_for_state(client, tasks.start(client, 0, fail=True), "FAILURE")
    assert ended["error"], f"The failed task has no error: {ended}"
    assert "Traceback" not in ended["error"], f"The error shows a traceback: {ended}"
    assert ended["result"] is None, f"The failed task has a result: {ended}"


def test_a_running_task_can_be_cancelled(client: Client) -> None:
    """A task that runs is stopped when told to, once."""
    task = tasks.start(client, 30)
    tasks.wait_for_state(client, task, "PROGRESS", "STARTED")
    assert client.delete(task).expect(202).json()["status"] == "REVOKED"
    tasks.wait_for_state(client, task, "REVOKED")
    client.delete(task).expect_problem(409)


def test_a_task_that_ended_cannot_be_cancelled(client: Client) -> None:
    """Cancelling a task that has ended is answered with 409."""
    task = tasks.start(client, 0)
    tasks.wait_for_state(client, task, "SUCCESS")
    client.delete(task).expect_problem(409)


def test_the_form_of_the_page_starts_a_task(client: Client) -> None:
    """The page's form works without JavaScript, and leads to the page of its task."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if client.token:
        headers = tasks.sign_in(client)
    body = urlencode({"duration": "0"}).encode()
    answer = client.post("/tasks", body=body, headers=headers).expect(303)
    page = client.get(answer.headers["Location"]).expect(200)
    assert "</html>" in page.text, f"{page} is not complete."
    task_id = answer.headers["Location"].rpartition("/")[2]
    tasks.wait_for_state(client, f"/api/v1/task-status/{task_id}", "SUCCESS")
    path = f"{answer.headers['Location']}/live"
    assert "long_task" in client.get(path).expect(200).text, "The task's page does not name it."
