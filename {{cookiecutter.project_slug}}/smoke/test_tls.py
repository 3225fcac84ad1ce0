"""What holds where the deployment is reached over HTTPS."""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from .client import Client, Unreachable

pytestmark = pytest.mark.log("nginx")

#: The days for which the certificate must be good; it is renewed when 30 are left.
DAYS_LEFT = 14


@pytest.fixture(autouse=True)
def tls(client: Client) -> None:
    """Leave these checks out without TLS."""
    if not client.uses_tls:
        pytest.skip("the deployment was not tested over HTTPS")


def test_browsers_are_told_to_stay_with_https(client: Client) -> None:
    """Strict-Transport-Security is set for half a year or more."""
    value = client.get("/").headers.get("Strict-Transport-Security", "")
    seconds = value.partition("max-age=")[2].partition(";")[0].strip()
    assert seconds.isdigit() and int(seconds) >= 180 * 86400, f"It is {value!r}."


def test_the_connection_is_modern(client: Client) -> None:
    """The certificate is good for weeks, and TLS is of version 1.2 or newer."""
    if client.insecure:
        pytest.skip("--insecure was given, so the certificate was not checked")
    _, _, port = client.base_url.removeprefix("https://").partition("/")[0].partition(":")
    context = ssl.create_default_context(cafile=client.ca_file)
    with (
        socket.create_connection((client.address, int(port or 443)), 10) as plain,
        context.wrap_socket(plain, server_hostname=client.host) as secure,
    ):
        certificate = secure.getpeercert() or {}
        version = secure.version()
    assert version in ("TLSv1.2", "TLSv1.3"), f"The connection is {version}."
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = (ends - time.time()) / 86400
    assert days > DAYS_LEFT, f"The certificate ends in {days:.0f} days: it is not renewed."


def test_plain_http_leads_to_https(client: Client) -> None:
    """An http:// address is redirected to https://."""
    if client.base_url != f"https://{client.host}":
        pytest.skip("the deployment has a port of its own, so its http:// address is not known")
    answer = client.get(f"http://{client.host}/some/page?a=b")
    assert answer.status in (301, 308), f"{answer} should be a redirect."
    target = answer.headers.get("Location")
    assert target == f"https://{client.host}/some/page?a=b", f"{answer} leads to {target}."


def test_other_host_names_are_refused(client: Client) -> None:
    """A request for another host name does not reach the application."""
    try:
        answer = client.get("/healthz", headers={"Host": "other-host.invalid"})
    except Unreachable:
        return
    assert answer.status >= 400, f"{answer} for another host should be refused."
