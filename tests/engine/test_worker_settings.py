"""`CELERY_WORKERS` and its relatives: what they mean, and which values are refused."""

from __future__ import annotations

from typing import Any

import pytest
import sample_app
from engine_support import StartCluster, run
from flask import Flask
from flask_background import ConfigurationError, FlaskCelery
from sample_app import celery, create_app


def made(**settings: Any) -> FlaskCelery:
    app = Flask("sample_app")
    app.config.update(CELERY_TASK_ALWAYS_EAGER=True, **settings)
    return FlaskCelery(app)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (1, ["worker"]),
        (3, ["worker1", "worker2", "worker3"]),
        (["mail", "reports"], ["mail", "reports"]),
        (("mail",), ["mail"]),
        ({"mail": {}, "reports": {"queues": ["reports"]}}, ["mail", "reports"]),
    ],
)
def test_workers_by_number_by_name_or_with_options(value: Any, names: list[str]) -> None:
    assert [spec.name for spec in made(CELERY_WORKERS=value).options.workers] == names


def test_without_the_setting_there_is_one_worker() -> None:
    assert [spec.name for spec in made().options.workers] == ["worker"]


@pytest.mark.parametrize("queues", [["low", "high"], ("low", "high"), "low,high", "low, high"])
def test_queues_in_any_form_are_declared(queues: Any) -> None:
    celery = made(CELERY_WORKERS={"foo": {"queues": queues}, "baz": {}})

    assert sorted(queue.name for queue in celery.conf.task_queues) == ["default", "high", "low"]
    assert celery.options.workers[0].queues == ("low", "high")


def test_options_become_flags_of_celery_worker() -> None:
    celery = made(
        CELERY_WORKERS={
            "foo": {
                "concurrency": 10,
                "loglevel": "error",
                "pidfile": "/run/foo.pid",
                "queues": ["low", "high"],
                "max-tasks-per-child": 5,
                "pool": "threads",
                "without_mingle": False,
                "task_events": True,
            }
        }
    )

    argv = celery.options.workers[0].argv("info")

    assert argv[:3] == ["worker", "--hostname", "foo@%h"]
    for flag, value in {
        "--concurrency": "10",
        "--loglevel": "error",
        "--pidfile": "/run/foo.pid",
        "--queues": "low,high",
        "--max-tasks-per-child": "5",
        "--pool": "threads",
    }.items():
        assert argv[argv.index(flag) + 1] == value
    assert "--task-events" in argv
    assert "--without-gossip" in argv
    assert "--without-mingle" not in argv


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (0, "CELERY_WORKERS is 0"),
        (-1, "CELERY_WORKERS is -1"),
        (True, "CELERY_WORKERS is True"),
        ("mail", "CELERY_WORKERS is 'mail'"),
        ([], r"CELERY_WORKERS is \[\]"),
        ({}, "CELERY_WORKERS is {}"),
        (1.5, r"CELERY_WORKERS is 1\.5"),
        (None, "CELERY_WORKERS is None"),
        ([1], "the worker name 1"),
        (["a b"], "the worker name 'a b'"),
        (["-n"], "the worker name '-n'"),
        (["a", "a"], "names a worker twice"),
        ({"a": None}, r"CELERY_WORKERS\['a'\] is None"),
        ({"a": {"queues": 5}}, r"CELERY_WORKERS\['a'\]\['queues'\] is 5"),
        ({"a": {"queues": [1]}}, r"CELERY_WORKERS\['a'\]\['queues'\]"),
        ({"a": {"queues": [""]}}, r"CELERY_WORKERS\['a'\]\['queues'\]"),
    ],
)
def test_a_value_that_cannot_work_is_refused(value: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        made(CELERY_WORKERS=value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"concurency": 2}, "No such option '--concurency'. Did you mean '--concurrency'?"),
        ({"concurrency": "many"}, "'--concurrency': must be"),
        ({"pool": "swimming"}, "'--pool': 'swimming' is not"),
    ],
)
def test_a_wrong_option_stops_the_start_with_its_name(options: dict[str, Any], why: str) -> None:
    ended = run({"CELERY_WORKERS": {"foo": options}}, "cluster")

    assert ended.returncode == 1
    assert "CELERY_WORKERS['foo']" in ended.stderr
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("option", ["detach", "hostname", "beat"])
def test_options_that_a_cluster_decides_are_refused(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the option '{option}', which the cluster"):
        made(CELERY_WORKERS={"foo": {option: True}})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"CELERY_SUBMIT_PACKAGES": "json"}, r"write a list, such as \['json'\]"),
        ({"CELERY_SUBMIT_PACKAGES": None}, r"is None: write a list, such as \['package'\]"),
        ({"CELERY_VISIBILITY_TIMEOUT": 5}, "is 5 seconds.* Set CELERY_VIS"),
        ({"CELERY_VISIBILITY_TIMEOUT": None}, "is None seconds.* Set CELERY_VIS"),
        ({"CELERY_MAX_DELIVERIES": None}, "is None. Give a number of 1 or more, such as 5."),
        ({"CELERY_MAX_DELIVERIES": 0}, "is 0. Give a number of 1 or more"),
        ({"CELERY_MAX_ARGUMENT_BYTES": "1k"}, "is '1k'. Give a number of 0 or more"),
        ({"CELERY_START_TIMEOUT": None}, "is None. Give a number of 0 or more"),
        ({"CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": True}, "is True. Give a number of 0 or more"),
        ({"CELERY_TASK_TIME_LIMIT": "60"}, "is '60'.* such as 300, or None for no limit"),
    ],
)
def test_other_settings_that_cannot_work_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        made(**settings)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CELERYD_CONCURRENCY", "CELERY_WORKER_CONCURRENCY"),
        ("CELERYD_TASK_TIME_LIMIT", "CELERY_TASK_TIME_LIMIT"),
        ("CELERY_DEFAULT_QUEUE", "CELERY_TASK_DEFAULT_QUEUE"),
        ("CELERY_TASK_RESULT_EXPIRES", "CELERY_RESULT_EXPIRES"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(old: str, new: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{old} is an old name. Write {new}"):
        made(**{old: 5})


def test_a_name_that_nobody_reads_is_told_with_the_nearest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made(CELERY_TASK_TIME_LIMITS=5, CELERY_XYZ=1, CELERY_WORKERS=2, CELERY_VISIBILITY_TIMEOUT=60)

    (said,) = [one.getMessage() for one in caplog.records if "Nobody reads" in one.getMessage()]
    assert said.endswith(
        ": CELERY_TASK_TIME_LIMITS (did you mean CELERY_TASK_TIME_LIMIT?), CELERY_XYZ"
    )


def test_the_number_of_places_may_be_set_for_all_workers(
    start: StartCluster, client: FlaskCelery
) -> None:
    start({"CELERY_WORKER_CONCURRENCY": 3}, "worker", workers=3)

    assert len(client.inspect.ping()) == 3


def test_none_means_no_limit_where_celery_means_that(start: StartCluster) -> None:
    limits = {"CELERY_TASK_TIME_LIMIT": None, "CELERY_TASK_SOFT_TIME_LIMIT": None}
    with create_app(start(limits, "worker", workers=1).settings).app_context():
        assert celery.submit(sample_app.add, 1, 2).result(timeout=20) == 3


@pytest.mark.parametrize("key", ["BEAT_SCHEDULE", "BROKER_TRANSPORT_OPTIONS"])
def test_none_means_nothing_of_our_own_where_there_may_be_more(key: str) -> None:
    assert made(**{f"CELERY_{key}": None}).conf.visibility_timeout == 40
