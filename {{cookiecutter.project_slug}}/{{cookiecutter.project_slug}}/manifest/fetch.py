"""Fetch the manifest: bounded in time and size, and only if it changed."""

import json
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import urllib3

#: Seconds for one connect, for one wait for data, and for all of it.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 10.0
DEADLINE = 30.0

#: Most bytes, counted after decompression.
MAX_BYTES = 1024 * 1024

_CHUNK = 64 * 1024


class FetchError(Exception):
    """The manifest could not be had; the message says why."""


class Unreachable(FetchError):
    """The host did not answer, not in time, or said that it is ill. It may get better."""


class BadAnswer(FetchError):
    """The host answered with something else than the manifest."""


class TooLarge(FetchError):
    """The answer is larger than ``MAX_BYTES``."""


class NotAManifest(FetchError):
    """The answer is not a JSON object with a ``version``."""


@dataclass(frozen=True)
class Fetched:
    """A manifest, with what the host needs to say "not modified" the next time."""

    version: str
    manifest: dict[str, Any]
    etag: str | None = None
    last_modified: str | None = None


def fetch(
    url: str,
    etag: str | None = None,
    last_modified: str | None = None,
    *,
    deadline: float = DEADLINE,
    read_timeout: float = READ_TIMEOUT,
) -> Fetched | None:
    """Get the manifest at ``url``; None if it is still the one of ``etag`` or ``last_modified``.

    ``deadline`` and ``read_timeout`` are seconds. Raises a ``FetchError``.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
    if etag:
        headers["If-None-Match"] = etag
    if last_modified:
        headers["If-Modified-Since"] = last_modified
    ends = time.monotonic() + deadline
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=read_timeout)
    redirects_only = urllib3.Retry(3, connect=0, read=0, status=0, other=0)
    with urllib3.PoolManager(timeout=timeout, retries=redirects_only) as http:
        try:
            response = http.request("GET", url, headers=headers, preload_content=False)
            try:
                if response.status == 304:
                    return None
                _check_status(response.status)
                body = _read(response, ends)
            finally:
                response.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # Not the whole text: it repeats the address, which may hold a secret.
            reason = str(getattr(error, "reason", None) or error).rpartition(": ")[2]
            raise Unreachable(f"The manifest's host cannot be reached: {reason}") from error
    found = response.headers
    return parse(body, _sendable(found.get("ETag")), _sendable(found.get("Last-Modified")))


def parse(body: bytes, etag: str | None = None, last_modified: str | None = None) -> Fetched:
    """Make a manifest of the bytes of an answer. Raises ``NotAManifest``."""
    try:
        manifest = json.loads(body, parse_constant=_refuse_constant)
        # 1e999 becomes infinite, which JSON cannot carry on.
        json.dumps(manifest, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise NotAManifest(f"The manifest is not valid JSON: {error}.") from error
    if not isinstance(manifest, dict):
        raise NotAManifest("The manifest is not a JSON object.")
    version = manifest.get("version")
    if isinstance(version, bool) or not isinstance(version, str | int | float) or version == "":
        raise NotAManifest("The manifest has no version: a text or a number under 'version'.")
    return Fetched(str(version), manifest, etag, last_modified)


def _check_status(status: int) -> None:
    if status >= 500 or status == 429:
        raise Unreachable(f"The manifest's host answered {status}.")
    if status != 200:
        raise BadAnswer(f"The manifest's host answered {status}, not 200.")


def _read(response: urllib3.BaseHTTPResponse, ends: float) -> bytes:
    """Read the body; a host that sends a byte now and then must not hold the worker."""
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > MAX_BYTES:
            raise TooLarge(f"The manifest is larger than {MAX_BYTES} bytes.")
        if time.monotonic() > ends:
            raise Unreachable("The manifest's host took too long to send it.")
    return bytes(body)


def _sendable(header: str | None) -> str | None:
    """Return a header's value if it can be sent back later."""
    return header if header and len(header) <= 200 and header.isprintable() else None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not part of JSON")
