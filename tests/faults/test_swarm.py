"""Three machines in a Docker Swarm under load, while each thing breaks that may break there.

The short one, a lost machine, is in tests/targets/test_swarm.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support
from machine import needs
from targets.server import wait_until
from targets.swarm import PATIENCE, TICK, Load, Machines, Node, deployed

pytestmark = [pytest.mark.long, needs("server")]

#: Seconds that a machine is cut off or stands still
AWAY = 60
#: So many ticks of the schedule may be late for one fault
LATE_TICKS = 1

Fault = Callable[[Machines, Node], None]


@pytest.fixture(scope="module")
def machines(
    render: Callable[[support.Answers], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machines]:
    """Return three machines with a release."""
    with deployed(render, tmp_path_factory.mktemp("swarm"), "--no-smoke") as it:
        yield it


def lose(machines: Machines, node: Node) -> None:
    """Switch a machine off, and on again when another has the primary."""
    node.docker("stop")
    wait_for_another_primary(machines, node)
    node.docker("start")


def cut(machines: Machines, node: Node) -> None:
    """Let nothing in or out of a machine for a while."""
    rules = ("raw {} PREROUTING -i eth0 -j DROP", "mangle {} POSTROUTING -o eth0 -j DROP")
    for rule in rules:
        node.run("iptables", "-t", *rule.format("-I").split())
    wait_for_another_primary(machines, node)
    time.sleep(AWAY)  # the fault itself
    for rule in rules:
        node.run("iptables", "-t", *rule.format("-D").split())


def freeze(machines: Machines, node: Node) -> None:
    """Let a machine stand still for a while."""
    # All its processes; docker pause leaves out the containers in a machine that is one itself.
    node.run("sh", "-c", "kill -STOP -1")
    wait_for_another_primary(machines, node)
    time.sleep(AWAY)  # the fault itself
    node.run("sh", "-c", "kill -CONT -1")


def kill(service: str) -> Fault:
    """Return what kills a service of a machine."""

    def do(machines: Machines, node: Node) -> None:
        node.run("docker", "kill", machines.container(node, service))

    return do


def restart_all(machines: Machines, node: Node) -> None:
    """Restart all machines at the same time."""
    names = [one.name for one in machines.nodes]
    support.succeed("docker", "restart", *names, cwd=machines.folder)


def release(machines: Machines, node: Node) -> None:
    """Release while a machine is lost; when it is back, it gets what it lacks."""
    node.docker("stop")
    (other, *_) = (one for one in machines.nodes if one is not node)
    wait_for_state(node, "Down", other)
    support.git("commit", "--quiet", "--allow-empty", "--message", "Another", cwd=machines.project)
    assert f"{node.address} does not answer, and is left out" in machines.flask(
        "release", "--no-smoke", f"root@{other.address}"
    )
    node.docker("start")
    wait_for_state(node, "Ready", other)
    said = machines.flask("status", f"root@{other.address}", code=1)
    assert f"{node.address} lacks " in said
    machines.flask("release", "--no-smoke", f"root@{other.address}")


def wait_for_state(node: Node, state: str, ask: Node) -> None:
    """Wait until another machine says of one that it is ``Ready``, or ``Down``."""
    form = "{{.Hostname}}:{{.Status}}"
    wait_until(
        lambda: f"{node.name}:{state}" in ask.run("docker", "node", "ls", "--format", form),
        f"the machine is {state}",
        PATIENCE,
    )


def wait_for_another_primary(machines: Machines, node: Node) -> None:
    """Wait until the others name one of them as the machine with the primary."""
    others = [one for one in machines.nodes if one is not node]
    wait_until(lambda: machines.primary(others[0]) in others, "another primary", PATIENCE)


def with_primary(machines: Machines) -> Node:
    """Return the machine with Redis' primary."""
    found = machines.primary(machines.nodes[0])
    assert found
    return found


def with_scheduler(machines: Machines) -> Node:
    """Return the machine whose scheduler leads."""
    return machines.scheduler()


def with_replica(machines: Machines) -> Node:
    """Return a machine with a replica."""
    primary = with_primary(machines)
    return next(node for node in machines.nodes if node is not primary)


def with_leader(machines: Machines) -> Node:
    """Return the machine that leads the Swarm."""
    return machines.leader(machines.nodes[0])


FAULTS: dict[str, tuple[Fault, Callable[[Machines], Node], bool]] = {
    "machine with the primary lost": (lose, with_primary, True),
    "machine with a replica lost": (lose, with_replica, True),
    "machine with the leader lost": (lose, with_leader, True),
    "machine with the scheduler lost": (lose, with_scheduler, True),
    "primary's machine cut off": (cut, with_primary, True),
    "replica's machine cut off": (cut, with_replica, True),
    "primary's machine stands still": (freeze, with_primary, True),
    "replica's machine stands still": (freeze, with_replica, True),
    "primary killed": (kill("redis"), with_primary, False),
    "sentinel killed": (kill("sentinel"), with_primary, False),
    "all restart together": (restart_all, with_primary, True),
    "release while a machine is lost": (release, with_replica, True),
}


@pytest.mark.parametrize("name", FAULTS)
def test_no_accepted_task_is_lost(machines: Machines, report: support.Report, name: str) -> None:
    fault, choose, is_lost = FAULTS[name]
    machines.wait_until_whole()
    node = choose(machines)
    hurt = [node] if is_lost else []
    ticks = len(machines.ticks())
    with Load(machines) as load:
        wait_until(lambda: len(load.accepted) > 20, "tasks are accepted")
        began = time.monotonic()
        fault(machines, node)
        over = time.monotonic()
        whole = machines.wait_until_whole()
        wait_until(lambda: load.accepted_after(over), "tasks are accepted again", PATIENCE)
    lost = load.lost()
    hurt = machines.nodes if fault is restart_all else hurt
    ran = machines.ticks(ticks)
    report.add("swarm", load.line(name, hurt, began, whole))
    report.add("swarm", f"{name}: {ran.line()}")
    assert lost == []
    assert ran.shortest > TICK / 2, f"A tick came twice: {ran.noted}"
    assert len(ran.late) <= LATE_TICKS, ran.noted
    machines.smoke()
