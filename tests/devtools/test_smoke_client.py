"""The smoke suite speaks to the server that it is told, and tells nobody on the way the token."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from smoke.client import Client, Unreachable
from targets.authority import Authority

#: Nobody has it: https://www.rfc-editor.org/rfc/rfc6761#section-6.4
DOMAIN = "birds.invalid"


@dataclass
class Site:
    """A site on this machine that notes what it heard."""

    port: int
    ca: str
    hosts: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)


@pytest.fixture(params=["http", "https"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Answer as `birds.invalid`, a name that DNS does not know."""
    authority = Authority(tmp_path)
    authority.issue(DOMAIN)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.hosts.append(self.headers["Host"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heard = Site(server.server_port, str(authority.certificate))
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.chain, authority.key)
        context.sni_callback = lambda _socket, name, _context: heard.names.append(name)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield heard
    server.shutdown()
    server.server_close()


def test_it_speaks_to_the_address_and_names_the_domain(
    site: Site, request: pytest.FixtureRequest
) -> None:
    scheme = "https" if "https" in request.node.name else "http"
    url = f"{scheme}://{DOMAIN}:{site.port}"
    with pytest.raises(Unreachable):
        Client(url, ca_file=site.ca).get("/")
    client = Client(url, ca_file=site.ca, connect="127.0.0.1")
    client.get("/").expect(200)
    client.get(f"{url}/some").expect(200)
    client.get("/", headers={"Host": "other.invalid"}).expect(200)
    assert site.hosts == [f"{DOMAIN}:{site.port}"] * 2 + ["other.invalid"]
    assert set(site.names) == ({DOMAIN} if scheme == "https" else set())


@pytest.mark.parametrize("site", ["https"], indirect=True)
def test_the_certificate_of_another_name_does_not_count(site: Site) -> None:
    client = Client(f"https://other.invalid:{site.port}", ca_file=site.ca, connect="127.0.0.1")
    with pytest.raises(Unreachable, match=r"(?i)hostname mismatch"):
        client.get("/")


@pytest.mark.parametrize(
    ("url", "connect", "sent"),
    [
        ("https://birds.example.org", None, True),
        ("https://birds.example.org", "203.0.113.7", True),
        ("http://127.0.0.1:8000", None, True),
        ("http://localhost:8000", None, True),
        ("http://[::1]:8000", None, True),
        ("http://birds.example.org", "127.0.0.1", True),
        ("http://birds.example.org", None, False),
        ("http://203.0.113.7", None, False),
        ("http://localhost", "203.0.113.7", False),
        ("http://127.0.0.1.example.org", None, False),
        ("http://localhost@203.0.113.7", None, False),
    ],
)
def test_the_token_travels_over_tls_or_within_the_machine(
    url: str, connect: str | None, sent: bool
) -> None:
    assert Client(url, "secret", connect=connect).token == ("secret" if sent else "")
