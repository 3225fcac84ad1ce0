"""Workers that the application starts by itself, in development."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import sample_app
from devtools.dev.redis_server import EmbeddedRedis
from engine_support import Running, children, environment, exists, wait_until
from flask_background import BackgroundError, BrokerUnavailable
from sample_app import celery, create_app

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="looks at processes")

#: An application that submits a task, says so, and goes on until it is ended. What it says is one
#: string: its workers write to the same pipe, and would come between two.
APPLICATION = """
import signal
from sample_app import add, celery, create_app
with create_app().app_context():
    print(f"result {celery.submit(add, 1, 2).result(timeout=30)}", flush=True)
    if {stop}:
        celery.stop()
        print("stopped", flush=True)
    signal.pause()
"""


#: Its cluster lives, and its workers do not.
UNABLE = """
from celery.signals import celeryd_init
from sample_app import create_app
app = create_app()
@celeryd_init.connect
def refuse(**_):
    print("no room for it")
    raise SystemExit(1)
"""


def application(server: EmbeddedRedis, *, stop: bool = False, **more: Any) -> Running:
    """Run it with a shell as its parent, which stays when the application is killed."""
    config = {
        "REDIS_URL": server.url,
        "CELERY_START_LOCAL_WORKERS": True,
        "CELERY_START_TIMEOUT": 30,
        "CELERY_WORKERS": ["a", "b"],
        **more,
    }
    code = APPLICATION.replace("{stop}", str(stop))
    return Running(["sh", "-c", '"$@"; exec sleep 60', "sh", sys.executable, "-c", code], config)


def beats(server: EmbeddedRedis) -> list[int]:
    with create_app({"REDIS_URL": server.url}).app_context():
        return [beat.pid for beat in celery.heartbeats()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_first_submit_starts_the_workers_and_they_end_with_the_application(
    own_redis: EmbeddedRedis, number: int
) -> None:
    running = application(own_redis)
    try:
        running.wait_for("result 3")
        workers = beats(own_redis)
        assert len(workers) == 2
        app = children(running.pid)[0]

        os.kill(app, number)

        wait_until(lambda: not any(exists(pid) for pid in workers), "the end of the workers")
        assert beats(own_redis) == []
    finally:
        running.end()


def test_two_processes_share_one_cluster_and_stop_ends_it(own_redis: EmbeddedRedis) -> None:
    both = [application(own_redis) for _ in range(2)]
    try:
        for running in both:
            running.wait_for("result 3")
        assert len(beats(own_redis)) == 2
        clusters = [children(children(running.pid)[0]) for running in both]
        assert sorted(map(len, clusters)) == [0, 1]
    finally:
        for running in both:
            running.end()


def test_under_gunicorn_there_is_one_cluster_which_ends_with_it(own_redis: EmbeddedRedis) -> None:
    config = {
        "REDIS_URL": own_redis.url,
        "CELERY_START_LOCAL_WORKERS": True,
        "CELERY_START_TIMEOUT": 30,
    }
    options = ["--workers", "2", "--threads", "2", "--bind", "127.0.0.1:0", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", *options, "sample_app:create_web()"]
    web = Running(command, config)
    try:
        address = web.wait_for("Listening at").partition("Listening at: ")[2].split()[0]
        with ThreadPoolExecutor(8) as pool:
            pages = list(pool.map(lambda _: fetch(address), range(8)))
        assert pages == ["3"] * 8
        (worker,) = beats(own_redis)

        processes = [web.pid, *children(web.pid)]
        for pid in processes:
            os.kill(pid, signal.SIGKILL)

        wait_until(lambda: not exists(worker), "the end of the worker")
    finally:
        web.end()


def fetch(address: str) -> str:
    with urlopen(address, timeout=40) as answer:
        return str(answer.read().decode())


def test_stop_ends_what_start_began(own_redis: EmbeddedRedis) -> None:
    running = application(own_redis, stop=True)
    try:
        running.wait_for("stopped")
        assert beats(own_redis) == []
    finally:
        running.end()


def test_their_output_goes_to_the_folder_for_logs(own_redis: EmbeddedRedis, tmp_path: Path) -> None:
    running = application(own_redis, CELERY_LOG_DIR=str(tmp_path), CELERY_LOG_LEVEL="info")
    try:
        running.wait_for("result 3")
        assert "a celery.apps.worker: a@" in (tmp_path / "cluster.log").read_text()
        assert "celery.apps.worker" not in running.output
    finally:
        running.end()


def test_without_the_setting_nothing_is_started(own_redis: EmbeddedRedis) -> None:
    with create_app({"REDIS_URL": own_redis.url}).app_context():
        assert celery.submit(sample_app.nothing).state == "PENDING"
        assert celery.queue_lengths() == {"default": 1}
    assert beats(own_redis) == []


@pytest.mark.parametrize(
    ("code", "timeout", "why"),
    [
        ("raise ImportError('broken')", 30, "The workers ended at once:[^$]*broken"),
        (UNABLE, 30, "The workers ended at once:[^$]*no room for"),
        ("import signal; signal.pause()", 1, "No worker answered within 1 s"),
    ],
)
def test_workers_that_do_not_come_are_an_error(
    own_redis: EmbeddedRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    timeout: int,
    why: str,
) -> None:
    (tmp_path / "made_up.py").write_text(code)
    monkeypatch.setenv("FLASK_APP", str(tmp_path / "made_up.py"))
    config = {
        "REDIS_URL": own_redis.url,
        "CELERY_START_LOCAL_WORKERS": True,
        "CELERY_START_TIMEOUT": timeout,
    }
    with create_app(config).app_context():
        for _ in range(2):  # the second one is told as well
            with pytest.raises(BackgroundError, match=why):
                celery.submit(sample_app.nothing)
        celery.stop()


#: A file of an application of its own, with a command that submits a task.
APP = """
import os
from flask import Flask
from flask_background import FlaskCelery
{extension}
def {name}({parameter}):
    app = Flask({import_name})
    app.config.update(
        SECRET_KEY="x", REDIS_URL=os.environ["KIND_REDIS"], CELERY_START_LOCAL_WORKERS=True,
        CELERY_START_TIMEOUT=30,
    )
    celery.init_app(app)
    app.cli.command("try")(lambda: print("sum", celery.submit(add, 1, 2).result(30)))
    return app
