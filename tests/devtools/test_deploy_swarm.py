"""``flask deploy swarm``: what can be said without machines."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from devtools.deploy.command import deploy
from devtools.deploy.server import Server
from devtools.deploy.swarm import cluster, command
from machine import needs

HOSTS = ("root@192.0.2.1", "root@192.0.2.2", "root@192.0.2.3")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (HOSTS[:2], "three machines or more"),
        ((HOSTS[0],) * 3, "three machines or more"),
        ((*HOSTS, "--certificate", __file__), "belong together"),
        ((*HOSTS, "--domain", "Not a name"), "domain is"),
        (HOSTS, "Nobody gets a certificate for birds.example.com"),
    ],
)
def test_a_setup_that_cannot_work_is_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploy/vps").mkdir(parents=True)
    (tmp_path / "deploy/vps/settings.toml").write_text(
        'domain = "birds.example.com"\ntls = "certbot"'
    )
    monkeypatch.setattr(command, "PROJECT", tmp_path)
    done = CliRunner().invoke(deploy, ["swarm", "setup", *arguments])
    assert done.exit_code == 2
    assert said in done.output


@needs("ssh")
@pytest.mark.parametrize(
    ("host", "network", "address"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "10.0.0.0/24", "10.0.0.5"),
        ("192.0.2.9", None, ""),
        ("192.0.2.1", "10.9.0.0/24", ""),
    ],
)
def test_the_machines_reach_each_other_at_an_address_of_their_own(
    host: str, network: str | None, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "read", lambda *_: "192.0.2.1 10.0.0.5 172.17.0.1 2001:db8::1")
    server = Server.parse(host, tmp_path)
    if address:
        assert cluster.own_address(server, network) == address
    else:
        with pytest.raises(click.ClickException, match="--network"):
            cluster.own_address(server, network)
