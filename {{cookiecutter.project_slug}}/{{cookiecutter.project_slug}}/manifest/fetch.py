"""Fetch the manifest: bounded in time and size, and only if it changed.

Its host is trusted with nothing: the whole ends after ``DEADLINE`` seconds however slowly the
answer comes, and a redirect to another host may not lead into a private network.
"""

import json
import socket
import ssl
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from threading import Thread
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..api.body import refuse_constant

#: Seconds for one connect or one silence, and for all of it.
CONNECT_TIMEOUT, DEADLINE = 5.0, 30.0
#: Bytes of an answer, characters of a version, and redirects: the most that are taken.
MAX_BYTES, MAX_VERSION, MAX_REDIRECTS = 1024 * 1024, 100, 3


class FetchError(Exception):
    """The manifest could not be had; the message says why."""


class Unreachable(FetchError):
    """The host did not answer, not in time, or said that it is ill. It may get better."""


class NotAManifest(FetchError):
    """The host answered with something that is no manifest."""


@dataclass(frozen=True)
class Fetched:
    """A manifest, with what the host needs to say "not modified" the next time."""

    version: str
    manifest: dict[str, Any]
    etag: str | None = None
    last_modified: str | None = None


def fetch(
    url: str, etag: str | None = None, last_modified: str | None = None, deadline: float = DEADLINE
) -> Fetched | None:
    """Get the manifest at ``url``; None if it is still the one of ``etag`` or ``last_modified``.

    ``deadline`` is in seconds. Raises a ``FetchError``.
    """
    conditions = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    headers = {name: value for name, value in conditions.items() if value}
    opened: list[socket.socket] = []
    answer: Future[tuple[HTTPResponse, bytes]] = Future()

    def ask() -> None:
        try:
            with _ask(url, headers, opened) as response:
                answer.set_result((response, response.read(MAX_BYTES + 1)))
        except Exception as error:
            answer.set_exception(error)

    # A thread, because neither the system's look-up of a name nor a slow answer has a deadline.
    Thread(target=ask, daemon=True).start()
    try:
        response, body = answer.result(deadline)
    except (OSError, HTTPException, ValueError) as error:
        # Not the text of every error: it may repeat the address, which may hold a secret.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Unreachable(f"The manifest's host cannot be reached: {reason}.") from error
    finally:
        for connected in opened:
            with suppress(OSError):  # it is closed already, unless the deadline came first
                connected.shutdown(socket.SHUT_RDWR)
    if (status := response.status) == 304:
        return None
    if status >= 500 or status == 429:
        raise Unreachable(f"The manifest's host answered {status}.")
    if status != 200:
        raise NotAManifest(f"The manifest's host answered {status}, not 200.")
    found = response.headers
    return parse(body, _sendable(found.get("ETag")), _sendable(found.get("Last-Modified")))


def parse(body: bytes, etag: str | None = None, last_modified: str | None = None) -> Fetched:
    """Make a manifest of the bytes of an answer. Raises ``NotAManifest``."""
    if len(body) > MAX_BYTES:
        raise NotAManifest(f"The manifest is larger than {MAX_BYTES} bytes.")
    try:
        manifest = json.loads(body, parse_constant=refuse_constant)
        # 1e999 becomes infinite, and "\ud800" is half a letter: neither can be passed on.
        json.dumps(manifest, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise NotAManifest(f"The manifest is not valid JSON: {error}.") from error
    if not isinstance(manifest, dict):
        raise NotAManifest("The manifest is not a JSON object.")
    version = manifest.get("version")
    if isinstance(version, bool) or not isinstance(version, str | int | float) or version == "":
        raise NotAManifest("The manifest has no version: a text or a number under 'version'.")
    if len(str(version)) > MAX_VERSION or not str(version).isprintable():
        raise NotAManifest(f"The version is not a line of at most {MAX_VERSION} characters.")
    return Fetched(str(version), manifest, etag, last_modified)


def _ask(url: str, headers: dict[str, str], opened: list[socket.socket]) -> HTTPResponse:
    """Send the request and follow redirects; return the answer, its body unread."""
    own = urlsplit(url).netloc
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        connection = HTTPConnection(parts.netloc.rpartition("@")[2])
        connection.sock = _connect(url, public=parts.netloc != own)
        opened.append(connection.sock)
        target = parts._replace(scheme="", netloc="", path=parts.path or "/", fragment="").geturl()
        connection.request("GET", target, headers=headers | {"Connection": "close"})
        response = HTTPResponse(connection.sock, method="GET")
        response.begin()
        location = response.headers.get("Location")
        if location is None or response.status not in (301, 302, 303, 307, 308):
            return response
        response.close()
        url = urljoin(url, location)
    raise Unreachable(f"The manifest's host redirects more than {MAX_REDIRECTS} times.")


def _connect(url: str, public: bool) -> socket.socket:
    """Connect to a URL's host, with TLS for https; ``public``: not inside a private network."""
    parts = urlsplit(url)
    port = {"http": 80, "https": 443}.get(parts.scheme)
    if port is None or not parts.hostname:
        raise NotAManifest("The manifest's host redirects to what is no address of the web.")
    # Connect to the address that was checked: a second look-up could give another one.
    address = str(socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)[0][4][0])
    if public and not ip_address(address).is_global:
        raise NotAManifest("The manifest's host redirects into a private network.")
    connected = socket.create_connection((address, parts.port or port), CONNECT_TIMEOUT)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connected = context.wrap_socket(connected, server_hostname=parts.hostname)
    return connected


def _sendable(header: str | None) -> str | None:
    """Return a header's value if it can be sent back later."""
    return header if header and len(header) <= 200 and header.isprintable() else None
