"""What a person sees in a browser."""

from __future__ import annotations

import re

import pytest

from .client import Client

_ASSET = re.compile(r'<(?:link|script|img)\b[^>]*?\b(?:href|src)="([^"]+)"')
_TYPES = {"css": "text/css", "js": "javascript", "svg": "image/svg+xml", "png": "image/png"}


def test_the_page_loads(client: Client) -> None:
    """The first page is complete HTML."""
    answer = client.get("/").expect(200)
    assert answer.headers.get("Content-Type", "").startswith("text/html"), f"{answer} is no HTML."
    assert "<title>" in answer.text and "</html>" in answer.text, f"{answer} is not complete."


def test_the_assets_of_the_page_load(client: Client) -> None:
    """All styles, scripts and images of the first page load, each with its own type."""
    paths = _ASSET.findall(client.get("/").expect(200).text)
    assert paths, "The page names no style and no icon."
    for path in paths:
        answer = client.get(path.replace("&amp;", "&")).expect(200)
        kind = answer.headers.get("Content-Type", "")
        name = path.partition("?")[0]
        assert _TYPES.get(name.rpartition(".")[2], "") in kind, f"{answer} is {kind}."
        assert answer.body, f"{answer} is empty."
        assert answer.headers.get("Cache-Control"), f"{answer} has no Cache-Control."


def test_the_page_keeps_itself_up_to_date(client: Client) -> None:
    """What the first page shows can be asked for again, and the server says when."""
    answer = client.get("/live", token=client.token)
    if answer.status == 403:
        pytest.skip("the page shows its numbers only to those who are signed in")
    assert answer.expect(200).headers.get("ETag"), f"{answer} has no ETag."
    assert float(answer.headers.get("Poll-After", "0")) >= 1, f"{answer} has no Poll-After."


def test_a_page_that_does_not_exist_says_so(client: Client) -> None:
    """A wrong address is answered with a page that says so, and shows nothing from inside."""
    answer = client.get("/no-such-page", headers={"Accept": "text/html"}).expect(404)
    assert answer.headers.get("Content-Type", "").startswith("text/html"), f"{answer} is no HTML."
    assert "Traceback" not in answer.text, f"{answer} shows a traceback."


def test_hidden_files_are_not_served(client: Client) -> None:
    """Nobody can fetch .env or .git."""
    for path in ("/.env", "/.git/config", "/static/../config.py", "/static/%2e%2e/config.py"):
        answer = client.get(path)
        assert answer.status in (400, 403, 404), f"{answer} should be refused."
