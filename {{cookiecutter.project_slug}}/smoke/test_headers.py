"""The headers that every answer carries."""

from __future__ import annotations

import pytest

from .client import Client

_EXPECTED = {
    "Content-Security-Policy": "default-src",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "",
}


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/v1/schedule", "/no-such-page"])
def test_answers_restrict_what_browsers_do(client: Client, path: str) -> None:
    """Pages, API answers and errors carry the security headers."""
    answer = client.get(path)
    for name, part in _EXPECTED.items():
        value = answer.headers.get(name)
        assert value is not None, f"{answer} has no {name}."
        assert part in value, f"{answer} has {name}: {value}"


def test_scripts_come_only_from_here(client: Client) -> None:
    """The page's policy allows no inline script and none from elsewhere."""
    policy = client.get("/").headers.get("Content-Security-Policy", "")
    assert "unsafe" not in policy and "*" not in policy, f"The policy is weak: {policy}"


def test_a_request_id_is_made(client: Client) -> None:
    """Each answer has a request id of its own."""
    ids = {client.get("/healthz").headers.get("X-Request-ID") for _ in range(3)}
    assert None not in ids, "An answer has no X-Request-ID."
    assert len(ids) == 3, f"Answers share a request id: {ids}"


def test_a_given_request_id_is_kept(client: Client) -> None:
    """A request id that the client sends comes back; one that could forge log lines does not."""
    # In the form that every proxy on the way lets through
    sent = "smoke-0123456789-abcdef"
    answer = client.get("/no-such-page", headers={"X-Request-ID": sent})
    assert answer.headers.get("X-Request-ID") == sent, f"{answer} has another request id."
    odd = "x" * 65
    answer = client.get("/healthz", headers={"X-Request-ID": odd})
    assert answer.headers.get("X-Request-ID") not in (odd, None), f"{answer} kept a bad request id."
