"""What the tests share. A test gets a fixture by naming it as an argument.

Most tests need only `client` (a browser without a window) or `app`: tasks then run at once, in the
test's own process, and no Redis is needed. A test of what really happens between the web server
and the workers takes `live_app` and `worker`:

    def test_my_task(live_app: Flask, worker: Child) -> None:
        with live_app.app_context():
            assert celery.submit(my_function, 2).result(timeout=10) == 4
"""

import os
import sys
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from redis import Redis

from {{ cookiecutter.project_slug }} import create_app
from {{ cookiecutter.project_slug }}.dev.child import Child
from {{ cookiecutter.project_slug }}.dev.redis_server import EmbeddedRedis, running_url
from {{ cookiecutter.project_slug }}.extensions import celery

PROJECT = Path(__file__).parents[1]
PACKAGE = celery.__module__.partition(".")[0]
TEST_DATABASE = 15  # of the Redis that `flask dev` runs, which itself uses database 0
WORKER_START = 30.0  # seconds
WORKER_OUTPUT = pytest.StashKey[deque[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the last lines of the worker, for the report of a test that fails."""
    config.stash[WORKER_OUTPUT] = deque(maxlen=200)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the worker said lately when a test fails."""
    report = yield
    lines = item.config.stash[WORKER_OUTPUT]
    if report.failed and lines:
        report.sections.append(("Output of the worker", "\n".join(lines)))
    return report


@pytest.fixture
def app() -> Flask:
    """The application with the settings `Testing`: tasks run at once, nothing needs Redis."""
    return create_app("testing")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Sends requests to `app`: `client.get("/")`."""
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    """Runs `flask` commands of `app`: `runner.invoke(args=["routes"])`."""
    return app.test_cli_runner()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis whose database the tests may empty.

    TEST_REDIS_URL names one; else it is a database apart in the Redis that `flask dev` runs at this
    moment; else one is started for the tests.
    """
    running = running_url(PROJECT / "instance")
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url
    elif running:
        yield f"{running.rpartition('/')[0]}/{TEST_DATABASE}"
    else:
        with EmbeddedRedis(tmp_path_factory.mktemp("instance") / "redis") as redis:
            yield redis.url


@pytest.fixture(scope="module")
def empty_redis(redis_url: str) -> str:
    """The same URL, its database emptied once for each file of tests."""
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
    return redis_url


@pytest.fixture
def live_app(empty_redis: str) -> Flask:
    """The application with a real Redis: tasks wait in their queue until a `worker` takes them."""
    return make_live_app(empty_redis)


@pytest.fixture(scope="module")
def worker(empty_redis: str, pytestconfig: pytest.Config) -> Iterator[Child]:
    """The workers and the scheduler, as `flask celery cluster` runs them on a server.

    They are a process of their own, with the code as it is on disk: what a test patches does not
    reach them. They start once for each file of tests. pytest shows their output when a test fails.
    """
    output = pytestconfig.stash[WORKER_OUTPUT]
    output.clear()
    env = {
        **os.environ,
        "FLASK_APP": PACKAGE,
        "FLASK_CONFIG": "testing",
        "FLASK_SKIP_DOTENV": "1",
        "CELERY_TASK_ALWAYS_EAGER": "0",
        "REDIS_URL": empty_redis,
    }
    child = Child(
        "worker",
        [sys.executable, "-m", "flask", "celery", "cluster"],
        env=env,
        cwd=PROJECT,
        on_line=output.append,
    )
    try:
        wait_for_heartbeat(child, empty_redis)
        yield child
    finally:
        child.stop()  # gracefully; after the grace its guard kills it
        child.wait()


def make_live_app(redis_url: str) -> Flask:
    """Make the application for tests with a real Redis at `redis_url`."""
    return create_app("testing", {"REDIS_URL": redis_url, "CELERY_TASK_ALWAYS_EAGER": False})


def wait_for_heartbeat(child: Child, redis_url: str) -> None:
    """Wait until a worker tells that it takes tasks; fail if it ends or says nothing."""
    make_live_app(redis_url)
    pause = 0.1  # seconds between two looks; the child's end interrupts it
    for _ in range(round(WORKER_START / pause)):
        if child.wait(pause):
            pytest.fail(f"The worker ended with exit code {child.returncode}; see its output.")
        if any(beat.alive for beat in celery.heartbeats()):
            return
    pytest.fail(f"No worker was ready after {WORKER_START:.0f} s; see the output.")
