"""From the URL of a Redis to a connection: TLS rule, time-outs, bounded pool."""

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import redis
from kombu.utils.url import maybe_sanitize_url
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

#: Seconds that a web request waits for Redis before it answers 503.
REQUEST_TIMEOUT = 0.5

#: Redis is not told of redis-py's version, which would be looked up for each connection, on disk.
NAMELESS: dict[str, Any] = {"driver_info": None}

_CELERY_SOCKET = "redis+socket://"


def with_tls_rule(url: str, *, verify: bool = True, ca_file: str | None = None) -> str:
    """Say in a ``rediss://`` URL how the server's certificate is checked, and return it.

    Broker, result backend and plain clients read the same query parameters, so that one rule
    serves them all. A URL that already says ``ssl_cert_reqs``, or is not TLS, stays as it is.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if not parts.scheme.startswith("rediss") or "ssl_cert_reqs" in query:
        return url
    query["ssl_cert_reqs"] = "required" if verify else "none"
    if verify and ca_file:
        query["ssl_ca_certs"] = ca_file
    return urlunsplit(parts._replace(query=urlencode(query)))


def celery_url(url: str) -> str:
    """Spell the URL of a Unix socket, or of sentinels, for Celery; others stay as they are.

    What is ``unix://[user:password@]/path?db=1`` elsewhere is ``redis+socket://`` there, with
    ``virtual_host`` for the database. The URL of sentinels goes into the query, behind one host.
    """
    parts = urlsplit(url)
    if has_sentinels(url) and "url" not in dict(parse_qsl(parts.query)):
        first = parts.netloc.rpartition("@")[2].partition(",")[0]
        return f"redis+sentinel://{first}/0?{urlencode({'url': url})}"
    if parts.scheme != "unix":
        return url
    query = dict(parse_qsl(parts.query))
    query["virtual_host"] = query.pop("db", "0")
    owner = parts.netloc
    if "password" in query:
        owner = f"{quote(query.pop('username', ''))}:{quote(query.pop('password'), safe='')}@"
    return f"{_CELERY_SOCKET}{owner}{parts.path}?{urlencode(query)}"


def _client_url(url: str) -> str:
    """Undo ``celery_url``, for who writes Celery's own spelling."""
    if has_sentinels(url):
        return dict(parse_qsl(urlsplit(url).query)).get("url", url)
    if not url.startswith(_CELERY_SOCKET):
        return url
    return "unix://" + url.removeprefix(_CELERY_SOCKET).replace("virtual_host=", "db=")


def is_verified(url: str) -> bool:
    """Tell whether the server's certificate is checked, or there is no TLS that has one."""
    parts = urlsplit(url)
    reqs = dict(parse_qsl(parts.query)).get("ssl_cert_reqs", "required")
    return not parts.scheme.startswith("rediss") or reqs.lower().removeprefix("cert_") == "required"


def without_password(url: str) -> str:
    """Return ``url`` fit for people to see: no password, no query."""
    if has_sentinels(url):
        parts = urlsplit(_client_url(url))
        owner, at, hosts = parts.netloc.rpartition("@")
        user = owner.partition(":")[0] + ":***" if ":" in owner else owner
        return f"{parts.scheme}://{user}{at}{hosts}{parts.path}"
    return str(maybe_sanitize_url(url, mask="***"))


def has_sentinels(url: str) -> bool:
    """Whether a URL, in our spelling or Celery's, names sentinels that know the primary."""
    return url.startswith(("redis+sentinel://", "rediss+sentinel://"))


def sentinel_parameters(url: str) -> dict[str, Any]:
    """Return what any pool's connections need to follow the primary; nothing for one server."""
    if not has_sentinels(url):
        return {}
    from .sentinel import connection_parameters  # one server needs nothing of it

    return dict(connection_parameters(_client_url(url)))


def connect_redis(url: str, timeout: float = REQUEST_TIMEOUT, **options: Any) -> redis.Redis:
    """Make a client that fails fast. It connects at the first command, not here.

    ``timeout`` (seconds) bounds both the connect and each answer. A connection that died while it
    was idle is replaced once; a server that does not answer is not asked twice, because the
    caller may be a web request. No more than ``max_connections`` are opened: who needs one more
    waits, ``timeout`` seconds at most. Other ``options`` are those of ``redis.Redis``.
    """
    settings: dict[str, Any] = {
        "decode_responses": True,
        # What is no text was not written by us; it must not keep the rest from being read.
        "encoding_errors": "replace",
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "health_check_interval": 25,
        "max_connections": 20,
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        **NAMELESS,
    }
    url = _client_url(url)
    if not url.startswith("unix:"):
        settings["socket_keepalive"] = True
    settings |= options
    if own := sentinel_parameters(url):
        pool = redis.BlockingConnectionPool(timeout=timeout, **(settings | own))  # type: ignore[no-untyped-call]
    else:
        pool = redis.BlockingConnectionPool.from_url(url, timeout=timeout, **settings)
    return redis.Redis.from_pool(pool)
