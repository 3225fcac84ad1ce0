"""``flask copy-redis``, which takes the data along."""

from collections.abc import Iterator
from typing import Any

import pytest
from devtools.dev.redis_server import EmbeddedRedis
from flask.testing import FlaskCliRunner
from redis import Redis

from {{ cookiecutter.project_slug }} import create_app

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
def old_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedRedis(tmp_path_factory.mktemp("old-redis")) as server:
        yield server.url


@pytest.fixture(scope="module")
def new_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedRedis(tmp_path_factory.mktemp("new-redis")) as server:
        yield server.url


@pytest.fixture
def runner(old_url: str, new_url: str) -> FlaskCliRunner:
    """Commands of the application that is on the old Redis; the new one is empty."""
    for url in (old_url, new_url):
        with Redis.from_url(url) as redis:
            redis.flushdb()
    return create_app("testing", {"REDIS_URL": old_url}).test_cli_runner()


def test_everything_arrives_as_it_was(runner: FlaskCliRunner, old_url: str, new_url: str) -> None:
    with Redis.from_url(old_url) as at, Redis.from_url(new_url) as to:
        for command in DATA:
            at.execute_command(*command)

        result = runner.invoke(args=["copy-redis", "here", new_url])

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
    runner: FlaskCliRunner, old_url: str, new_url: str
) -> None:
    with Redis.from_url(new_url) as to:
        to.set("string", "kept")

        result = runner.invoke(args=["copy-redis", old_url, new_url])

        assert result.exit_code == 1
        assert "--overwrite" in result.output
        assert to.get("string") == b"kept"


def test_what_is_no_address_is_refused(runner: FlaskCliRunner, new_url: str) -> None:
    result = runner.invoke(args=["copy-redis", "ftp://:secret@host", new_url])

    assert result.exit_code == 1
    assert "is no address" in result.output
    assert "secret" not in result.output
