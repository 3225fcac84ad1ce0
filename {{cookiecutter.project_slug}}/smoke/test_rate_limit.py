"""The limit on what puts tasks in a queue. It runs last, because it uses the limit up.

It is a visitor's limit: operators have none, so a run with the API token never waits for it.
"""

from __future__ import annotations

import pytest

from .client import Answer, Client

#: Requests after which there must have been a limit.
MOST = 300


@pytest.mark.usefixtures("demo")
def test_too_many_requests_are_refused(client: Client) -> None:
    """Who asks too often is told so with 429, and when to come back."""
    # A list is refused, and so are strangers, but both count: no task is started.
    answers = (client.post("/api/v1/start-task", body=b"[]", patient=False) for _ in range(MOST))
    refused = next((answer for answer in answers if answer.status == 429), None)
    assert isinstance(refused, Answer), f"After {MOST} requests there was no 429."
    refused.expect_problem(429)
    pause = refused.headers.get("Retry-After", "")
    assert pause.isdigit() and int(pause) >= 1, f"{refused} has Retry-After: {pause!r}"
    client.get("/healthz").expect(200)
