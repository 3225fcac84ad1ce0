"""Why Redis does not do what it should, in a sentence that may be shown to anybody."""

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)

from .errors import NotCopied, NotWritable

_NOT_SIGNED_IN = "Redis wants a password, and REDIS_URL has none."
_CHANGES_OVER = "Redis is changing over to another server, which takes some seconds."

#: By the type of the error, or by how Redis' own words begin; the first that fits.
_REASONS: tuple[tuple[type[BaseException] | str, str], ...] = (
    (OutOfMemoryError, "Redis is full: its maxmemory is reached."),
    (BusyLoadingError, "Redis is loading its data and will be ready soon."),
    ("NOAUTH", _NOT_SIGNED_IN),
    ("HELLO must be called", _NOT_SIGNED_IN),  # what redis-py says first to such a server
    ("Authentication required", _NOT_SIGNED_IN),
    (AuthenticationError, "Redis refuses the password of REDIS_URL."),
    ("WRONGPASS", "Redis refuses the password of REDIS_URL."),
    (NoPermissionError, "Redis does not allow this user what is needed."),
    ("NOREPLICAS", "Redis is cut off from its copies, and takes nothing without one."),
    (NotCopied, "No copy of Redis has confirmed the task in time."),
    (NotWritable, _CHANGES_OVER),
    ("The sentinels know no primary", _CHANGES_OVER),
    (ReadOnlyError, "Redis is a read-only copy."),
    ("MISCONF", "Redis cannot write to its disk."),
    (TimeoutError, "Redis does not answer in time."),
    (ResponseError, "Redis refuses what it is asked; the log says why."),
)
OTHERWISE = "Redis cannot be reached."


def reason_of(error: BaseException) -> str:
    """Say what is wrong with Redis: by an error, or by what caused it. It names no host."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    for sign, reason in _REASONS:
        for one in chain:
            found = str(one).startswith(sign) if isinstance(sign, str) else isinstance(one, sign)
            if found:
                return reason
    return OTHERWISE
