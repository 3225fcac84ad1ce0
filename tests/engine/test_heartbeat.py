"""What a worker does with each heartbeat, besides saying that it lives."""

from __future__ import annotations

import sample_app
from engine_support import StartCluster, wait_until
from flask_background import FlaskCelery
from flask_background.celery_internals import drop_cancelled_timers
from kombu.asynchronous.timer import Timer
from sample_app import mailbox


def test_the_time_limits_of_tasks_that_have_ended_take_no_memory() -> None:
    timer = Timer()
    ended = [timer.call_after(300 - number, print) for number in range(100)]
    late, soon = timer.call_after(200, print), timer.call_after(100, print)
    for entry in ended:
        entry.cancel()

    drop_cancelled_timers(timer)

    assert len(timer) == 2
    assert [event.entry for event in timer.queue] == [soon, late]


def test_a_task_at_work_does_not_count_as_done(start: StartCluster, client: FlaskCelery) -> None:
    start({"CELERY_WORKERS": 1}, "cluster", "--no-scheduler", workers=1)
    client.submit(sample_app.nothing).result(timeout=20)
    held = client.submit(sample_app.hold, "counted")

    (beat,) = wait_until(
        lambda: [beat for beat in client.heartbeats() if beat.active], "a beat during the task"
    )

    assert (beat.active, beat.processed, beat.tasks) == (1, 1, (held.id,))
    with mailbox() as box:
        box.rpush("release:counted", "go")
    assert held.result(timeout=20) == "counted released"
