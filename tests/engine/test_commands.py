"""`flask celery …`: Celery's commands with the application loaded, and their exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample_app
from click.testing import Result
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import Running, StartCluster, environment, ready, run, wait_until
from sample_app import celery, create_app

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Run `flask celery …` in this process; only for what ends at once."""
    runner = create_app({"CELERY_WORKERS": ["a"]}).test_cli_runner()
    return lambda *arguments: runner.invoke(args=["celery", *arguments])


def test_a_worker_takes_its_options_from_the_settings(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    config = {
        "REDIS_URL": own_redis.url,
        "CELERY_WORKERS": {"one": {}, "two": {"concurrency": 2, "queues": ["mail"]}},
    }
    worker = start(config, "worker", "-n", "two", workers=2)

    with create_app(config).app_context():
        beats = celery.heartbeats()
        assert {beat.name.partition("@")[0] for beat in beats} == {"two", "two.2"}
        assert {beat.queues for beat in beats} == {("mail",)}
    assert worker.stop() == 0


def test_a_worker_may_be_named_and_set_on_the_command_line(
    start: StartCluster, own_redis: EmbeddedRedis
) -> None:
    config = {"REDIS_URL": own_redis.url}
    start(config, "worker", "-n", "foo@bar", "--concurrency", "3", workers=3)

    with create_app(config).app_context():
        answers = celery.inspect.ping(destination=["foo@bar"], timeout=20)
        assert set(answers) == {"foo@bar", "foo.2@bar", "foo.3@bar"}


def test_a_wrong_word_for_a_command_of_celery_names_the_command_as_it_is_typed(
    invoke: Invoke,
) -> None:
    done = invoke("inspect", "activ")
    assert done.exit_code == 2
    assert "Usage: sample_app celery inspect " in done.output
    assert "active" in done.output


def test_celery_itself_finds_the_application(start: StartCluster, own_redis: EmbeddedRedis) -> None:
    config = {"REDIS_URL": own_redis.url}
    command = [sys.executable, "-m", "celery", "-A", "sample_celery", "worker", "-c", "1"]
    running = Running(command, config)
    try:
        ready(config, 1)
        with create_app(config).app_context():
            future = celery.submit(sample_app.surroundings)
            assert future.result(timeout=20)["app"] == "sample_app"
    finally:
        running.end()


def test_the_scheduler_of_celery_runs_by_itself(
    start: StartCluster, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    beat = start({"REDIS_URL": own_redis.url}, "beat", "--loglevel", "info", cwd=tmp_path)

    beat.wait_for("Sending the due task every-second")
    with create_app({"REDIS_URL": own_redis.url}).app_context():
        wait_until(lambda: celery.queue_lengths()["default"], "the task to be sent")

    beat.signal(signal.SIGTERM)
    assert beat.wait() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"redis", "redis.json"}  # no pid file


STOPPED_WHILE_IT_SENDS = """
import os, signal
from celery.beat import BeatLazyFunc
from sample_app import celery, create_app

def stop_here():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        %s

due = {"task": "sample_app.tick", "schedule": 3600, "args": [BeatLazyFunc(stop_here)]}
celery.conf.beat_schedule = {"hourly": due}
"""


@pytest.mark.parametrize(("then", "sent"), [("pass", 1), ("raise OSError('while cleaning up')", 0)])
def test_the_scheduler_hears_of_its_end_while_it_sends_and_loses_no_tick(
    start: StartCluster, own_redis: EmbeddedRedis, tmp_path: Path, then: str, sent: int
) -> None:
    program = tmp_path / "stopped.py"
    program.write_text(STOPPED_WHILE_IT_SENDS % then)
    settings = {"REDIS_URL": own_redis.url}

    beat = start(settings, "beat", environ={"FLASK_APP": str(program)}, cwd=tmp_path)

    assert beat.wait() == 0
    with create_app(settings).app_context():
        assert celery.queue_lengths()["default"] == sent
        (hourly,) = celery.redis.hvals(celery.keys.scheduler_runs)
    assert json.loads(hourly)[1] == sent, "What was not sent is due still."


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inspect", "ping"], "pong"),
        (["inspect", "active"], "main@"),
        (["status"], "3 nodes online"),
        (["report"], "software ->"),
        (["call", "sample_app.double", "--args", "[1]"], "-"),
        (["control", "rate_limit", "sample_app.double", "100/s"], "new rate limit set"),
    ],
)
def test_commands_of_celery_work(
    settings: dict[str, Any], arguments: list[str], expected: str
) -> None:
    ended = run(settings, *arguments)

    assert expected in ended.stdout
    assert ended.returncode == 0


