"""A certificate authority for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import support

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
