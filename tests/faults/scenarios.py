"""What breaks, and how: each scenario is a function that gets a running stack under load."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults.load import Load
from faults.stack import Process, Stack, wait_until

KILL, STOP, CONT, TERM = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM
#: Seconds of undisturbed work before something breaks.
BEFORE = 3.0
#: A password that Redis gets while all are at work.
PASSWORD = "only-for-a-while"


@dataclass(frozen=True)
class Scenario:
    """``load`` are the seconds for which requests go on, at least until the fault is over.

    ``patience``: seconds after which what has not ended counts as lost; a promise is 60 s for a
    lost worker, plus the time that the work itself takes.
    """

    name: str
    fault: Callable[[Stack, Load], None]
    clusters: int = 1
    cable: bool = False
    load: float = 20.0
    rate: float = 15.0
    patience: float = 120.0
    environ: dict[str, str] = field(default_factory=dict)
    #: Whether plain Celery is put through it as well, and for how long.
    plain: float = 0.0
    dead: int = 0
    #: Whether it takes long, so that it is left out of the tests that are run for each change.
    long: bool = False
    #: Whether the disk of Redis is a small one of its own; only root can make it.
    small_disk: bool = False
    #: Whether Redis is on several servers, with sentinels.
    several: bool = False
    #: Whether the workers have a clock that can be set.
    own_clock: bool = False


def kill_places(stack: Stack, load: Load) -> None:
    """Kill what runs the tasks, three times."""
    for _ in range(3):
        cluster = stack.clusters[0]
        cluster.signal(KILL, [pid for pid in cluster.tree if pid != cluster.pid])
        time.sleep(2)


def kill_worker(stack: Stack, _: Load) -> None:
    """Kill the worker with all that it started; the server's supervisor starts it again."""
    cluster = stack.clusters[0]
    cluster.signal(KILL, cluster.tree)
    time.sleep(2)
    stack.start_cluster()


def hold_the_lock(stack: Stack, load: Load) -> None:
    """Run a task that lets no other thread of its process run, for longer than any lease."""
    load.post("locked", ref="locked", seconds=60)
    time.sleep(62)


def kill_at_random(stack: Stack, load: Load) -> None:
    """Kill a process of the workers at any moment, again and again, while they do 1,000 tasks."""
    dice = random.Random(7)  # noqa: S311  (the same in each run)
    load.post(ref="many1000x0", count=1000)
    cluster = stack.clusters[0]

    def ended() -> int:
        return _count(stack, "end many1000x0-")

    for _ in range(15):
        enough = min(ended() + 30, 990)
        wait_until(lambda: ended() >= enough, 60, "some tasks to end")  # noqa: B023
        time.sleep(dice.uniform(0, 0.05))
        places = wait_until(lambda: cluster.tree[1:], 60, "a process to kill")
        cluster.signal(KILL, [dice.choice(places)])


def kill_in_each_state(stack: Stack, load: Load) -> None:
    """Kill what runs a task in each state of the task; one whose result is stored runs once."""
    for state in ("received", "begun", "running", "stored", "returned"):
        load.post("fatal", ref=f"fatal-{state}")
    wait_until(lambda: _count(stack, "kill fatal-") == 5, 60, "a kill in each state")
    wait_until(lambda: _count(stack, "end fatal-") >= 5, 60, "the tasks to end")
    for state, runs in {"begun": 1, "running": 2, "stored": 1, "returned": 1}.items():
        assert _count(stack, f"start fatal-{state} ") == runs, stack.ledger.read_text()


def _count(stack: Stack, event: str) -> int:
    return stack.ledger.read_text().count(event)


def kill_cluster(stack: Stack, _: Load) -> None:
    """Kill one of two machines for good."""
    stack.clusters[0].signal(KILL, stack.clusters[0].tree)


def stop_cluster(stack: Stack, load: Load) -> None:
    """Stop gracefully while short and long tasks run, as a platform does; start anew."""
    load.post(ref="short", seconds=5)
    load.post(ref="long", seconds=40)
    time.sleep(1)
    cluster = stack.clusters[0]
    cluster.signal(TERM)
    if cluster.wait(35) is None:
        cluster.signal(KILL, cluster.tree)
        assert stack.kind == "plain", "The cluster did not stop within 35 s."
    stack.start_cluster()


def freeze_cluster(stack: Stack, _: Load) -> None:
    """Let one of two machines stand still for 90 seconds."""
    tree = stack.clusters[0].tree
    stack.clusters[0].signal(STOP, tree)
    time.sleep(90)
    stack.clusters[0].signal(CONT, tree)


def deafen(stack: Stack, _: Load) -> None:
    """Let the only worker live, but take no tasks any more; its cluster gets another one."""
    workers = stack.clusters[0].children
    stack.clusters[0].signal(STOP, workers)
    says(stack, "No worker has given a sign of life")
    assert stack.clusters[0].children == workers, "It was replaced before anybody was told."
    wait_until(lambda: stack.readiness()[0] == 200, 60, "another worker")


