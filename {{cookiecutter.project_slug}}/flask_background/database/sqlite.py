"""SQLite for several processes that read and write at once.

https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#database-locking-behavior-concurrency
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, event

#: What begins so only reads, or begins or ends a transaction itself.
_READS = ("SELECT", "PRAGMA", "EXPLAIN", "BEGIN", "COMMIT", "ROLLBACK")

#: WAL: readers do not wait for the writer. A writer waits 5 seconds for another. What was committed
#: survives the end of any process; the last moment before a loss of power may not.
_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA foreign_keys = ON",
)


def prepare(engine: Engine, _: Mapping[str, Any]) -> None:
    """Set up each connection of ``engine``."""
    event.listen(engine, "connect", _connected)
    event.listen(engine, "before_cursor_execute", _begin)


def _connected(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin` begins, not the driver
    for setting in _SETTINGS:
        connection.execute(setting)


def _begin(_: Any, cursor: Any, statement: str, *__: Any) -> None:
    """Take the writer's lock before the first statement that writes.

    A transaction that began to read cannot always go on to write: SQLite ends it at once when
    somebody else wrote meanwhile. So what is read before sees what others commit, as with
    PostgreSQL, and from the first write on nobody else can write until the end.
    """
    if not cursor.connection.in_transaction and not statement.lstrip().upper().startswith(_READS):
        cursor.execute("BEGIN IMMEDIATE")
