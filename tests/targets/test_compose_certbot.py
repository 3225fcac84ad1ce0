"""certbot in Compose gets a certificate from a real ACME server (pebble), and renews it."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support
from machine import needs
from targets.authority import build_acme_image, write_acme_settings
from targets.compose import PRODUCTION, Stack, unique_slug, wait_until

pytestmark = needs("engine")

DOMAIN = "app.test"

#: The ACME server looks for answers at nginx, by the domain's name.
OVERRIDE = """
services:
  nginx:
    networks:
      edge:
        aliases: [{domain}]
  certbot:
    image: {image}
    environment:
      REQUESTS_CA_BUNDLE: /acme/ca.pem
    volumes:
      - {folder}:/acme:ro
    depends_on: [pebble]
  pebble:
    image: {image}
    command: [pebble, -config, /acme/pebble.json]
    networks: [edge]
    volumes:
      - {folder}:/acme:ro
"""


@pytest.fixture
def image() -> Iterator[str]:
    """Build the image of certbot and the ACME server."""
    tag = f"{unique_slug()}-acme"
    build_acme_image(tag)
    yield tag
    subprocess.run(["docker", "rmi", "--force", tag], check=False, capture_output=True)


@pytest.fixture
def stack(image: str, render: Callable[[support.Answers], Path], tmp_path: Path) -> Iterator[Stack]:
    """Bring a new project up with the profile tls, and an ACME server beside it."""
    folder = tmp_path / "acme"
    folder.mkdir()
    write_acme_settings(folder, "pebble", 8080, 8443)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    override = tmp_path / "override.yaml"
    override.write_text(OVERRIDE.format(image=image, folder=folder, domain=DOMAIN))
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    settings = {
        "DOMAIN_NAME": DOMAIN,
        "ACME_SERVER": "https://pebble:14000/dir",
        "ACME_EMAIL": "operator@app.test",
        "COMPOSE_PROFILES": "tls",
    }
    project = render({"project_slug": unique_slug()})
    with Stack(project, PRODUCTION, settings, [override]) as running:
        yield running


def certificate(stack: Stack) -> str:
    """Return what stands in the certificate that nginx shows for the domain; empty if none."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", stack.tls_port), 10) as plain,
            context.wrap_socket(plain, server_hostname=DOMAIN) as secure,
        ):
            shown = ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")
    except OSError:
        return ""
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-issuer", "-serial", "-ext", "subjectAltName"],
        input=shown.encode(), check=True, capture_output=True,
    )  # fmt: skip
    return done.stdout.decode()


def test_certbot_gets_a_certificate_and_renews_it(stack: Stack) -> None:
    """The first certificate comes by itself; a round later the next one, and nginx shows it."""
    wait_until(lambda: bool(certificate(stack)), f"nginx has a certificate\n{stack.logs()}")
    first = certificate(stack)
    assert "Pebble" in first and DOMAIN in first, first
    stack.compose("restart", "certbot")
    wait_until(lambda: certificate(stack) not in ("", first), "nginx shows the renewed certificate")
    assert "Pebble" in certificate(stack)
