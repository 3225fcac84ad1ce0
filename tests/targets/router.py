"""What stands before a web dyno: TLS, the headers that Heroku's router sets, and its limits.

https://devcenter.heroku.com/articles/http-routing
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import support

#: Seconds from the whole request to the answer; error H12 after that.
TIMEOUT = 30.0
#: What a client's request id must look like to be kept.
_REQUEST_ID = re.compile(r"[A-Za-z0-9+/=-]{20,200}")


class Router:
    """Listens on a free port, over TLS or without, and hands requests on to ``port``."""

    def __init__(self, folder: Path, port: int, *, tls: bool) -> None:
        self.certificate = folder / "router.pem"
        self.statuses: list[int] = []
        router = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def hand_on(self) -> None:
                router._hand_on(self, port, "https" if tls else "http")

            do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = do_OPTIONS = hand_on

            def log_message(self, *_: object) -> None:
                """Say nothing: the tests say what went wrong."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"{'https' if tls else 'http'}://localhost:{self._server.server_port}"
        self.host = self.url.partition("://")[2]
        if tls:
            make_certificate(folder, "router")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, folder / "router.key")
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Router:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _hand_on(self, request: BaseHTTPRequestHandler, port: int, scheme: str) -> None:
        if request.headers.get("Host") != self.host:
            answer(request, 404, b"No such app")
            return
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        headers = {
            name.lower(): value
            for name, value in request.headers.items()
            if name.lower() not in ("connection", "keep-alive", "transfer-encoding")
        }
        before = headers.get("x-forwarded-for")
        client = str(request.client_address[0])
        headers["x-forwarded-for"] = f"{before}, {client}" if before else client
        headers["x-forwarded-proto"] = scheme
        headers["x-forwarded-port"] = self.host.partition(":")[2]
        headers["x-request-start"] = str(int(time.time() * 1000))
        if not _REQUEST_ID.fullmatch(headers.get("x-request-id", "")):
            headers["x-request-id"] = str(uuid4())
        headers["via"] = "1.1 heroku-router"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        try:
            connection.request(request.command, request.path, body or None, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            answer(request, 503, f"H12 or H13: {error!r}".encode())
            self.statuses.append(503)
            return
        finally:
            connection.close()
        self.statuses.append(response.status)
        request.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                request.send_header(name, value)
        if response.status not in (204, 304):
            length = response.headers.get("Content-Length") if not content else None
            request.send_header("Content-Length", length or str(len(content)))
        request.end_headers()
        request.wfile.write(content)


def answer(request: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
    """Answer in the router's own name."""
    request.send_response_only(status)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def make_certificate(folder: Path, name: str) -> None:
    """Make a certificate that no authority signed: ``name.pem`` and ``name.key``."""
    support.succeed(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "90", "-subj", "/CN=localhost", "-addext",
        "subjectAltName=DNS:localhost", "-keyout", f"{name}.key", "-out", f"{name}.pem",
        cwd=folder,
    )  # fmt: skip
