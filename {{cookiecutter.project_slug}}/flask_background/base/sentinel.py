"""Redis on several servers: at each connect the sentinels are asked who is the primary.

Imported for a ``redis+sentinel://`` URL only. The pools are those that one server has.
https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from typing import Any
from urllib.parse import unquote, urlsplit

from redis.backoff import NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.exceptions import ReadOnlyError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection

from .errors import NotWritable

#: Seconds that one sentinel may take: a web request may have to ask all of them.
_TIMEOUT = 0.25


class Primary:
    """Where the primary is; what redis-py's connections ask their pool, which need not be one."""

    is_master = True
    check_connection = False

    def __init__(self, name: str, sentinels: list[tuple[str, int]], options: dict[str, Any]):
        self.service_name = name
        self._sentinels, self._options = sentinels, options

    def get_master_address(self) -> tuple[str, int]:
        """Ask one sentinel after the other. Raises redis-py's ``MasterNotFoundError``."""
        with Sentinel(self._sentinels, sentinel_kwargs=self._options) as sentinels:  # type: ignore[no-untyped-call]
            address: tuple[str, int] = sentinels.discover_master(self.service_name)
            clients = [one.connection_pool.connection_kwargs for one in sentinels.sentinels]
        # The one that answered is the first now: another that is gone does not cost time again.
        self._sentinels = [(one["host"], one["port"]) for one in clients]
        return address


class ToPrimary(SentinelManagedConnection):
    """A connection to the primary, which leaves a server that takes no writes (any more)."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read an answer. Raises ``NotWritable`` where the next try shall ask the sentinels."""
        try:
            return super(SentinelManagedConnection, self).read_response(*args, **kwargs)
        except ResponseError as error:
            changed = isinstance(error, ReadOnlyError) or str(error).startswith("UNBLOCKED")
            if changed or str(error).startswith("NOREPLICAS"):
                self.disconnect()  # type: ignore[no-untyped-call]
                raise NotWritable(str(error)) from error
            raise


class ToPrimaryOverTLS(ToPrimary, SSLConnection):
    """The same over TLS."""


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
        "connection_pool": Primary(unquote(name), sentinels, options),
    }
