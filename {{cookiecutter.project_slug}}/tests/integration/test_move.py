"""``flask copy-redis``, which takes the data along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from {{ cookiecutter.project_slug }}.dev.redis_server import EmbeddedRedis

DATA: list[tuple[Any, ...]] = [
    ("SET", "string", b"\xff binary"),
    ("SET", "empty", ""),
    ("SET", "short-lived", "x", "EX", 600),
    ("RPUSH", "list", "one", "two", "one"),
    ("SADD", "set", "a", "b"),
    ("ZADD", "zset", 1.5, "a", 2, "b"),
    ("HSET", "hash", "field", b"\x00"),
]


@pytest.fixture(scope="module")
def other_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedRedis(tmp_path_factory.mktemp("other-redis")) as other:
        yield other.url


def test_everything_arrives_as_it_was(live_app: Flask, empty_redis: str, other_url: str) -> None:
    with Redis.from_url(empty_redis) as at, Redis.from_url(other_url) as to:
        at.flushdb()
        to.flushdb()
        for command in DATA:
            at.execute_command(*command)

        result = live_app.test_cli_runner().invoke(args=["copy-redis", "here", other_url])

        assert result.output == f"{len(DATA)} keys copied.\n"
        assert to.get("string") == b"\xff binary"
        assert to.get("empty") == b""
        assert to.lrange("list", 0, -1) == [b"one", b"two", b"one"]
        assert to.smembers("set") == {b"a", b"b"}
        assert to.zrange("zset", 0, -1, withscores=True) == [(b"a", 1.5), (b"b", 2.0)]
        assert to.hgetall("hash") == {b"field": b"\x00"}
        assert 500 < int(str(to.ttl("short-lived"))) <= 600
        assert to.ttl("list") == -1


def test_a_redis_that_is_in_use_is_not_written_to(
    live_app: Flask, empty_redis: str, other_url: str
) -> None:
    with Redis.from_url(other_url) as to:
        to.flushdb()
        to.set("string", "kept")

        result = live_app.test_cli_runner().invoke(args=["copy-redis", empty_redis, other_url])

        assert result.exit_code == 1
        assert "--overwrite" in result.output
        assert to.get("string") == b"kept"


def test_what_is_no_address_is_refused(live_app: Flask, other_url: str) -> None:
    result = live_app.test_cli_runner().invoke(args=["copy-redis", "ftp://:secret@host", other_url])

    assert result.exit_code == 1
    assert "is no address" in result.output
    assert "secret" not in result.output
