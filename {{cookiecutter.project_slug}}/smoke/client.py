"""A small HTTP client, and the words in which the checks say what they expect."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3

#: Seconds for a connect, and for an answer. The slowest answer that is right is a 503 after 1 s.
TIMEOUT = 10.0

#: Seconds that work in the background may take to come; much fewer where it is known to be ill.
PATIENCE = 60.0
PATIENCE_WITH_THE_ILL = 3.0

#: Longest time that a full rate limit is waited for, in seconds.
_LONGEST_WAIT = 65


class Unreachable(Exception):
    """The deployment did not answer at all; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What came back, and for which request."""

    request: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON; the check fails if it is none."""
        kind = self.headers.get("Content-Type", "nothing")
        assert "json" in kind, f"{self} should be JSON and is {kind}."
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise AssertionError(f"{self} says that it is JSON and is not: {error}.") from None

    def expect(self, status: int) -> Answer:
        """Fail the check unless the answer has ``status``; return the answer."""
        assert self.status == status, f"{self} should be {status}: {self.text[:300]}"
        return self

    def expect_problem(self, status: int) -> dict[str, Any]:
        """Fail the check unless this is a problem document of ``status``; return its members."""
        self.expect(status)
        kind = self.headers.get("Content-Type", "nothing")
        assert kind.startswith("application/problem+json"), (
            f"{self} should be application/problem+json and is {kind}."
        )
        members: dict[str, Any] = self.json()
        assert members.get("status") == status, f"{self} names another status: {members}"
        assert members.get("title"), f"{self} has no title: {members}"
        assert members.get("detail"), f"{self} does not say what was wrong: {members}"
        assert "Traceback" not in self.text, f"{self} shows a traceback."
        return members

    def __str__(self) -> str:
        return f"The answer {self.status} to {self.request}"


class Client:
    """Speaks to one deployment. Follows no redirect, tries nothing twice.

    With ``connect`` it speaks to that address, wherever DNS leads the name in the base URL; the
    server still hears the name, as ``Host`` and in the handshake of TLS.
    """

    def __init__(
        self,
        base_url: str,
        token: str = "",
        ca_file: str | None = None,
        insecure: bool = False,
        connect: str | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.address = connect or self.host
        self.token = token if self.is_private else ""
        #: Why there is none, for what is left out without it.
        self.no_token = "the API token goes over https only" if token else "no API token was given"
        self.ca_file = ca_file
        self.insecure = insecure
        self.patience = PATIENCE
        self._http = self._pool()

    @property
    def uses_tls(self) -> bool:
        """Whether the deployment is spoken to over HTTPS."""
        return self.base_url.startswith("https://")

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what is sent: over TLS, or within this machine."""
        if self.uses_tls or self.address == "localhost":
            return True
        try:
            return ip_address(self.address).is_loopback
        except ValueError:
            return False

    @property
    def host(self) -> str:
        """The host name in the base URL."""
        return urlsplit(self.base_url).hostname or ""

    def get(self, path: str, **options: Any) -> Answer:
        """Send a GET request; for the options see ``request``."""
        return self.request("GET", path, **options)

    def numbers(self, path: str) -> Answer:
        """Get what only operators see where the page is closed; left out without their token."""
        answer = self.get(path, token=self.token)
        if answer.status == 403 and not self.token:
            pytest.skip(f"only operators see the numbers, and {self.no_token}")
        return answer.expect(200)

    def post(self, path: str, **options: Any) -> Answer:
        """Send a POST request; for the options see ``request``."""
        return self.request("POST", path, **options)

    def delete(self, path: str, **options: Any) -> Answer:
        """Send a DELETE request; for the options see ``request``."""
        return self.request("DELETE", path, **options)

    def request(
        self,
        method: str,
        path: str,
        *,
        data: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        token: str = "",
        patient: bool = True,
    ) -> Answer:
        """Send one request; ``path`` may be a whole address.

        ``data`` goes as JSON, ``body`` as it is. With ``patient``, a 429 is obeyed: the request is
        sent again when the server said. Raises ``Unreachable``.
        """
        sent = dict(headers or {})
        if data is not None:
            body = json.dumps(data).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        if token:
            sent["Authorization"] = f"Bearer {token}"
        url = path if "://" in path else self.base_url + path
        answer = self._send(method, url, body, sent)
        while patient and answer.status == 429:
            pause = int(answer.headers.get("Retry-After", "1"))
            assert pause <= _LONGEST_WAIT, f"{answer} asks to wait for {pause} s."
            time.sleep(pause)
            answer = self._send(method, url, body, sent)
        return answer

    def wait_for[T](self, what: str, look: Callable[[], T | None]) -> T:
        """Look again and again until ``look`` returns something; return it.

        Fails the check with ``what`` when nothing was there within ``patience`` seconds.
        """
        ends = time.monotonic() + self.patience
        while True:
            found = look()
            if found is not None:
                return found
            assert time.monotonic() < ends, f"{what} did not come within {self.patience:g} s."
            time.sleep(0.2)

    def _send(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        place = urlsplit(url)
        target = url
        if place.hostname == self.host != self.address:
            headers = {"Host": place.netloc, **headers}
            address = f"[{self.address}]" if ":" in self.address else self.address
            port = f":{place.port}" if place.port else ""
            target = place._replace(netloc=f"{address}{port}").geturl()
        try:
            found = self._http.request(method, target, body=body, headers=headers, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{method} {url} got no answer: {error}") from error
        return Answer(f"{method} {url}", found.status, found.headers, found.data)

    def _pool(self) -> urllib3.PoolManager:
        options: dict[str, Any] = {"timeout": TIMEOUT, "retries": False}
        if self.address != self.host:
            options["server_hostname"] = self.host
        if self.insecure:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            options["cert_reqs"] = "CERT_NONE"
        elif self.ca_file:
            options["ca_certs"] = self.ca_file
        return urllib3.PoolManager(**options)
