"""The command ``flask copy-redis``: take the application's data along when it moves.

It copies value by value, so the two servers may be of different versions and kinds; their own
copying (DUMP, MIGRATE, replication) asks for equal ones, or for rights that a hosted Redis denies.
"""

from collections.abc import Callable
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from flask_background import connect_redis, with_tls_rule, without_password
from redis import Redis
from redis.exceptions import RedisError

#: By type: how to read a value, and how to write it again. The arguments: client, key and value.
_TYPES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "string": (lambda at, key: at.get(key), lambda to, key, value: to.set(key, value)),
    "list": (
        lambda at, key: at.lrange(key, 0, -1),
        lambda to, key, value: to.rpush(key, *value),
    ),
    "set": (lambda at, key: at.smembers(key), lambda to, key, value: to.sadd(key, *value)),
    "zset": (
        lambda at, key: at.zrange(key, 0, -1, withscores=True),
        lambda to, key, value: to.zadd(key, dict(value)),
    ),
    "hash": (
        lambda at, key: at.hgetall(key),
        lambda to, key, value: to.hset(key, mapping=value),
    ),
}


@click.command("copy-redis")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--overwrite", is_flag=True, help="TO may hold keys; those of the same name go.")
@with_appcontext
def copy_redis(source: str, target: str, overwrite: bool) -> None:
    """Copy everything from one Redis to another: queues, results, schedule, the application's data.

    FROM and TO are addresses such as rediss://:password@host:6379/0; the word "here" stands for
    the REDIS_URL of this application. Stop web and workers before: what changes meanwhile may be
    left out.
    """
    try:
        with _connect(source) as at, _connect(target) as to:
            held = to.dbsize()
            if held and not overwrite:
                raise click.ClickException(
                    f"{without_password(target)} holds {held} keys. Is it the right one? "
                    "With --overwrite, those of the same name are replaced."
                )
            count = sum(_copy(at, to, key) for key in at.scan_iter(count=1000))
    except RedisError as error:
        raise click.ClickException(f"Redis refused or did not answer: {error}") from None
    click.echo(f"{count} keys copied.")


def _connect(url: str) -> Redis:
    config = current_app.config
    url = config["REDIS_URL"] if url == "here" else url
    try:
        return connect_redis(_with_rule(url), timeout=30, decode_responses=False)
    except ValueError as error:
        raise click.ClickException(f"{without_password(url)} is no address: {error}") from None


def _with_rule(url: str) -> str:
    config = current_app.config
    return with_tls_rule(url, verify=config["REDIS_TLS_VERIFY"], ca_file=config["REDIS_TLS_CA"])


def _copy(at: Redis, to: Redis, key: bytes) -> bool:
    """Copy one key with its time to live. Returns False if it has expired meanwhile."""
    kind = at.type(key).decode()  # type: ignore[union-attr]
    if kind == "none":
        return False
    if kind not in _TYPES:
        raise click.ClickException(f"The key {key!r} is a {kind}, which cannot be copied.")
    read, write = _TYPES[kind]
    lives: Any = at.pttl(key)
    value = read(at, key)
    if value is None or lives == -2 or (kind != "string" and not value):
        return False
    with to.pipeline() as pipe:
        pipe.delete(key)
        write(pipe, key, value)
        if lives > 0:
            pipe.pexpire(key, lives)
        pipe.execute()
    return True
