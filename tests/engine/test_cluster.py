"""`flask celery cluster`: it starts all, restarts what dies, and stops gracefully."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import Running, StartCluster, children, exists, flask_celery, wait_until
from sample_app import celery, create_app, mailbox

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

#: Seconds that running tasks have: some for the test to say that one may end, few to wait for.
SOFT = 5


def settings(server: EmbeddedRedis, **more: object) -> dict[str, object]:
    return {"REDIS_URL": server.url, "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": SOFT, **more}


def stop_by_signal(cluster: Running, number: int) -> None:
    cluster.signal(number)


def stop_all_at_once(cluster: Running, number: int) -> None:
    """Signal every process, as some platforms do."""
    everybody = [cluster.pid]
    for pid in everybody:
        everybody += children(pid)
    for pid in everybody:
        os.kill(pid, number)


@pytest.mark.parametrize(
    ("stop", "number", "how"),
    [
        (stop_by_signal, signal.SIGTERM, []),
        (stop_by_signal, signal.SIGINT, []),
        (stop_all_at_once, signal.SIGTERM, []),
        (stop_by_signal, signal.SIGTERM, ["--spawn"]),  # as on Windows, which cannot fork
    ],
)
def test_a_stop_lets_short_tasks_end_and_puts_long_ones_back(
    start: StartCluster,
    own_redis: EmbeddedRedis,
    stop: Callable[[Running, int], None],
    number: int,
    how: list[str],
) -> None:
    config = settings(own_redis, CELERY_WORKERS=2)
    cluster = start(config, "cluster", "--no-scheduler", *how, workers=2)
    with create_app(config).app_context(), mailbox() as box:
        short = celery.submit(sample_app.hold, "short")
        long = celery.submit(sample_app.hold, "long")
        for name in ("short", "long"):
            assert box.blpop([f"started:{name}"], timeout=20)
        everybody = [pid for child in children(cluster.pid) for pid in [child, *children(child)]]

        stop(cluster, number)
        cluster.wait_for("Warm shutdown", times=2)
        box.rpush("release:short", "go")

        assert cluster.wait() == 0
        assert short.result(timeout=5) == "short released"
        assert box.exists("ended:long") == 0
        assert (long.state, long.running()) == ("PENDING", False)
        assert not any(exists(pid) for pid in everybody)
        assert celery.heartbeats() == []

        start(config, "cluster", "--no-scheduler", workers=2)
        assert box.blpop(["started:long"], timeout=20)
        box.rpush("release:long", "go")
        assert long.result(timeout=20) == "long released"


def test_a_task_that_had_just_begun_at_the_stop_is_not_done_twice(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    config = settings(own_redis)
    worker = start(config | {"STOP_AT_TASK": "sample_app.forgetful"}, "worker", workers=1)
    with create_app(config).app_context(), mailbox() as box:
        assert celery.submit(sample_app.add, 1, 2).result(timeout=20) == 3
        celery.submit(sample_app.forgetful, "begun")

        assert worker.wait() == 0
        assert box.llen("ran:begun") == 1
        assert celery.queue_lengths()["default"] == 0


def test_a_schedule_that_is_always_due_does_not_keep_it_from_working_and_stopping(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    cluster = start(settings(own_redis, ALWAYS_DUE=True), "cluster", workers=1)
    cluster.wait_for("Sending the due task always", times=10)

    cluster.signal(signal.SIGTERM)

    assert cluster.wait() == 0


def test_lines_begin_with_the_name_of_their_process(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    cluster = start(settings(own_redis, CELERY_WORKERS=["mail", "reports"]), "cluster", workers=2)

    for name in ("mail", "reports"):
        assert f" {name} celery.apps.worker: {name}@" in cluster.wait_for(
            f"{name} celery.apps.work"
        )
    assert " cluster " in cluster.wait_for("This scheduler leads")


def test_a_worker_that_is_killed_starts_again(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    config = settings(own_redis)
    cluster = start(config, "cluster", workers=1)
    with create_app(config).app_context():
        before = celery.heartbeats()[0].pid

        os.kill(before, signal.SIGKILL)

        cluster.wait_for("worker ended with exit code -9; ")
        wait_until(lambda: celery.heartbeats()[0].pid != before, "another worker")
        assert celery.submit(sample_app.add, 1, 2).result(timeout=20) == 3
    assert cluster.stop() == 0


def test_a_task_whose_child_is_killed_runs_again(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    config = settings(own_redis)
    start(config, "cluster", "--no-scheduler", workers=1)
    with create_app(config).app_context(), mailbox() as box:
        future = celery.submit(sample_app.hold, "again")
        os.kill(int(popped(box, "started:again")), signal.SIGKILL)

        assert popped(box, "started:again")
        box.rpush("release:again", "go")

        assert future.result(timeout=20) == "again released"


def popped(box: redis.Redis, key: str) -> str:
    found = box.blpop([key], timeout=30)
    assert found, f"Nothing came in {key}."
    return str(found[1])


def test_some_workers_may_be_chosen(start: StartCluster, own_redis: EmbeddedRedis) -> None:
    config = settings(own_redis, CELERY_WORKERS=["a", "b", "c"])
    cluster = start(config, "cluster", "--workers", "a, c", "--no-scheduler", workers=2)

    with create_app(config).app_context():
        assert {beat.name[:2] for beat in celery.heartbeats()} == {"a@", "c@"}
    assert "This scheduler leads" not in cluster.output


@pytest.mark.parametrize("how", [[], ["--spawn"]])
def test_workers_end_when_their_parent_is_killed(own_redis: EmbeddedRedis, how: list[str]) -> None:
    config = settings(own_redis, CELERY_WORKERS=2)
    # A shell between guard and cluster: the guard would end what is left.
    command = ["sh", "-c", '"$@"; exec sleep 60', "sh", *flask_celery("cluster", *how)]
    cluster = Running(command, config)
    try:
        with create_app(config).app_context():
            wait_until(lambda: len(celery.heartbeats()) == 2, "two workers")
            parent = children(cluster.pid)[0]
            workers = [beat.pid for beat in celery.heartbeats()]

            os.kill(parent, signal.SIGKILL)

            wait_until(lambda: not any(exists(pid) for pid in workers), "the end of the workers")
            assert celery.heartbeats() == []
    finally:
        cluster.end()


def test_the_file_that_says_all_is_well(
    start: StartCluster, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    file = tmp_path / "alive"
    start(
        settings(own_redis, CELERY_WORKERS=2),
        "cluster",
        workers=2,
        environ={"CELERY_ALIVE_FILE": str(file)},
    )

    wait_until(file.exists, "the file")
