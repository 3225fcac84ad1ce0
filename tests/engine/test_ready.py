"""A worker counts as alive when it hears commands, and no cancelled task goes on.

Redis keeps no command for a worker that does not listen at that moment.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import Running, StartCluster, wait_until
from flask_background import FlaskCelery, Future
from sample_app import create_app, mailbox


class Network:
    """What lies between a worker and Redis: it can be cut, and keep back what subscribers hear."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self._port = urlsplit(server.url).port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._is_cut = False
        #: Set while subscribers hear what Redis tells them.
        self.tells = threading.Event()
        self.tells.set()
        #: How often somebody subscribed to what is sent to all.
        self.asked = 0
        self.url = server.url.replace(f":{self._port}", f":{self._listening.getsockname()[1]}")
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and let no new ones through."""
        self._is_cut = True
        for one in list(self._open):
            self._end(one)

    def mend(self) -> None:
        """Let new connections through again."""
        self._is_cut = False

    def close(self) -> None:
        """End all, for good."""
        self._listening.close()
        self.cut()
        self.tells.set()

    def _accept(self) -> None:
        while True:
            try:
                worker, _ = self._listening.accept()
            except OSError:
                return
            if self._is_cut:
                worker.close()
                continue
            redis = socket.create_connection(("127.0.0.1", self._port))
            self._open |= {worker, redis}
            subscribes = threading.Event()
            for source, target in ((worker, redis), (redis, worker)):
                arguments = (source, target, subscribes, target is redis)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(
        self,
        source: socket.socket,
        target: socket.socket,
        subscribes: threading.Event,
        to_redis: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if to_redis and b"PSUBSCRIBE" in data:
                    subscribes.set()
                    self.asked += 1
                if not to_redis and subscribes.is_set():
                    self.tells.wait()
                target.sendall(data)
        self._end(source)
        self._end(target)

    def _end(self, one: socket.socket) -> None:
        self._open.discard(one)
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.fixture
def network(own_redis: EmbeddedRedis) -> Iterator[Network]:
    """The network to the test's own Redis; the test itself reaches it directly."""
    network = Network(own_redis)
    yield network
    network.close()


@pytest.fixture
def service_manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd hears from its services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def said(celery: FlaskCelery) -> dict[str, str]:
    """Return what the workers wrote with their last heartbeats."""
    found: Any = celery.redis.hgetall(celery.keys.workers)
    return dict(found)


def hears(celery: FlaskCelery) -> bool:
    """Whether a worker answers a command that is sent now and waits for nobody."""
    return bool(celery.control.broadcast("ping", reply=True, limit=1, timeout=10, wait=False))


def states(celery: FlaskCelery, futures: list[Future]) -> set[str]:
    """Return the states that the tasks have in Redis; a future knows what it cancelled itself."""
    found = [celery.task_info(future.id) for future in futures]
    return {info.state for info in found if info}


@pytest.mark.skipif(sys.platform == "win32", reason="systemd")
def test_a_worker_is_not_alive_before_redis_confirms_that_it_hears_commands(
    start: StartCluster,
    client: FlaskCelery,
    network: Network,
    service_manager: socket.socket,
    tmp_path: Path,
) -> None:
    alive_file = tmp_path / "alive"
    environ = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "CELERY_ALIVE_FILE": str(alive_file),
    }
    network.tells.clear()

    worker = start({"REDIS_URL": network.url}, "worker", environ=environ)
    worker.wait_for("does not confirm that this process hears")
    wait_until(lambda: network.asked > 1, "the worker to try again")

    assert said(client) == {}
    assert "ready." not in worker.output
    assert not alive_file.exists()
    with pytest.raises(BlockingIOError):
        service_manager.recv(100)

    network.tells.set()
    wait_until(lambda: said(client), "a heartbeat")
    assert hears(client)
    worker.wait_for("ready.")
    wait_until(alive_file.exists, "the cluster to say so")
    assert service_manager.recv(100) == b"READY=1"


