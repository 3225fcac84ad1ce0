"""What the tasks did: the list of the latest, and the counts."""

from __future__ import annotations

import logging

import pytest
import sample_app
from celery import signals
from engine_support import StartCluster, wait_until
from flask_background import FlaskCelery
from flask_background.state import activity
from sample_app import celery, create_app


def test_a_dead_redis_fails_no_task(caplog: pytest.LogCaptureFixture) -> None:
    create_app({"REDIS_URL": "redis://127.0.0.1:1/0"})
    task = celery.tasks[sample_app.double.name]

    with caplog.at_level(logging.WARNING):
        signals.task_prerun.send(task, task_id="one", task=task)
        signals.task_postrun.send(task, task_id="one", task=task, state="SUCCESS")

    assert caplog.text.count("A task was not counted") == 1
    assert "Traceback" not in caplog.text


def test_the_latest_tasks_come_first_and_old_ones_go(client: FlaskCelery) -> None:
    sent = [client.submit(sample_app.nothing).id for _ in range(activity.KEPT + 5)]

    assert list(activity.latest(client)) == sent[:4:-1]


def test_a_task_that_ends_keeps_its_place_in_the_list(
    start: StartCluster, client: FlaskCelery
) -> None:
    first, second = (client.submit(sample_app.nothing) for _ in range(2))
    before = activity.latest(client)

    start({}, "cluster", "--no-scheduler")
    for future in (first, second):
        future.result(timeout=30)
    wait_until(client.task_statistics, "the counts")

    assert activity.latest(client) == before
    assert list(before) == [second.id, first.id]


def test_ends_are_counted_by_task_and_outcome(start: StartCluster, client: FlaskCelery) -> None:
    start({}, "cluster", "--no-scheduler")
    client.map(sample_app.add, [1], [2]).result(timeout=30)
    for task in (sample_app.fail, sample_app.third_time_lucky):
        client.submit(task).exception(timeout=30)

    def ends() -> dict[str, dict[str, int]]:
        return {one.name: one.ended for one in client.task_statistics()}

    # The last count is written just after the last result.
    wait_until(lambda: "SUCCESS" in ends().get(sample_app.third_time_lucky.name, {}), "the counts")

    assert ends() == {
        "sample_app.add": {"SUCCESS": 2},
        "sample_app.fail": {"FAILURE": 1},
        "sample_app.third_time_lucky": {"RETRY": 2, "SUCCESS": 1},
    }
    add = client.task_statistics()[0]
    assert list(add.durations) == list(activity.BUCKETS)
    assert sum(add.durations.values()) == 2
    assert add.seconds > 0


def test_names_that_differ_from_call_to_call_make_no_counters(client: FlaskCelery) -> None:
    task = client.tasks["celery.accumulate"]
    for number in range(3):
        task.push_request(shadow=f"sum {number}")
        signals.task_prerun.send(task, task_id=f"named-{number}", task=task)
        signals.task_postrun.send(task, task_id=f"named-{number}", task=task, state="SUCCESS")
        task.pop_request()

    assert {one.name: one.ended for one in client.task_statistics()} == {
        "celery.accumulate": {"SUCCESS": 3}
    }


def test_in_eager_mode_nothing_is_counted(eager: FlaskCelery) -> None:
    assert eager.submit(sample_app.add, 1, 2).result() == 3  # there is no Redis to count in
