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
from collections.abc import Callable, Generator, Iterator
{% if cookiecutter.database == "postgresql" %}
from contextlib import AbstractContextManager, ExitStack, contextmanager
{% else %}
from contextlib import AbstractContextManager, contextmanager
{% endif %}
from pathlib import Path

import pytest
from devtools.dev.redis_server import EmbeddedRedis, running_url
{% if cookiecutter.database == "postgresql" %}
from devtools.dev.services import postgres
{% endif %}
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from flask_background import Child
{% if cookiecutter.database != "none" %}
from flask_migrate import upgrade  # type: ignore[import-untyped]
{% endif %}
from redis import Redis
{% if cookiecutter.database == "postgresql" %}
from sqlalchemy import text
{% endif %}

from {{ cookiecutter.project_slug }} import create_app
{% if cookiecutter.database == "none" %}
from {{ cookiecutter.project_slug }}.extensions import celery
{% else %}
from {{ cookiecutter.project_slug }}.extensions import celery, db
{% endif %}

PROJECT = Path(__file__).parents[1]
PACKAGE = create_app.__module__
TEST_DATABASE = 15  # of the Redis that `flask dev` runs, which itself uses database 0
WORKER_START = 30.0  # seconds
WORKER_OUTPUT = pytest.StashKey[deque[str]]()
StartWorker = Callable[..., AbstractContextManager[Child]]


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


{% if cookiecutter.database == "none" %}
@pytest.fixture
def app() -> Flask:
    """The application with the settings `Testing`: tasks run at once, nothing needs Redis."""
    return create_app("testing")
{% else %}
@contextmanager
def migrated(url: str) -> Iterator[None]:
    """Let DATABASE_URL name this database, with all migrations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        with create_app("testing").app_context():
            upgrade()
            yield
            db.engine.dispose()


@pytest.fixture(scope="session", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    {% if cookiecutter.database == "sqlite" %}
    """A file with all migrations, which DATABASE_URL names for all tests."""
    with migrated(f"sqlite:///{tmp_path_factory.mktemp('database') / 'test.db'}"):
        yield
    {% else %}
    """A PostgreSQL for all tests, with all migrations: TEST_DATABASE_URL, or one of their own."""
    with ExitStack() as stack:
        server = postgres.Server(tmp_path_factory.mktemp("database") / "postgres")
        url = os.environ.get("TEST_DATABASE_URL") or stack.enter_context(server).url
        stack.enter_context(migrated(url))
        yield
    {% endif %}


@pytest.fixture(scope="session")
def live_database(database: None) -> str:
    """The URL of another one beside it, for tests with a real worker: their rows are committed."""
    {% if cookiecutter.database == "sqlite" %}
    url = os.environ["DATABASE_URL"].replace("test.db", "live.db")
    {% else %}
    with create_app("testing").app_context():
        url = db.engine.url.set(database=f"{PACKAGE}_live").render_as_string(hide_password=False)
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {PACKAGE}_live WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {PACKAGE}_live"))
    {% endif %}
    with migrated(url):
        return url


@pytest.fixture
def app() -> Iterator[Flask]:
    """The application with the settings `Testing`: tasks run at once, nothing needs Redis.

    Rows that a test writes are gone after it.
    """
    app = create_app("testing")
    with db.rolled_back(app):
        yield app
{% endif %}


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
    """The URL of a Redis database for the tests, which is empty when they begin.

    TEST_REDIS_URL names one; else it is a database apart in the Redis that `flask dev` runs at this
    moment; else one is started for the tests.
    """
    running = running_url(PROJECT / "instance")
    if not (url := os.environ.get("TEST_REDIS_URL")) and running:
        url = f"{running.rpartition('/')[0]}/{TEST_DATABASE}"
    if url:
        with Redis.from_url(url) as redis:
            redis.flushdb()
        yield url
    else:
        with EmbeddedRedis(tmp_path_factory.mktemp("instance") / "redis") as server:
            yield server.url


{% if cookiecutter.database == "none" %}
@pytest.fixture
def live_app(redis_url: str) -> Flask:
    """The application with a real Redis: tasks wait in their queue until a `worker` takes them."""
    return make_live_app(redis_url)
{% else %}
@pytest.fixture
def live_app(redis_url: str, live_database: str) -> Iterator[Flask]:
    """The application with a real Redis: tasks wait in their queue until a `worker` takes them.

    Others see the rows that it commits, so the tables are emptied after the test.
    """
    app = make_live_app(redis_url, SQLALCHEMY_DATABASE_URI=live_database)
    yield app
    with app.app_context():
        for table in reversed(db.metadata.sorted_tables):
            db.session.execute(table.delete())
        db.session.commit()
        db.engine.dispose()
{% endif %}


@pytest.fixture(scope="session")
def worker(redis_url: str, start_worker: StartWorker) -> Iterator[Child]:
    """The workers and the scheduler, as `flask celery cluster` runs them on a server.

    They are a process of their own, with the code as it is on disk: what a test patches does not
    reach them. They start once for all tests. pytest shows their output when a test fails.
    """
    with start_worker(redis_url) as child:
        yield child


@pytest.fixture(scope="session")
{% if cookiecutter.database == "none" %}
def start_worker(pytestconfig: pytest.Config) -> StartWorker:
{% else %}
def start_worker(pytestconfig: pytest.Config, live_database: str) -> StartWorker:
{% endif %}
    """Start `flask celery cluster` on a Redis, with more variables; it ends with the `with`."""

    @contextmanager
    def start(redis_url: str, **environ: str) -> Iterator[Child]:
        settings = {
            "FLASK_APP": PACKAGE,
            "FLASK_CONFIG": "testing",
            "FLASK_SKIP_DOTENV": "1",
            "CELERY_TASK_ALWAYS_EAGER": "0",
            "REDIS_URL": redis_url,
            {% if cookiecutter.database != "none" %}
            "DATABASE_URL": live_database,
            {% endif %}
        }
        child = Child(
            "worker",
            [sys.executable, "-m", "flask", "celery", "cluster"],
            env=os.environ | settings | environ,
            cwd=PROJECT,
            on_line=pytestconfig.stash[WORKER_OUTPUT].append,
        )
        try:
            make_live_app(redis_url)
            wait_for_heartbeat(child)
            yield child
        finally:
            child.stop()  # gracefully; after the grace its guard kills it
            child.wait()

    return start


def make_live_app(redis_url: str, **settings: object) -> Flask:
    """Make the application for tests with a real Redis at `redis_url`."""
    settings |= {"REDIS_URL": redis_url, "CELERY_TASK_ALWAYS_EAGER": False}
    return create_app("testing", settings)


def wait_for_heartbeat(child: Child) -> None:
    """Wait until a worker tells that it takes tasks; fail if it ends or says nothing."""
    pause = 0.1  # seconds between two looks; the child's end interrupts it
    for _ in range(round(WORKER_START / pause)):
        if child.wait(pause):
            pytest.fail(f"The worker ended with exit code {child.returncode}; see its output.")
        if any(beat.alive for beat in celery.heartbeats()):
            return
    pytest.fail(f"No worker was ready after {WORKER_START:.0f} s; see the output.")
