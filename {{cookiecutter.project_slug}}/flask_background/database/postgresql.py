"""A PostgreSQL that stands still: requests give it up within a second.

It takes connections and answers nothing, on whatever machine it is: libpq waits 2 seconds at least
to connect, and for an answer without end. Tasks and commands do wait, as nobody waits for them.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
from flask import has_request_context
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

#: Seconds for the sign of life that a connection gives before it is used, and for a new one.
_PING, _CONNECT = 0.3, 0.6

#: Who waits for a connection can stop to wait, the attempt itself goes on.
_attempts = ThreadPoolExecutor(16, "connect")


class Connection(psycopg.Connection[Any]):
    """A connection that waits so long for an answer within a request."""

    patience = _CONNECT

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for an answer; close the connection if none came in time."""
        if timeout is None and has_request_context():
            timeout = self.patience
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.OperationalError:
            if self.info.transaction_status is TransactionStatus.ACTIVE:
                self.close()
            raise


def prepare(engine: Engine, settings: Mapping[str, Any]) -> None:
    """Set up the connections of ``engine``."""

    # The server ends a statement before.
    def taken(connection: Connection, *_: object) -> None:
        connection.patience = settings["DATABASE_STATEMENT_TIMEOUT"] + 1

    def given_back(connection: Connection | None, _: object) -> None:
        if connection:
            connection.patience = _PING

    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "checkout", taken)
    event.listen(engine, "checkin", given_back)


def _connect(_: object, __: object, args: Any, options: Any) -> Connection:
    if not has_request_context():
        return Connection.connect(*args, **options)
    attempt = _attempts.submit(Connection.connect, *args, **options)
    try:
        return attempt.result(_CONNECT)
    except TimeoutError:
        attempt.add_done_callback(_drop)
        raise psycopg.OperationalError("PostgreSQL does not answer") from None


def _drop(attempt: Future[Connection]) -> None:
    if not attempt.exception():
        attempt.result().close()