def says(stack: Stack, reason: str) -> None:
    """Wait until /readyz gives this reason, for as long as the promise says."""
    wait_until(lambda: reason in stack.readiness()[1], 35, f"/readyz to say {reason!r}")


def restart_redis(stack: Stack, _: Load) -> None:
    """Kill Redis; it is back after three seconds with what its file has."""
    assert stack.redis
    stack.redis.end()
    if stack.kind == "ours":
        says(stack, "cannot be reached")
    time.sleep(3)
    stack.start_redis()


def load_slowly(stack: Stack, load: Load) -> None:
    """Kill Redis; when it is back it needs some seconds to load its file."""
    assert stack.redis
    many = "for i = 1, 60000 do redis.call('SET', 'filler:' .. i, i) end"
    stack.redis_says("EVAL", many, "0")
    stack.redis.end()
    stack.start_redis("--key-load-delay", "100")  # microseconds for each command in the file
    says(stack, "is loading its data")
    refused = load.post(ref="refused", seconds=0)
    assert refused.status == 503, refused


def change_password(stack: Stack, load: Load) -> None:
    """Let Redis refuse all who do not know a new password, for 20 seconds."""
    stack.redis_says("CONFIG", "SET", "requirepass", PASSWORD)
    stack.redis_says("CLIENT", "KILL", "TYPE", "normal", password=PASSWORD)
    says(stack, "REDIS_URL has none")
    time.sleep(20)
    refused = load.post(ref="refused", seconds=0)
    assert refused.status == 503, refused
    stack.redis_says("CONFIG", "SET", "requirepass", "", password=PASSWORD)


def set_clocks(stack: Stack, _: Load) -> None:
    """Set the clock of the workers an hour ahead, and then an hour back."""
    wait_until(lambda: _ticks(stack), 20, "the first tick")
    for offset in (3600, -3600):
        stack.set_clock(offset)
        _wait_for_ticks(stack, len(_ticks(stack)), 30, "ticks by the new clock")


def freeze_redis(stack: Stack, _: Load) -> None:
    """Let Redis stand still for 30 seconds."""
    assert stack.redis
    stack.redis.signal(STOP)
    time.sleep(30)
    stack.redis.signal(CONT)


def kill_primary(stack: Stack, _: Load) -> None:
    """Kill a sentinel, and then the primary of three servers; both are back after a while."""
    servers = stack.servers
    assert servers
    primary, sentinel = servers.primary, servers.sentinels[0]
    sentinel.kill()
    primary.kill()
    servers.wait_for_another(primary)
    time.sleep(10)
    primary.start()
    sentinel.start()


def freeze_primary(stack: Stack, _: Load) -> None:
    """Let the primary of three servers stand still for 20 seconds; it is a replica then."""
    assert stack.servers
    primary = stack.servers.primary
    primary.signal(STOP)
    time.sleep(20)
    primary.signal(CONT)
    stack.servers.wait_for_replicas()


def cut_network(stack: Stack, _: Load) -> None:
    """Cut the cable between the workers and Redis for 60 seconds."""
    _cut(stack, 60)


def cut_for_long(stack: Stack, _: Load) -> None:
    """Cut it for five minutes."""
    _cut(stack, 300)


def _cut(stack: Stack, seconds: float) -> None:
    assert stack.cable
    stack.cable.cut()
    time.sleep(seconds)
    stack.cable.mend()


def fill_memory(stack: Stack, load: Load) -> None:
    """Let Redis have no memory left for 15 seconds; then it has."""
    stack.redis_says("CONFIG", "SET", "maxmemory", "1mb")
    time.sleep(15)
    if stack.kind == "ours":
        refused = load.post(ref="refused", seconds=0)
        assert refused.status == 503, refused
        assert "full" in refused.text, refused.text
    stack.redis_says("CONFIG", "SET", "maxmemory", "0")


def fill_disk(stack: Stack, load: Load) -> None:
    """Let the disk of Redis be full for 10 seconds."""
    ballast = stack.folder / "data" / "ballast"
    disk = os.statvfs(stack.folder / "data")
    with ballast.open("wb") as file:
        for _ in range(disk.f_bavail):
            try:
                file.write(bytes(disk.f_bsize))
                file.flush()
            except OSError:
                break
    time.sleep(10)
    ballast.unlink()


def poison(stack: Stack, load: Load) -> None:
    """Send three tasks among the others that end whatever runs them."""
    for number in range(3):
        load.post("poison", ref=f"poison-{number}")
        time.sleep(1)


