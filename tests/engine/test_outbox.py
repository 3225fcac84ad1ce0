"""Tasks that are sent when their transaction commits, and a database beside processes that fork."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sample_models
from celery import shared_task
from devtools.dev.redis_server import EmbeddedRedis
from devtools.dev.services.postgres import Server
from engine_support import (
    StartCluster,
    empty_database,
    frozen,
    run_code,
    wait_until,
    with_database,
)
from flask_background import ConfigurationError, FlaskCelery, UnknownQueue
from flask_background.database import database_url, is_away, once_there
from sample_app import celery, create_app, nothing
from sample_models import Person, db, names, write
from sqlalchemy import Connection, delete, event, func, insert, select, text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and forks")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "postgres") as server:
        yield server


@pytest.fixture
def postgres(server: Server) -> str:
    return server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'rows.db'}"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def settings(address: str, own_redis: EmbeddedRedis) -> dict[str, Any]:
    return with_database(own_redis.url, address)


@pytest.fixture
def app(settings: dict[str, Any]) -> Iterator[FlaskCelery]:
    with empty_database(settings) as celery:
        yield celery


def waiting() -> int:
    return celery.queue_lengths()["default"]


def sent() -> list[str]:
    """The first arguments of the tasks in the queue, the oldest first."""
    messages = [json.loads(text) for text in celery.redis.lrange(celery.key("default"), 0, -1)]
    bodies = [json.loads(base64.b64decode(message["body"])) for message in messages]
    return [body[0][1][0] for body in reversed(bodies)]


def rows_of_outbox() -> int:
    return db.outbox.waiting()


@shared_task
def add_shared(name: str) -> None:
    """A task that knows no application."""


def test_a_task_is_sent_when_its_transaction_commits(app: FlaskCelery) -> None:
    db.session.add(Person(name="Ada"))
    future = app.submit(nothing, on_commit=True)
    assert waiting() == 0
    db.session.commit()
    assert waiting() == 1
    assert rows_of_outbox() == 0
    info = app.task_info(future.id)
    assert info is not None and info.state == "PENDING"


def test_a_rollback_sends_nothing(app: FlaskCelery) -> None:
    app.submit(nothing, on_commit=True)
    db.session.rollback()
    db.session.add(Person(name="Ada"))
    db.session.commit()
    assert waiting() == rows_of_outbox() == 0


def test_a_session_that_is_closed_without_a_commit_sends_nothing(app: FlaskCelery) -> None:
    app.submit(nothing, on_commit=True)
    db.session.remove()
    db.session.commit()
    assert waiting() == rows_of_outbox() == 0


def test_a_commit_that_fails_sends_nothing(app: FlaskCelery) -> None:
    db.session.add(Person(id=1, name="Ada"))
    db.session.commit()
    db.session.expunge_all()
    db.session.add(Person(id=1, name="Eve"))
    app.submit(nothing, on_commit=True)
    with pytest.raises(Exception, match=r"(?i)unique"):
        db.session.commit()
    db.session.rollback()
    assert waiting() == rows_of_outbox() == 0


def test_what_a_savepoint_takes_back_is_not_sent(app: FlaskCelery) -> None:
    app.submit(write, "kept", on_commit=True)
    savepoint = db.session.begin_nested()
    app.submit(write, "lost", on_commit=True)
    with db.session.begin_nested():
        app.submit(write, "lost with it", on_commit=True)
    savepoint.rollback()
    with db.session.begin_nested():
        app.submit(write, "kept too", on_commit=True)
    assert waiting() == 0
    db.session.commit()
    assert waiting() == 2


def test_a_shared_task_waits_for_the_commit_too(app: FlaskCelery) -> None:
    task: Any = app.tasks[add_shared.name]
    task.delay_on_commit("Ada")
    app.submit(task, "Bob", on_commit=True, countdown=100)
    assert app.queue_lengths()["default"] == 0
    db.session.commit()
    assert waiting() == 2  # one of them for later


def test_a_row_is_an_argument_once_it_was_flushed(
    app: FlaskCelery, settings: dict[str, Any], start: StartCluster
) -> None:
    ada = Person(name="Ada")
    db.session.add(ada)
    db.session.flush()
    future = app.submit(sample_models.greet, ada, on_commit=True)
    db.session.commit()
    start(settings, "cluster", workers=2)
    assert future.result(timeout=20) == ["hello Ada"]


def test_an_unknown_queue_is_refused_at_the_call(app: FlaskCelery) -> None:
    with pytest.raises(UnknownQueue):
        app.submit(nothing, queue="nowhere", on_commit=True)


def test_tasks_are_sent_in_the_order_of_commits(app: FlaskCelery) -> None:
    """Not in the order of the calls: what is written first may be committed last."""
    called, committed = threading.Event(), threading.Event()

    def late() -> None:
        with app.flask_app.app_context():
            app.submit(write, "called first", on_commit=True)
            called.set()
            committed.wait(20)
            db.session.commit()

    thread = threading.Thread(target=late)
    thread.start()
    called.wait(20)
    app.submit(write, "committed first", on_commit=True)
    db.session.commit()
    committed.set()
    thread.join()
    assert sent() == ["committed first", "called first"]


def test_many_who_commit_at_once_lose_nothing(app: FlaskCelery) -> None:
    def commit(number: int) -> None:
        with app.flask_app.app_context():
            for part in range(10):
                app.submit(write, f"{number}-{part}", on_commit=True)
                db.session.commit()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(commit, range(6)))
    db.outbox.send_waiting()
    assert sorted(sent()) == sorted(f"{one}-{part}" for one in range(6) for part in range(10))
    for one in range(6):
        assert [name for name in sent() if name.startswith(f"{one}-")] == [
            f"{one}-{part}" for part in range(10)
        ]


def test_the_number_of_a_row_that_is_gone_is_not_given_again(app: FlaskCelery) -> None:
    """A sender goes on behind the last row that it sent: what came later would be sent before."""
    table, numbers = db.outbox.table, []
    for _ in range(2):
        row = db.session.execute(insert(table).values(message="").returning(table.c.id))
        numbers.append(row.scalar_one())
        db.session.execute(delete(table))
    assert numbers[0] < numbers[1]


def test_what_was_committed_without_redis_is_sent_when_it_is_back(
    app: FlaskCelery, settings: dict[str, Any], own_redis: EmbeddedRedis, start: StartCluster
) -> None:
    own_redis.stop()
    for number in range(5):
        app.submit(write, f"kept {number}", on_commit=True)
        db.session.commit()
    assert rows_of_outbox() == 5

    own_redis.start()
    start(settings, "cluster", workers=2)

    wait_until(lambda: len(fresh_names()) == 5, "the tasks to run")
    assert sorted(fresh_names()) == [f"kept {number}" for number in range(5)]
    wait_until(lambda: rows_of_outbox() == 0, "the rows to go")


def test_a_database_that_can_only_be_read_sends_nothing_twice(
    app: FlaskCelery, settings: dict[str, Any], own_redis: EmbeddedRedis
) -> None:
    own_redis.stop()
    app.submit(write, "once", on_commit=True)
    db.session.commit()
    own_redis.start()
    postgresql = db.engine.dialect.name == "postgresql"

    with db.engine.connect() as other:
        other.execute(text("LOCK TABLE outbox IN SHARE MODE" if postgresql else "BEGIN IMMEDIATE"))
        if postgresql:
            event.listen(db.engine, "begin", wait_a_second)
        db.outbox.send_waiting()
        db.outbox.send_waiting()

    db.outbox.send_waiting()
    assert (sent(), rows_of_outbox()) == (["once"], 0)


def test_a_worker_that_loses_redis_while_it_sends_lets_others_write(
    app: FlaskCelery, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else a worker sends waits for Redis, but this has a lock: SQLite's, for all writers."""
    own_redis.stop()
    app.submit(write, "late", on_commit=True)
    db.session.commit()
    own_redis.start()
    monkeypatch.setattr(app, "patient", False)
    app.be_patient()
    app.after_fork()
    app.submit(write, "early")  # Kombu waits without end only for a connection that it had

    def lose_redis(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("DELETE"):
            own_redis.stop()

    event.listen(db.engine, "after_cursor_execute", lose_redis)
    sender = threading.Thread(target=db.outbox.send_waiting)
    sender.start()
    sender.join(20)
    gave_up = not sender.is_alive()
    event.remove(db.engine, "after_cursor_execute", lose_redis)
    own_redis.start()
    sender.join(20)

    assert gave_up
    assert rows_of_outbox() == 1

    def sent_now() -> bool:  # when the lock of the sender that lost Redis has ended
        db.outbox.send_waiting()
        return rows_of_outbox() == 0

    wait_until(sent_now, "the row to be sent")
    assert sent()[-1:] == ["late"]


def wait_a_second(connection: Connection) -> None:
    connection.execute(text("SET LOCAL statement_timeout = '1s'"))


def test_who_is_killed_between_commit_and_sending_loses_nothing(
    app: FlaskCelery, settings: dict[str, Any], start: StartCluster, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    code = f"m.commit_rows({str(ledger)!r}, ['one0', 'one1', 'one2'], die_at=3)"
    assert run_code(settings, code) == -signal.SIGKILL
    assert (waiting(), rows_of_outbox()) == (2, 1)

    start(settings, "cluster", workers=2)

    ended = "end one{0} ".format
    wait_until(ledger.exists, "a task to begin")
    wait_until(lambda: all(ended(n) in ledger.read_text() for n in range(3)), "the tasks to run")
    assert "undone" not in ledger.read_text()
    assert "alone" not in ledger.read_text()


def fresh_names() -> list[str]:
    """The names as they are now."""
    db.session.rollback()
    return names()


def test_a_process_that_was_forked_uses_none_of_its_parents_connections(app: FlaskCelery) -> None:
    assert db.session.scalar(select(func.count()).select_from(Person)) == 0
    db.session.remove()  # its connection is in the pool now
    child = os.fork()
    if child == 0:
        try:
            for _ in range(20):
                write("child")
            os._exit(0)
        except BaseException:
            os._exit(1)
    for _ in range(20):
        write("parent")
    assert os.waitpid(child, 0)[1] == 0
    assert len(fresh_names()) == 40


def test_an_eager_task_runs_after_the_commit(settings: dict[str, Any]) -> None:
    with create_app({**settings, "CELERY_TASK_ALWAYS_EAGER": True}).app_context():
        db.drop_all()
        db.create_all()
        celery.submit(write, "Ada", on_commit=True)
        assert names() == []
        db.session.commit()
        assert names() == ["Ada"]
        celery.submit(write, "Bob", on_commit=True)
        db.session.rollback()
        assert names() == ["Ada"]
        db.session.remove()
        db.engine.dispose()


def test_without_a_database_nothing_waits_for_a_commit() -> None:
    app = create_app({"REDIS_URL": "redis://127.0.0.1:1/0"})
    with app.app_context(), pytest.raises(ConfigurationError, match="needs a database"):
        celery.submit(nothing, on_commit=True)


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'rows.db'}"
    settings = {"REDIS_URL": "redis://127.0.0.1:1/0", "SQLALCHEMY_DATABASE_URI": uri}
    with create_app(settings).app_context():
        asked = ["journal_mode", "foreign_keys", "busy_timeout"]
        said = [db.session.scalar(text(f"PRAGMA {name}")) for name in asked]
        db.session.remove()
    assert said == ["wal", 1, 5000]


def test_a_statement_that_takes_too_long_is_ended(postgres: str) -> None:
    uri = database_url(postgres, "postgresql")
    settings = {"REDIS_URL": "redis://127.0.0.1:1/0", "SQLALCHEMY_DATABASE_URI": uri}
    with create_app({**settings, "DATABASE_STATEMENT_TIMEOUT": 1}).app_context():
        with pytest.raises(Exception, match="statement timeout"):
            db.session.execute(text("SELECT pg_sleep(30)"))
        db.session.remove()
        db.engine.dispose()


@pytest.mark.parametrize("connected", ["not yet", "before", "in a transaction"])
def test_a_request_gives_a_server_up_that_stands_still(
    connected: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit of its own the request would wait as long as the server stands still."""
    monkeypatch.setattr("flask_background.database.connections._CONNECT_TIMEOUT", 300)
    uri = database_url(server.url, "postgresql")
    settings = {"REDIS_URL": "redis://127.0.0.1:1/0", "SQLALCHEMY_DATABASE_URI": uri}
    app = create_app({**settings, "DATABASE_STATEMENT_TIMEOUT": 1})
    at_work, still = threading.Event(), threading.Event()

    def request() -> None:
        with app.test_request_context():
            if connected == "in a transaction":
                db.session.execute(text("SELECT 1"))
            at_work.set()
            still.wait(20)
            db.session.execute(text("SELECT 1"))

    if connected == "before":
        with app.app_context():
            db.session.execute(text("SELECT 1"))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(request)
        at_work.wait(20)
        with frozen(server):
            still.set()
            error = answer.exception(timeout=20)
    assert error and is_away(error), error
    with app.test_request_context():  # and it is back
        once_there(lambda: db.session.execute(text("SELECT 1")), 20)
        db.session.remove()
        db.engine.dispose()


@pytest.mark.parametrize(
    ("given", "kind", "made"),
    [
        ("postgres://u:p@h/n", "postgresql", "postgresql+psycopg://u:p@h/n"),
        (
            "postgresql://h/n?sslmode=require",
            "postgresql",
            "postgresql+psycopg://h/n?sslmode=require",
        ),
        ("sqlite:////a/b.db", "sqlite", "sqlite:////a/b.db"),
    ],
)
def test_an_address_gets_the_driver_that_is_installed(given: str, kind: str, made: str) -> None:
    assert database_url(given, kind) == made


@pytest.mark.parametrize(("given", "kind"), [("", "sqlite"), ("mysql://h/n", "sqlite"),
    ("sqlite:///a.db", "postgresql"), ("nonsense", "postgresql")])  # fmt: skip
def test_another_address_is_refused_without_being_shown(given: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r"^is not ") as refused:
        database_url(given, kind)
    assert not given or given not in str(refused.value)
