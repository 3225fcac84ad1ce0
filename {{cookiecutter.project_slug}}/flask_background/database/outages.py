"""Errors that say the database is away or overloaded, and not that a statement is wrong."""

import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, TimeoutError

#: What SQLite says when its file is in use for long, or cannot be had.
_SQLITE = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_READONLY")


def is_away(error: BaseException) -> bool:
    """Tell whether ``error`` comes from a database that cannot be reached or is too busy."""
    if isinstance(error, TimeoutError):
        return True  # all connections of the pool are in use
    if not isinstance(error, DBAPIError):
        return False
    if name := getattr(error.orig, "sqlite_errorname", ""):
        return str(name).startswith(_SQLITE)
    # Without a statement it could not connect; 57… is an administrator's or a shutdown's doing.
    state = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or error.statement is None or state.startswith(("53", "57"))


def once_there[T](ask: Callable[[], T], wait: float) -> T:
    """Return what ``ask`` returns, as soon as the database is not away.

    Raises its ``SQLAlchemyError`` if that says something else, or still comes after ``wait``
    seconds.
    """
    ends = time.monotonic() + wait
    while True:
        try:
            return ask()
        except SQLAlchemyError as error:
            if time.monotonic() >= ends or not is_away(error):
                raise
        time.sleep(0.5)