def deploy(stack: Stack, load: Load) -> None:
    """Deploy a new version, web first: its new tasks are queued while old workers run."""
    stack.start_web(FAULT_VERSION="2")
    for _ in range(20):
        load.post("added", seconds=0.1)
    time.sleep(2)
    old = stack.clusters[0]
    old.signal(TERM)
    assert old.wait(35) == 0
    stack.start_cluster(FAULT_VERSION="2")


def wait_long(stack: Stack, load: Load) -> None:
    """Kill a machine that holds tasks for later; run a task longer than any lease meanwhile."""
    load.post(ref="beyond", seconds=55)
    for _ in range(20):
        load.post(seconds=0, countdown=50)
    time.sleep(3)
    victim = 0 if "beyond" not in _running(stack.clusters[0], stack.ledger) else 1
    stack.clusters[victim].signal(KILL, stack.clusters[victim].tree)


def _running(cluster: Process, ledger: Path) -> str:
    """Return the ledger's lines of a cluster's processes."""
    lines = ledger.read_text().splitlines()
    return "\n".join(line for line in lines if int(line.split()[2]) in cluster.tree)


def ten_thousand(stack: Stack, load: Load) -> None:
    """Send ten thousand tasks at once to a worker with one processor."""
    for number in range(20):
        load.post(ref=f"many500x{number}", count=500)


def kill_scheduler(stack: Stack, _: Load) -> None:
    """Kill the one of two schedulers that is at work; the other one takes over."""
    wait_until(lambda: _ticks(stack), 20, "the first tick")
    before = len(_ticks(stack))
    stack.clusters[0].signal(KILL, stack.clusters[0].tree)
    _wait_for_ticks(stack, before, 60, "ticks of the other scheduler")


def _wait_for_ticks(stack: Stack, before: int, seconds: float, what: str) -> None:
    wait_until(lambda: len(_ticks(stack)) > before + 2, seconds, what)


def _ticks(stack: Stack) -> list[str]:
    lines = stack.ledger.read_text().splitlines() if stack.ledger.exists() else []
    return [line for line in lines if line.startswith("end tick ")]


#: The longest first, so that all of them end at about the same time.
SCENARIOS = [
    Scenario("network cut for 5 minutes", cut_for_long, cable=True, load=305, rate=2, long=True),
    Scenario(
        "freeze 1 of 2 machines for 90 s", freeze_cluster, clusters=2, load=95, rate=6, long=True
    ),
    Scenario("network cut for 60 s", cut_network, cable=True, load=65, rate=8, plain=90, long=True),
    Scenario("a worker lives but is deaf", deafen, load=60, rate=6, long=True),
    Scenario("tasks for later, long tasks", wait_long, clusters=2, long=True),
    Scenario("Redis frozen for 30 s", freeze_redis, load=45, rate=12, plain=60, long=True),
    Scenario("SIGTERM, short and long tasks", stop_cluster, load=30, rate=12, plain=60, long=True),
    Scenario("kill -9 1 of 2 machines", kill_cluster, clusters=2, plain=60, long=True),
    Scenario("a task holds the interpreter's lock 60 s", hold_the_lock, load=65, rate=6, long=True),
    Scenario(
        "1,000 tasks with random kills",
        kill_at_random,
        # Chance may hit the same task five times, which makes a dead letter of it.
        environ={"FAULT_DELIVERIES": "20"},
        long=True,
    ),
    Scenario("a place is killed in each state", kill_in_each_state, long=True),
    Scenario("kill -9 worker", kill_worker, plain=60),
    Scenario("kill -9 what runs the tasks, 3 times", kill_places, plain=60),
    Scenario("kill -9 Redis and restart", restart_redis, load=25, plain=60),
    Scenario("kill -9 Redis, slow to load", load_slowly, load=25, long=True),
    Scenario("Redis wants a password for 20 s", change_password, load=40),
    Scenario("memory of Redis full for 15 s", fill_memory, load=35, plain=60),
    Scenario("kill -9 the primary of 3 Redis", kill_primary, several=True, load=30),
    Scenario("primary frozen for 20 s", freeze_primary, several=True, load=40, long=True),
    Scenario("disk of Redis full for 10 s", fill_disk, load=30, small_disk=True),
    Scenario("clock set +1 h, -1 h", set_clocks, own_clock=True, environ={"FAULT_TICKS": "1"}),
    Scenario("poison tasks", poison, dead=3),
    Scenario("deploy, new tasks queued", deploy, environ={"FAULT_VERSION": "1"}),
    Scenario(
        "kill -9 the scheduler",
        kill_scheduler,
        clusters=2,
        environ={"FAULT_TICKS": "1"},
        long=True,
    ),
    Scenario(
        "10,000 tasks at once, 1 CPU",
        ten_thousand,
        load=6,
        patience=180,
        environ={"FAULT_CPU": "0"},
        long=True,
    ),
]
