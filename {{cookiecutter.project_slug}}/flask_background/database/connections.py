"""``Database``: Flask-SQLAlchemy, set up for web processes that fork and workers beside them."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase

from ..core import find_core
from .outbox import Outbox

#: What the address of each kind begins with for SQLAlchemy.
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
#: For those that ask for a moment: the migrations of a release, a person with psql.
_RESERVED = 2
#: Seconds that a request waits for a free connection, and that connecting may take.
_POOL_TIMEOUT, _CONNECT_TIMEOUT = 0.8, 2


def database_url(text: str, kind: str) -> str:
    """Return an address in the form that SQLAlchemy wants.

    ``kind`` is ``sqlite`` or ``postgresql``. Raises ``ValueError``, whose text goes on after the
    name of the setting, and never holds the address, for it may have a password.
    """
    example = {
        "sqlite": "sqlite:////var/lib/app/app.db",
        "postgresql": "postgresql://user:password@host:5432/name",
    }[kind]
    if not text:
        raise ValueError(f"is not set. Set it to your database, such as {example}.")
    try:
        url = make_url(text)
    except ArgumentError:
        url = None
    given = url.drivername.partition("+")[0] if url else ""
    if url is None or {"postgres": "postgresql"}.get(given, given) != kind:
        raise ValueError(f"is not the address of such a database. Write {example}.")
    return url.set(drivername=_DRIVERS[kind]).render_as_string(hide_password=False)


class Database(SQLAlchemy):
    """Flask-SQLAlchemy for models that are declared on a ``DeclarativeBase`` of the application.

    Connections are never shared with a process that was forked, and what is sent ``on_commit``
    waits in the table ``outbox`` until its transaction was committed.
    """

    def __init__(self, base: type[DeclarativeBase]) -> None:
        # A session on a connection that has a transaction (in tests) works in savepoints of that.
        options = {"join_transaction_mode": "create_savepoint"}
        super().__init__(metadata=base.metadata, session_options=options)
        self.Model = base  # type: ignore[assignment]
        self.outbox = Outbox(self)
        #: The engines of all applications of this process.
        self.made: weakref.WeakSet[Engine] = weakref.WeakSet()
        if hasattr(os, "register_at_fork"):
            me = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _forget_connections(me()))

    def init_app(self, app: Flask) -> None:
        """Set up the connections of ``app``, whose Celery was set up before."""
        app.config.setdefault("SQLALCHEMY_ENGINE_OPTIONS", _options(app))
        super().init_app(app)
        with app.app_context():
            self.made.add(self.engine)
            # Only the module of the kind that was chosen is there, as is only its driver.
            kind = import_module(f".{self.engine.dialect.name}", __package__)
            kind.prepare(self.engine, app.config)
        self.outbox.init_app(find_core(app))

    @contextmanager
    def rolled_back(self, app: Flask) -> Iterator[None]:
        """Take back at the end whatever ``app`` wrote meanwhile, committed or not; for tests."""
        with app.app_context():
            engines: Any = self.engines  # a dict
        engine = engines[None]
        with engine.connect() as connection:
            transaction = connection.begin()
            engines[None] = connection
            try:
                yield
            finally:
                engines[None] = engine
                transaction.rollback()
        engine.dispose()


def _options(app: Flask) -> dict[str, Any]:
    """Return the settings of the pool of each process."""
    if make_url(app.config["SQLALCHEMY_DATABASE_URI"]).drivername != _DRIVERS["postgresql"]:
        return {}
    timeout = app.config.setdefault("DATABASE_STATEMENT_TIMEOUT", 30)
    return {
        "pool_size": 2,
        "max_overflow": max(0, web_connections(app) - 2),
        "pool_timeout": _POOL_TIMEOUT,
        "pool_pre_ping": True,
        "pool_use_lifo": True,
        "connect_args": {
            "connect_timeout": _CONNECT_TIMEOUT,
            "application_name": app.name,
            "options": f"-c statement_timeout={timeout}s -c timezone=utc",
        },
    }


def web_connections(app: Flask) -> int:
    """Return how many connections a web process may open.

    While a release goes on, the old processes and the new ones are there at once. A place of a
    worker needs two: its task's, and the one that looks for what waits in the outbox.
    """
    allowed: int = app.config.get("DATABASE_MAX_CONNECTIONS", 20)
    most = (allowed - _RESERVED) // 2
    workers = find_core(app).options.workers
    places = sum(int(worker.options.get("concurrency", 1)) for worker in workers)
    processes = int(os.environ.get("WEB_CONCURRENCY", "1"))
    return max(1, (most - 2 * places) // processes)


def _forget_connections(database: "Database | None") -> None:
    """Drop the connections that the parent goes on using, without a word to the server."""
    for engine in database.made if database else ():
        engine.dispose(close=False)
