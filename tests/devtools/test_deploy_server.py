"""``flask deploy`` and ssh: the user's own settings hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from devtools.deploy.server import Server
from machine import needs

pytestmark = needs("ssh")


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ("", "accept-new"),
        ("StrictHostKeyChecking yes", "yes"),
        ("StrictHostKeyChecking no", "no"),
        ("Host other\n  StrictHostKeyChecking no", "accept-new"),
        ("Match user ada\n  StrictHostKeyChecking yes", "yes"),
    ],
)
def test_an_unknown_server_is_treated_as_the_user_has_told_ssh(
    tmp_path: Path, settings: str, rule: str
) -> None:
    file = tmp_path / "config"
    file.write_text(f"{settings}\n")
    server = Server.parse("ada@203.0.113.7", tmp_path, str(file))
    assert server.host_key_rule == rule
    assert f"StrictHostKeyChecking={rule}" in server.ssh("true")