"""
SUM = "def add(x, y):\n    return x + y\n"


def kind(**more: str) -> str:
    given = {"name": "create_app", "parameter": "", "import_name": "__name__"}
    given["extension"] = f"celery = FlaskCelery()\n{SUM}"
    return APP.format(**given | more)


SHOP = kind(
    name="build",
    import_name="'shop'",
    extension="from .sums import add\ncelery = FlaskCelery()",
)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"app.py": kind() + "app = create_app()\n"}, None),
        ({"single.py": kind(parameter="name")}, "single:create_app('x')"),
        ({"outer/__init__.py": "", "outer/inner/__init__.py": kind()}, "outer.inner"),
        (
            {"shop/__init__.py": "", "shop/sums.py": SUM, "shop/factory.py": SHOP},
            "shop.factory:build",
        ),
    ],
    ids=["single file", "factory with an argument", "nested package", "factory elsewhere"],
)
def test_whatever_flask_can_load_has_its_workers(
    own_redis: EmbeddedRedis, tmp_path: Path, files: dict[str, str], told: str | None
) -> None:
    folder = tmp_path / "project"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    environ = {key: value for key, value in environment({}).items() if key != "FLASK_APP"}
    command = [sys.executable, "-m", "flask", *(["--app", told] if told else []), "try"]

    ended = subprocess.run(
        command,
        cwd=folder,
        env=environ | {"KIND_REDIS": own_redis.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "sum 3" in ended.stdout, ended.stdout + ended.stderr


def test_without_redis_the_start_says_so() -> None:
    config = {"REDIS_URL": "redis://127.0.0.1:1/0", "CELERY_START_LOCAL_WORKERS": True}

    with create_app(config).app_context(), pytest.raises(BrokerUnavailable):
        celery.submit(sample_app.nothing)


def test_in_eager_mode_nothing_is_started() -> None:
    config = {"CELERY_TASK_ALWAYS_EAGER": True, "CELERY_START_LOCAL_WORKERS": True}

    with create_app(config).app_context():
        assert celery.submit(sample_app.add, 1, 2).result() == 3