def test_after_a_reconnect_a_worker_beats_when_it_hears_commands_again(
    start: StartCluster, client: FlaskCelery, network: Network
) -> None:
    worker = start({"REDIS_URL": network.url}, "worker")
    wait_until(lambda: said(client), "a heartbeat")
    network.cut()
    worker.wait_for("Connection to broker lost")
    before, asked = said(client), network.asked
    network.tells.clear()

    network.mend()
    wait_until(lambda: network.asked > asked, "the worker to connect again")

    assert said(client) == before
    network.tells.set()
    wait_until(lambda: said(client) != before, "a heartbeat")
    assert hears(client)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_command_is_heard_though_the_connection_was_just_lost(
    pool: str, start: StartCluster, client: FlaskCelery
) -> None:
    start({"CELERY_WORKERS": {"main": {"pool": pool}}}, "worker", workers=1)
    assert hears(client)

    for _ in range(100 if pool == "prefork" else 10):
        for kind in ("pubsub", "normal"):
            client.redis.client_kill_filter(_type=kind)
        assert client.control.broadcast("ping", reply=True, limit=1, timeout=10)


def test_every_question_is_answered_though_redis_was_just_restarted(
    tmp_path: Path, start: StartCluster
) -> None:
    server = EmbeddedRedis(tmp_path / "restarted")
    server.start()
    settings = {"REDIS_URL": server.url, "CELERY_WORKERS": ["one", "two"]}
    cluster = start(settings, "cluster", "--no-scheduler", workers=2)
    try:
        with create_app(settings).app_context():
            celery = sample_app.celery
            for _ in range(2):
                server.stop()
                server.start()
                assert len(celery.inspect.ping()) == 2
                assert len(celery.control.enable_events(reply=True) or ()) == 2
    finally:
        cluster.end()
        server.stop()


def test_a_command_does_not_wait_for_workers_that_are_gone(client: FlaskCelery) -> None:
    assert client.inspect.ping() is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs processes for tasks")
def test_every_cancelled_task_ends_though_no_command_arrives(
    start: StartCluster, client: FlaskCelery, network: Network
) -> None:
    many = 10
    settings = {"REDIS_URL": network.url, "CELERY_WORKERS": {"main": {"concurrency": many}}}
    start(settings, "worker")
    wait_until(lambda: len(said(client)) == many, "all heartbeats")

    def begin() -> list[Future]:
        futures = [client.submit(sample_app.sleep, 600) for _ in range(many)]
        wait_until(lambda: states(client, futures) == {"STARTED"}, "the tasks to begin")
        return futures

    for _ in range(2):
        network.tells.clear()
        futures = begin()
        assert all(future.cancel() for future in futures)
        wait_until(lambda: states(client, futures) == {"REVOKED"}, "the tasks to end")  # noqa: B023
        network.tells.set()

    for _ in range(2):
        futures = begin()
        network.cut()
        assert all(future.cancel() for future in futures)
        network.mend()
        wait_until(lambda: states(client, futures) == {"REVOKED"}, "the tasks to end")  # noqa: B023

    assert client.submit(sample_app.add, 1, 2).result(timeout=20) == 3
    wait_until(lambda: not any(one.active for one in client.heartbeats()), "all to be ended")


def test_a_cancel_is_remembered_until_the_task_would_run(client: FlaskCelery) -> None:
    days = 3 * 24 * 3600
    future = client.submit(sample_app.nothing, countdown=days)

    assert future.cancel()

    lifetime: Any = client.redis.ttl(client.keys.cancelled(future.id))
    assert lifetime > days


@pytest.mark.skipif(sys.platform == "win32", reason="needs processes for tasks")
def test_a_worker_goes_on_at_once_after_a_cancelled_task(
    start: StartCluster, client: FlaskCelery
) -> None:
    """Together these took two minutes when each ended child was missed for 5 seconds."""
    start({"CELERY_WORKERS": 1}, "worker", workers=1)
    ended = threading.Event()

    def rounds() -> None:
        with mailbox() as box:
            for number in range(25):
                held = client.submit(sample_app.hold, f"cancelled-{number}")
                box.blpop([f"started:cancelled-{number}"], timeout=20)
                held.cancel()
                client.submit(sample_app.nothing).result(timeout=20)
        ended.set()

    threading.Thread(target=rounds, daemon=True).start()

    assert ended.wait(30)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_solo_worker_that_has_worked_stops_gently(
    start: StartCluster, client: FlaskCelery
) -> None:
    worker: Running = start({"CELERY_WORKERS": {"main": {"pool": "solo"}}}, "worker", workers=1)
    client.submit(sample_app.nothing).result(timeout=20)

    assert worker.stop() == 0

    assert "Warm shutdown" in worker.output
    assert client.heartbeats() == []
