"""A place runs one task after the other in its main thread; the cluster sees to what it cannot."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest
import sample_app
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from engine_support import StartCluster, wait_until
from flask_background import FlaskCelery
from sample_app import mailbox

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def test_a_soft_limit_interrupts_a_task_that_waits(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({}, "worker", workers=1)
    before = client.submit(sample_app.process_id).result(timeout=20)

    with pytest.raises(SoftTimeLimitExceeded):
        client.apply(sample_app.sleep, [600], soft_time_limit=1).result(timeout=20)

    assert client.submit(sample_app.process_id).result(timeout=20) == before


def test_a_hard_limit_ends_the_place_and_the_task_says_why(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({}, "worker", workers=1)
    before = client.submit(sample_app.process_id).result(timeout=20)

    locked = client.apply(sample_app.hold_the_lock, [600], soft_time_limit=2, time_limit=2)

    with pytest.raises(TimeLimitExceeded):
        locked.result(timeout=20)
    assert client.submit(sample_app.process_id).result(timeout=20) != before
    assert client.queue_lengths() == {"default": 0}


def test_a_cancelled_task_does_what_it_has_in_finally_and_its_place_goes_on(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({}, "worker", workers=1)
    with mailbox() as box:
        held = client.submit(sample_app.tidy, "cancelled")
        before = box.blpop(["started:cancelled"], timeout=20)

        assert held.cancel()

        assert box.blpop(["tidied:cancelled"], timeout=20)
        pid = client.submit(sample_app.process_id).result(timeout=20)
        assert before and int(before[1]) == pid


def test_a_task_that_holds_the_interpreters_lock_keeps_its_lease_and_its_worker(
    start: StartCluster, client: FlaskCelery
) -> None:
    lease = {"CELERY_VISIBILITY_TIMEOUT": 20}
    start(lease | {"CELERY_WORKERS": {"main": {"concurrency": 2}}}, "worker", workers=2)
    with mailbox() as box:
        locked = client.submit(sample_app.hold_the_lock, 35, "locked")
        assert box.blpop(["started:locked"], timeout=20)

        ages = []
        told: list[Any] = []
        while not locked.done():
            ages.append(max(beat.age for beat in client.heartbeats()))
            names = [beat.name for beat in client.heartbeats() if beat.locked]
            if names and not told:
                inspect = client.inspect
                told = [inspect.ping(), inspect.active(destination=names), inspect.stats()]
            box.blpop(["nothing"], timeout=1)

        ping, active, stats = told
        assert len(ping) == len(stats) == 2, "A place did not answer, nor the cluster for it."
        assert [task["id"] for tasks in active.values() for task in tasks] == [locked.id]
        assert locked.result(timeout=1) == "held"
        assert box.llen("started:locked") == 0, "It ran a second time."
        assert max(ages) < 30, "Its worker counted as lost."


def test_a_cancel_ends_a_task_that_holds_the_interpreters_lock(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({}, "worker", workers=1)
    with mailbox() as box:
        locked = client.submit(sample_app.hold_the_lock, 600, "cancelled")
        assert box.blpop(["started:cancelled"], timeout=20)

        locked.cancel()

        assert client.submit(sample_app.add, 1, 2).result(timeout=40) == 3
        assert client.queue_lengths() == {"default": 0}


def test_a_killed_places_task_begins_again_at_once(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({"CELERY_VISIBILITY_TIMEOUT": 600}, "worker", workers=1)
    with mailbox() as box:
        held = client.submit(sample_app.tidy, "killed")
        first = box.blpop(["started:killed"], timeout=20)
        assert first

        os.kill(int(first[1]), signal.SIGKILL)

        second = box.blpop(["started:killed"], timeout=20)
        assert second and second[1] != first[1]
        held.cancel()


def test_a_place_is_replaced_after_so_many_tasks_and_none_is_lost(
    start: StartCluster, client: FlaskCelery
) -> None:
    workers = {"main": {"max_tasks_per_child": 3}}
    cluster = start({"CELERY_WORKERS": workers}, "worker", workers=1)

    pids = client.map(sample_app.process_id, *[[]] * 10).result(timeout=40)

    assert len(pids) == 10
    assert len(set(pids)) == 4
    assert "starts again in" not in cluster.output


def test_places_come_when_all_are_at_work_and_go_when_they_are_told(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({"CELERY_WORKERS": {"main": {"autoscale": "3,1"}}}, "worker", workers=1)
    with mailbox() as box:
        tasks = [client.submit(sample_app.hold, f"many-{number}") for number in range(3)]
        for number in range(3):
            assert box.blpop([f"started:many-{number}"], timeout=20)
        wait_until(lambda: len(client.heartbeats()) == 3, "three places")

        for number in range(3):
            box.rpush(f"release:many-{number}", "go")
        for task in tasks:
            task.result(timeout=20)
        client.control.autoscale(1, 1)

        wait_until(lambda: len(client.heartbeats()) == 1, "one place to be left")


def test_a_worker_that_is_shut_down_lets_its_task_end(
    start: StartCluster, client: FlaskCelery
) -> None:
    cluster = start({"CELERY_WORKERS": {"main": {"concurrency": 2}}}, "worker", workers=2)
    with mailbox() as box:
        held = client.submit(sample_app.hold, "shut")
        assert box.blpop(["started:shut"], timeout=20)

        client.control.shutdown()

        cluster.wait_for("was shut down")
        box.blpop(["nothing"], timeout=3)  # the cluster looks at its places each second
        box.rpush("release:shut", "go")
        assert held.result(timeout=20) == "shut released"
    assert cluster.wait() == 0
