"""The server of server_story.py, its processes under systemd."""

import json

import pytest

pytest.register_assert_rewrite("targets.server_story")

from targets.authority import Authority  # noqa: E402
from targets.server import Server, nothing_changed  # noqa: E402
from targets.server_story import *  # noqa: E402, F403
from targets.server_story import SLUG  # noqa: E402

DOMAIN = "birds.example.org"


MANAGER = "systemd"
DATABASE = "postgresql"


def shown(server: Server) -> str:
    """Return issuer and serial number of the certificate that nginx shows for the domain."""
    return server.shell(
        f"openssl s_client -connect 127.0.0.1:443 -servername {DOMAIN} </dev/null 2>/dev/null"
        f" | openssl x509 -noout -issuer -serial -checkhost {DOMAIN} || true"
    )


def test_without_a_dns_record_all_is_done_but_for_the_certificate(server: Server) -> None:
    """The site speaks HTTP then, and a release is checked on this server, wherever DNS leads."""
    options = ["--process-manager", server.manager, "--domain", DOMAIN, "--tls", "certbot"]
    output = server.deploy("setup", *options, expect_failure=True)
    assert output.rstrip().endswith(
        f"Error: {server.address} is ready, but the site speaks HTTP: {DOMAIN} has no DNS record "
        f"yet. Let it lead to {server.address} and run the same command again; a release can come "
        "before."
    )
    output = server.deploy("release")
    assert f"Notice: {DOMAIN} has no DNS record yet. The checks go to {server.address}" in output
    assert f"checks passed against http://{DOMAIN}: everything works." in output
    assert "the API token goes over https only" in output


def test_an_authority_that_does_not_answer_is_said_in_two_lines(server: Server) -> None:
    server.shell(f"echo 127.0.0.1 {DOMAIN} >>/etc/hosts")
    options = ["--process-manager", server.manager, "--domain", DOMAIN, "--tls", "certbot"]
    options += ["--acme-server", "https://localhost:1/dir"]
    output = server.deploy("setup", *options, expect_failure=True)
    assert "Connection refused" in output
    assert "Traceback" not in output
    assert "run the same command again" in output.splitlines()[-1]


def test_certbot_gets_a_certificate_and_renews_it(server: Server) -> None:
    """Before certbot the site shows a certificate of its own; pebble is a real ACME server."""
    folder = server.folder / "acme"
    folder.mkdir()
    Authority(folder).issue("localhost")
    settings = {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": "/root/acme/fullchain.pem",
        "privateKey": "/root/acme/privkey.pem",
        "httpPort": 80,
        "tlsPort": 443,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    server.copy(folder, "/root/acme")
    server.shell(
        "apt-get install -qq --yes --no-install-recommends pebble >/dev/null 2>&1;"
        "cp /root/acme/ca.pem /usr/local/share/ca-certificates/test.crt;"
        "update-ca-certificates >/dev/null 2>&1;"
        "systemd-run -q --unit acme -E PEBBLE_VA_NOSLEEP=1 pebble -config /root/acme/pebble.json"
    )
    assert "Pebble" not in shown(server)
    options = ["--domain", DOMAIN, "--tls", "certbot"]
    options += ["--acme-server", "https://localhost:14000/dir"]

    server.deploy("setup", "--process-manager", server.manager, *options)
    first = shown(server)
    assert "Pebble" in first and "does match" in first

    server.deploy("setup", "--process-manager", server.manager, *options)
    assert nothing_changed(server.output), server.output

    for name in ("-servername other.example.org", f"-servername {SLUG}.invalid", "-noservername"):
        said = server.shell(
            f"openssl s_client -connect 127.0.0.1:443 {name} </dev/null 2>&1 || true"
        )
        assert "no peer certificate available" in said

    server.shell("certbot renew --force-renewal --no-random-sleep-on-renew --quiet")
    assert "Pebble" in shown(server)
    assert shown(server) != first
