"""What there is to see at one moment: what waits, runs, ended, failed and was given up."""

from __future__ import annotations

import os
import signal

import pytest
import sample_app
from engine_support import StartCluster, children, wait_until
from flask_background import FlaskCelery
from sample_app import mailbox


def test_each_task_is_shown_where_it_is(start: StartCluster, client: FlaskCelery) -> None:
    start({"CELERY_WORKERS": ["one"]}, "cluster", "--no-scheduler", workers=1)
    ended = client.submit(sample_app.add, 1, 2)
    failed = client.submit(sample_app.fail)
    client.redis.lpush(client.key("default"), "no message")
    assert failed.exception(timeout=20)
    (letter,) = wait_until(client.dead_letters, "the dead letter")
    running = client.submit(sample_app.hold, "shown")
    with mailbox() as box:
        assert box.blpop(["started:shown"], timeout=20)
        waiting = [client.submit(sample_app.nothing) for _ in range(3)]

        seen = client.overview()

        box.rpush("release:shown", "go")
    assert seen.reachable
    assert [task.info.id for task in seen.running] == [running.id]
    assert (seen.running[0].label, seen.running[0].interrupted) == ("hold", False)
    assert seen.running[0].sent_at is not None
    assert [task.info.id for task in seen.waiting] == [future.id for future in waiting]
    assert ended.id in {task.info.id for task in seen.ended}
    assert failed.id not in {task.info.id for task in seen.ended}
    assert [one.id for one in seen.failures] == [failed.id]
    assert [one.id for one in seen.dead] == [letter.id]
    assert (seen.failed_count, seen.waiting_count, seen.alive_count) == (2, 3, 1)
    assert [entry.name for entry in seen.schedule] == ["every-second"]
    assert seen.next_run_at is not None


def test_a_task_whose_machine_was_lost_is_shown_as_interrupted(
    start: StartCluster, client: FlaskCelery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine_support.PATIENCE", 60)
    cluster = start({"CELERY_WORKERS": 1}, "worker", workers=1)
    future = client.submit(sample_app.hold, "interrupted")
    with mailbox() as box:
        assert box.blpop(["started:interrupted"], timeout=20)
        (task,) = client.overview().running
        assert not task.interrupted

        # Nobody puts the task back: it waits for the end of its lease.
        for pid in (cluster.pid, *children(cluster.pid)):
            os.kill(pid, signal.SIGKILL)

        wait_until(lambda: client.overview().running[0].interrupted, "the mark")
        assert client.overview().running[0].info.id == future.id


def test_no_more_are_listed_than_asked_for(start: StartCluster, client: FlaskCelery) -> None:
    for _ in range(5):
        client.submit(sample_app.nothing)

    seen = client.overview()

    assert len(seen.waiting) == 5
    assert seen.waiting_count == 5
