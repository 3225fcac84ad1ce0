"""Certificate authorities for tests: one of our own, and pebble, which speaks ACME."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import support

#: Debian's certbot in the place of the image certbot/certbot, and the ACME server.
_DOCKERFILE = """
FROM python:3.13-slim-trixie
RUN apt-get update -qq && apt-get install -qq --yes --no-install-recommends certbot pebble
"""

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass
class Authority:
    """An authority that lives in ``folder``, and the certificate that it issued last."""

    folder: Path

    def __post_init__(self) -> None:
        """Make the authority's own certificate."""
        support.succeed(
            "openssl", "req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "90", "-subj", "/CN=Authority of a test",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            cwd=self.folder,
        )  # fmt: skip

    @property
    def certificate(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.pem"

    @property
    def chain(self) -> Path:
        """The certificate that was issued last."""
        return self.folder / "fullchain.pem"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.folder / "privkey.pem"

    def issue(self, host: str) -> None:
        """Issue a certificate for a host name."""
        (self.folder / "extensions").write_text(
            f"subjectAltName=DNS:{host}\nauthorityKeyIdentifier=keyid\n"
        )
        support.succeed(
            "openssl", "req", *_KEY, "-keyout", self.key, "-out", "request.pem",
            "-subj", f"/CN={host}",
            cwd=self.folder,
        )  # fmt: skip
        support.succeed(
            "openssl", "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "60", "-extfile", "extensions", "-out", self.chain,
            cwd=self.folder,
        )  # fmt: skip


def build_acme_image(tag: str) -> None:
    """Build the image of certbot and the ACME server."""
    subprocess.run(["docker", "build", "--quiet", "--tag", tag, "-"], input=_DOCKERFILE.encode(),
                   check=True, capture_output=True)  # fmt: skip


def write_acme_settings(folder: Path, host: str, http_port: int, tls_port: int) -> None:
    """Write what pebble needs into a folder that it finds at ``/acme``.

    Its certificates hold for an hour: they are due for renewal as soon as they are made.
    """
    Authority(folder).issue(host)
    settings = {
        "listenAddress": "0.0.0.0:14000",
        "managementListenAddress": "0.0.0.0:15000",
        "certificate": "/acme/fullchain.pem",
        "privateKey": "/acme/privkey.pem",
        "httpPort": http_port,
        "tlsPort": tls_port,
        "certificateValidityPeriod": 3600,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