@pytest.mark.usefixtures("workers")
def test_a_command_that_is_refused_has_another_exit_code(settings: dict[str, Any]) -> None:
    ended = run(settings, "control", "autoscale", "5", "1")

    assert "Autoscale not enabled" in ended.stdout + ended.stderr
    assert ended.returncode == 1


@pytest.mark.parametrize("arguments", [["status"], ["inspect", "ping"]])
def test_without_workers_the_exit_code_tells(
    own_redis: EmbeddedRedis, arguments: list[str]
) -> None:
    ended = run({"REDIS_URL": own_redis.url}, *arguments)

    assert ended.returncode != 0


def test_purge_empties_the_queues(own_redis: EmbeddedRedis) -> None:
    config = {"REDIS_URL": own_redis.url, "CELERY_WORKERS": {"a": {"queues": ["x", "y"]}}}
    with create_app(config).app_context():
        for queue in ("x", "y"):
            celery.submit(sample_app.nothing, queue=queue)

        ended = run(config, "purge", "--force")

        assert ended.returncode == 0
        assert celery.queue_lengths() == {"default": 0, "x": 0, "y": 0}


def test_help_lists_our_commands_and_those_of_celery(invoke: Invoke) -> None:
    commands = invoke("--help").stdout

    for name in ("cluster", "worker", "beat", "inspect", "control", "status", "purge", "dead"):
        assert f"\n  {name} " in commands
    assert " report, " in commands, "The seldom needed are named too."


def test_help_is_short_too(invoke: Invoke) -> None:
    assert invoke("-h").stdout == invoke("--help").stdout
    assert invoke("cluster", "-h").exit_code == 0


def test_our_commands_have_help(invoke: Invoke) -> None:
    for name in ("cluster", "worker"):
        ended = invoke(name, "--help")
        assert f"celery {name} [OPTIONS]" in ended.stdout
        assert ended.exit_code == 0


def test_help_of_a_command_of_celery_is_its_own() -> None:
    ended = run({}, "inspect", "--help")

    assert "--destination" in ended.stdout
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["cluster", "--nonsense"], 2, "No such option"),
        (["cluster", "--workers", "a,x"], 2, "'x' is not a worker of CELERY_WORKERS. There are: a"),
    ],
)
def test_a_wrong_command_is_an_error(
    invoke: Invoke, arguments: list[str], code: int, why: str
) -> None:
    ended = invoke(*arguments)

    assert why in ended.stderr
    assert ended.exit_code == code


def test_the_exit_code_of_celery_is_passed_on() -> None:
    assert run({}, "inspect", "nonsense").returncode != 0


def test_an_application_without_the_extension_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    ended = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "bare", "celery", "status"],
        env=environment({}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    assert "No such command 'celery'" in ended.stderr


@pytest.mark.parametrize("where", ["FLASK_APP", "sample_app:create_app", "app.py", "wsgi.py"])
def test_the_application_is_found_as_flask_finds_it(tmp_path: Path, where: str) -> None:
    env = environment({"CELERY_WORKERS": ["found"]})
    if where.endswith(".py"):
        del env["FLASK_APP"]
        (tmp_path / where).write_text("from sample_app import create_app\n")
    elif where != "FLASK_APP":
        env["FLASK_APP"] = where
    ended = subprocess.run(
        [sys.executable, "-m", "flask", "celery", "cluster", "--workers", "x"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "There are: found." in ended.stderr


def test_a_cluster_leaves_no_files_and_uses_nothing_that_celery_drops(
    start: StartCluster, own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    cluster = start(
        {"REDIS_URL": own_redis.url},
        "cluster",
        workers=1,
        cwd=folder,
        environ={"PYTHONWARNINGS": "default"},
    )

    assert cluster.stop() == 0
    assert list(folder.iterdir()) == []
    assert "CDeprecationWarning" not in cluster.output
    assert "CPendingDeprecationWarning" not in cluster.output
