"""Redis on several servers: at each connect the sentinels are asked who is the primary.

Imported for a ``redis+sentinel://`` URL only. The pools are those that one server has.
https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

import functools
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from .errors import NotWritable

#: Seconds that one sentinel may take: a web request may have to ask all of them.
_TIMEOUT = 0.25


class Primary:
    """Where the primary is, as the sentinels knew it when they were asked last (``address``)."""

    def __init__(self, name: str, sentinels: list[tuple[str, int]], options: dict[str, Any]):
        self.name, self.sentinels, self._options = name, sentinels, options
        self.address = ("", 0)

    def ask(self) -> tuple[str, int]:
        """Ask one sentinel after the other. Raises redis-py's ``ConnectionError``."""
        troubles = []
        for place in self.sentinels:
            with Sentinel([place], sentinel_kwargs=self._options) as sentinel:  # type: ignore[no-untyped-call]
                try:
                    self.address = sentinel.discover_master(self.name)
                except MasterNotFoundError as error:
                    # What keeps a sentinel from answering stands behind a dash.
                    troubles.append(str(error).partition(" - ")[2])
                    continue
            # The first from now on: another that is gone does not cost time again.
            self.sentinels = [place, *(one for one in self.sentinels if one != place)]
            return self.address
        if all(troubles):
            raise RedisConnectionError(f"No sentinel answers: {troubles[0]}")
        raise MasterNotFoundError(f"The sentinels know no primary {self.name!r} at the moment.")


class ToPrimary(Connection):
    """A connection to the primary, which leaves a server that takes no writes (any more).

    That of redis-py asks the sentinels once; after a time-out it goes to the same server again.
    """

    def __init__(self, *, primary: Primary, **kwargs: Any) -> None:
        self._primary = primary
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]

    def can_read(self, *args: Any, **kwargs: Any) -> Any:
        """Look for an answer; a pool does before each use, and connects anew after an error."""
        if (self.host, self.port) != self._primary.address:
            raise RedisConnectionError("Another server is the primary by now.")
        return super().can_read(*args, **kwargs)

    def _connect(self) -> Any:
        self.host, self.port = self._primary.ask()
        return super()._connect()  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read an answer. Raises ``NotWritable`` where the next try shall ask the sentinels."""
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            changed = isinstance(error, ReadOnlyError) or str(error).startswith("UNBLOCKED")
            if changed or str(error).startswith("NOREPLICAS"):
                self.disconnect()  # type: ignore[no-untyped-call]
                raise NotWritable(str(error)) from error
            raise


class ToPrimaryOverTLS(ToPrimary, SSLConnection):
    """The same over TLS."""


@functools.cache  # so that all pools of a process hear of another primary at once
def connection_parameters(url: str) -> dict[str, Any]:
    """Read ``redis+sentinel://[user:password@]host[:port],host,host/name/0``, or ``rediss+…``.

    The query's options are those of a plain URL, and the sentinels' own ``sentinel_username`` and
    ``sentinel_password``. ``rediss`` is TLS to both. Raises ``ValueError``.
    """
    parts = urlsplit(url)
    name, _, database = parts.path.strip("/").partition("/")
    owner, at, hosts = parts.netloc.rpartition("@")
    if not (name and hosts and (database or "0").isdecimal()):
        raise ValueError("Write redis+sentinel://[:password@]host,host,host/name/0.")
    places = [urlsplit(f"//{host}") for host in hosts.split(",")]
    sentinels = [(place.hostname or "localhost", place.port or 26379) for place in places]
    scheme = parts.scheme.partition("+")[0]
    plain = f"{scheme}://{owner}{at}{places[0].netloc}/{database}?{parts.query}"
    read: dict[str, Any] = parse_url(plain)  # type: ignore[no-untyped-call]
    options = {key: value for key, value in read.items() if key.startswith("ssl_")}
    options |= {key: read.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    options |= {"ssl": scheme == "rediss", "retry": Retry(NoBackoff(), 0)}
    options |= {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    return read | {  # with a host that no connection uses
        "connection_class": ToPrimaryOverTLS if scheme == "rediss" else ToPrimary,
        "primary": Primary(unquote(name), sentinels, options),
    }
