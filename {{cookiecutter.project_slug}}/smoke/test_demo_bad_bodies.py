"""Whatever the body of a request holds, the answer says what is wrong with it."""

from __future__ import annotations

import pytest

from .client import Client
from .tasks import START

pytestmark = pytest.mark.usefixtures("demo")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{", 400, id="broken JSON"),
        pytest.param(b"", 400, id="empty"),
        pytest.param(b"\xff\xfe", 400, id="not UTF-8"),
        pytest.param(b"[" * 30000, 400, id="nested too deeply"),
        pytest.param(b"[]", 400, id="a list"),
        pytest.param(b'{"duration": "10"}', 400, id="text for a number"),
        pytest.param(b'{"duration": true}', 400, id="true for a number"),
        pytest.param(b'{"duration": -1}', 400, id="negative"),
        pytest.param(b'{"duration": NaN}', 400, id="not a number"),
        pytest.param(b'{"duration": 1e999}', 400, id="infinite"),
        pytest.param(b'{"duration": 1, "fail": "no"}', 400, id="text for a flag"),
        pytest.param(b'{"duration": 1, "more": 1}', 400, id="unknown field"),
    ],
)
def test_a_bad_body_is_refused(client: Client, body: bytes, status: int) -> None:
    """A body that makes no sense is refused with a sentence that says why."""
    client.post(START, body=body, token=client.token).expect_problem(status)


def test_a_body_that_is_not_json_is_refused(client: Client) -> None:
    """A body that is declared as something else than JSON is refused with 415."""
    headers = {"Content-Type": "text/plain"}
    answer = client.post(START, body=b"duration=1", headers=headers, token=client.token)
    answer.expect_problem(415)
