"""A task that failed is remembered, and can be run again once."""

from __future__ import annotations

import pytest
import sample_app
from engine_support import StartCluster
from flask_background import FailedTask, FlaskCelery, UnknownTask


def fail(live: FlaskCelery) -> FailedTask:
    """Have a worker fail at something."""
    future = live.submit(sample_app.fail, "no number")
    with pytest.raises(ValueError, match="no number"):
        future.result(timeout=20)
    found = find(live, future.id)
    assert found
    return found


def find(live: FlaskCelery, task_id: str) -> FailedTask | None:
    return next((one for one in live.failures() if one.id == task_id), None)


def test_a_failure_is_remembered_with_its_reason(live: FlaskCelery) -> None:
    failed = fail(live)

    assert (failed.kind, failed.name) == ("failed", "sample_app.fail")
    assert failed.reason == "ValueError: no number"
    assert failed.date.timestamp() == pytest.approx(failed.at)
    assert failed.can_run_again


def test_a_failed_task_runs_again_with_its_arguments(live: FlaskCelery) -> None:
    failed = fail(live)

    again = live.run_again(failed.id)

    assert again
    assert again.id != failed.id
    assert again.name == "sample_app.fail"
    with pytest.raises(ValueError, match="no number"):
        again.result(timeout=20)
    assert find(live, failed.id) is None
    assert find(live, again.id)


def test_a_failure_runs_again_only_once(live: FlaskCelery) -> None:
    failed = fail(live)

    assert live.run_again(failed.id)
    assert live.run_again(failed.id) is None


def test_a_task_that_did_not_fail_does_not_run_again(live: FlaskCelery) -> None:
    future = live.submit(sample_app.add, 1)
    future.result(timeout=20)

    assert live.run_again(future.id) is None
    assert live.run_again("never-issued") is None


def test_a_task_that_this_version_does_not_have_stays_remembered(
    start: StartCluster, client: FlaskCelery, monkeypatch: pytest.MonkeyPatch
) -> None:
    start({}, "cluster", "--no-scheduler")
    future = client.submit(sample_app.double, None)
    assert future.exception(timeout=30)
    monkeypatch.delitem(client.tasks, sample_app.double.name)

    with pytest.raises(UnknownTask, match="in this version"):
        client.run_again(future.id)

    assert find(client, future.id)


def test_a_task_says_when_it_began_and_where(live: FlaskCelery) -> None:
    future = live.submit(sample_app.nothing)
    future.result(timeout=20)

    info = live.task_info(future.id)

    assert info
    assert info.queue == "default"
    assert info.started_at
    assert info.seconds is not None
