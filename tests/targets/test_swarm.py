"""Three machines in a Docker Swarm: set up, released to, and one of them lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support
from machine import needs
from targets.server import wait_until
from targets.swarm import PATIENCE, Load, Machines, deployed

pytestmark = needs("server")


@pytest.fixture(scope="module")
def machines(
    render: Callable[[support.Answers], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    """Return three machines with a release that the smoke suite has found good on each."""
    with deployed(render, tmp_path_factory.mktemp("swarm")) as it:
        yield it


def test_certbot_renews_the_certificate(machines: Machines) -> None:
    """The authority asks one machine, another one answers, and all show what it gave."""
    (first,) = {machines.certificate(node) for node in machines.nodes}
    for node in machines.nodes:
        # As the timer does: one of them is to do it.
        node.run("systemctl", "start", f"{machines.project.name}-certificate")

    def shown() -> set[str]:
        return {machines.certificate(node) for node in machines.nodes}

    wait_until(lambda: len(shown()) == 1 and first not in shown(), "all show the next", PATIENCE)


def test_nginx_is_led_to_web_again_when_the_one_it_was_led_to_is_gone(machines: Machines) -> None:
    node = machines.nodes[0]
    link = f"/run/{machines.project.name}/web.sock"
    web = ("docker", "exec", machines.container(node, "web"))
    node.run(*web, "ln", "-sfn", "gone.sock", link)
    wait_until(lambda: "gone" not in node.run(*web, "readlink", link), "it is led to web", PATIENCE)
    machines.wait_until_whole()


def test_a_lost_machine_with_the_primary_loses_no_task(
    machines: Machines, report: support.Report
) -> None:
    lost = machines.primary(machines.nodes[0])
    assert lost
    others = [node for node in machines.nodes if node is not lost]
    with Load(machines) as load:
        wait_until(lambda: len(load.accepted) > 20, "tasks are accepted")
        began = time.monotonic()
        lost.docker("kill")
        wait_until(
            lambda: machines.primary(others[0]) in others, "there is another primary", PATIENCE
        )
        changed = time.monotonic()
        wait_until(lambda: load.accepted_after(changed), "tasks are accepted again", PATIENCE)
        lost.docker("start")
        whole = machines.wait_until_whole()
    assert load.lost() == []
    report.add("swarm", load.line("machine with the primary lost", [lost], began, whole))
    report.add("swarm", machines.smoke())
