"""Whatever a client sends gets a clear answer, and never a 500."""

from __future__ import annotations

import pytest

from .client import Client


def test_a_huge_body_is_refused(client: Client) -> None:
    """A body of 100 kB is refused with 413."""
    # The server need not read such a body; then the connection cannot be used again.
    answer = client.post("/api/v1/queues", body=b"x" * 100_000, headers={"Connection": "close"})
    answer.expect_problem(413)


@pytest.mark.parametrize(
    "task_id", ["00000000-0000-4000-8000-000000000000", "x", "x" * 300, "%00", "a%20b", "%F0%9F"]
)
def test_an_unknown_task_is_not_found(client: Client, task_id: str) -> None:
    """A task id that was never issued is answered with 404, however odd it looks."""
    path = f"/api/v1/task-status/{task_id}"
    answer = client.get(path)
    # A proxy may refuse some of them before the application sees them.
    assert answer.status in (400, 404), f"{answer} should be refused."
    if answer.status == 404:
        answer.expect_problem(404)
        client.delete(path).expect_problem(404)


def test_an_unknown_address_is_not_found(client: Client) -> None:
    """An address of the API that does not exist is answered with 404."""
    client.get("/api/v1/no-such-thing").expect_problem(404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_method_that_is_not_possible_is_refused(client: Client, method: str) -> None:
    """A method that an address does not know is refused with 405 and the list of those it does."""
    answer = client.request(method, "/api/v1/queues")
    answer.expect_problem(405)
    assert "GET" in answer.headers.get("Allow", ""), f"{answer} has no Allow header."


def test_the_form_of_another_site_is_refused(client: Client) -> None:
    """Another site's page cannot make a visitor's browser start anything."""
    answer = client.post(
        "/api/v1/queues", headers={"Origin": "https://other.invalid", "Accept": "application/json"}
    )
    answer.expect_problem(403)
