"""The schedule: how entries are made, and that each tick comes once, whoever sends it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.schedules import crontab, schedule, solar
from devtools.dev.redis_server import EmbeddedRedis
from flask import Flask
from flask_background import ConfigurationError, FlaskCelery
from flask_background.state.scheduler import RedisScheduler


@pytest.fixture
def own() -> FlaskCelery:
    """A FlaskCelery without an application yet."""
    return FlaskCelery()


def job() -> None:
    pass


def test_a_number_of_seconds(own: FlaskCelery) -> None:
    own.schedule(30, name="half-minute", args=(1, 2), kwargs={"arg3": "foo"})(job)

    entry = entries(own)["half-minute"]

    assert (entry["schedule"], entry["args"], entry["kwargs"]) == (30, (1, 2), {"arg3": "foo"})
    assert entry["options"]["expires"] == 30


@pytest.mark.parametrize(
    ("when", "fields", "expected"),
    [
        (None, {"hour": 7, "minute": 30}, crontab(hour=7, minute=30)),
        (crontab(day_of_week=1), {}, crontab(day_of_week=1)),
        (timedelta(hours=1), {}, timedelta(hours=1)),
        (solar("sunset", -37.8, 144.9), {}, solar("sunset", -37.8, 144.9)),
    ],
)
def test_other_times(own: FlaskCelery, when: Any, fields: dict[str, Any], expected: Any) -> None:
    own.schedule(when, name="other", **fields)(job)

    assert entries(own)["other"]["schedule"] == expected


def test_the_name_is_optional_and_the_decorated_is_a_task(own: FlaskCelery) -> None:
    task = own.schedule(hour=0, minute=0)(job)

    assert list(entries(own)) == [f"{__name__}.job"]
    assert hasattr(task, "delay")


def test_a_task_may_be_scheduled_too(own: FlaskCelery) -> None:
    @own.schedule(10, name="of-a-task")
    @own.task(name="special")
    def task() -> None:
        pass

    assert entries(own)["of-a-task"]["task"] == "special"


def test_what_is_scheduled_is_found_by_name(own: FlaskCelery) -> None:
    task = own.schedule(10, name="every-ten")(job)
    own.task(name="idle")(entries)
    entries(own)

    assert own.schedule["every-ten"] is own.schedule.job
    assert own.schedule.job.name == task.name
    for name in ("idle", "nothing"):
        with pytest.raises(AttributeError, match=f"{name}"):
            getattr(own.schedule, name)


def test_a_name_that_is_taken_is_refused(own: FlaskCelery) -> None:
    own.schedule(10, name="twice")(job)

    with pytest.raises(ValueError, match="Two schedules have the name 'twice'"):
        own.schedule(20, name="twice")(job)


@pytest.mark.parametrize(("when", "fields"), [(None, {}), (10, {"hour": 1})])
def test_one_time_must_be_given(own: FlaskCelery, when: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Say when"):
        own.schedule(when, **fields)


WRONG = [0, -1, "5", True, float("nan"), 1e300, timedelta(0), schedule(0), object()]


@pytest.mark.parametrize("when", WRONG)
def test_a_time_that_cannot_be_is_refused(own: FlaskCelery, when: Any) -> None:
    with pytest.raises(ValueError, match=r"The schedule is .* Give seconds"):
        own.schedule(when)
    with pytest.raises(ConfigurationError, match=r"The schedule of 'x' .* Give seconds"):
        entries(own, {"CELERY_BEAT_SCHEDULE": {"x": {"task": "a.b", "schedule": when}}})


@pytest.mark.parametrize("key", ["CELERYBEAT_SCHEDULE", "CELERY_BEAT_SCHEDULE"])
def test_the_settings_may_hold_a_schedule(own: FlaskCelery, key: str) -> None:
    own.schedule(10, name="decorated")(job)

    found = entries(own, {key: {"configured": {"task": "a.b", "schedule": 5.0}}})

    assert set(found) == {"decorated", "configured"}


def test_both_names_of_that_setting_count(own: FlaskCelery) -> None:
    entry = {"task": "a.b", "schedule": 5.0}

    both = {"CELERYBEAT_SCHEDULE": {"old": entry}, "CELERY_BEAT_SCHEDULE": {"new": entry}}

    assert set(entries(own, both)) == {"old", "new"}


def test_a_schedule_made_after_init_app_counts(own: FlaskCelery) -> None:
    entries(own)

    own.schedule(10, name="late")(job)

    assert "late" in own.conf.beat_schedule


def entries(own: FlaskCelery, settings: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    app = Flask("scheduled")
    app.config.update(CELERY_TASK_ALWAYS_EAGER=True, **(settings or {}))
    own.init_app(app)
    return dict(own.conf.beat_schedule)


def test_the_status_tells_the_last_and_the_next_run(client: FlaskCelery) -> None:
    found = {status.name: status for status in client.schedule_status()}

    tick = found["every-second"]
    assert (tick.task, tick.last_run_at, tick.total_run_count) == ("sample_app.tick", None, 0)
    assert tick.next_run_at is not None
    assert "1.00 second" in tick.schedule


def test_a_tick_in_the_future_stops_nothing_when_the_clock_is_set_back(
    client: FlaskCelery,
) -> None:
    (tick,) = client.schedule_status()
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    client.redis.hset(client.keys.scheduler_runs, tick.name, json.dumps([future, 7]))
    scheduler = RedisScheduler(client)

    try:
        # Seconds until the next one; they would be as many as a look may wait: 5, for an hour.
        assert scheduler.tick() <= 1.0
    finally:
        scheduler.close()


def test_the_scheduler_goes_on_with_its_own_lease_when_redis_is_back(
    client: FlaskCelery, own_redis: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scheduler = RedisScheduler(client)
    scheduler.tick()
    own_redis.stop()
    scheduler.tick()
    own_redis.start()

    scheduler.tick()

    assert caplog.text.count("The scheduler waits for Redis") == 1
    assert caplog.text.count("This scheduler leads") == 2
    scheduler.close()
