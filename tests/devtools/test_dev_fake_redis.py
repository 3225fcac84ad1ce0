"""What stands in for Redis on Windows behaves as Celery needs it; tested on every system."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from devtools.dev.redis_server import EmbeddedRedis, running_url
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, ResponseError
from redis.retry import Retry

WAIT = 30.0  # seconds; reached only when something is broken
ONCE = Retry(NoBackoff(), 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """The stand-in, started in the same way as the real server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEV_REDIS", "fake")
        with EmbeddedRedis(tmp_path_factory.mktemp("instance") / "redis") as redis:
            yield redis


@pytest.fixture
def redis(server: EmbeddedRedis) -> Iterator[Redis]:
    """A client with one connection, which it keeps."""
    with Redis.from_url(server.url, socket_timeout=WAIT, single_connection_client=True) as client:
        client.flushall()
        yield client


def test_it_is_found_while_it_runs(server: EmbeddedRedis) -> None:
    assert running_url(Path(server.data_dir).parent) == server.url
    assert not server.persistent


@pytest.mark.parametrize("protocol", [2, 3])
def test_nobody_uses_it_without_the_password(server: EmbeddedRedis, protocol: int) -> None:
    parts = urlsplit(server.url)
    for password in (None, "", "wrong"):
        with (
            Redis(
                port=parts.port or 0, password=password, protocol=protocol, retry=ONCE
            ) as stranger,
            pytest.raises((AuthenticationError, ResponseError)),
        ):
            stranger.ping()
    with Redis.from_url(server.url, protocol=protocol) as owner:
        assert owner.ping()


@pytest.mark.parametrize(
    "said", [b"PING\r\n", b"*1\r\n$4\r\nPING\r\n*1\r\n$8\r\nFLUSHALL\r\n", b"\r\n", b"*x\r\n",
             b"*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\n", b"*-1\r\n", b"GET / HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_what_comes_before_the_password_does_nothing(server: EmbeddedRedis, said: bytes) -> None:
    with Redis.from_url(server.url) as owner:
        owner.set("kept", "yes")
        with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), WAIT) as line:
            line.sendall(said)
            line.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: line.recv(1000), b""))
        assert answer == b"" or {part[:1] for part in answer.splitlines()} == {b"-"}
        assert owner.get("kept") == b"yes"


@pytest.mark.parametrize("size", [0, 1, 100_000, 8_000_000])
def test_values_of_any_size_come_back(redis: Redis, size: int) -> None:
    value = b"\r\n" + b"\xff" * size
    redis.set("key", value)
    assert redis.get("key") == value


def test_a_blocking_pop_gets_what_another_client_pushes(
    redis: Redis, server: EmbeddedRedis
) -> None:
    popped: list[bytes | str] = []
    thread = threading.Thread(target=lambda: popped.extend(redis.brpop(["queue"], WAIT) or ()))
    thread.start()
    with Redis.from_url(server.url) as other:
        other.lpush("queue", "task")
    thread.join(WAIT)
    assert popped == [b"queue", b"task"]


def test_a_blocking_pop_gives_up_in_time(redis: Redis) -> None:
    assert redis.brpop(["nothing"], timeout=0.05) is None


def test_messages_reach_a_subscriber_that_says_nothing(server: EmbeddedRedis) -> None:
    with Redis.from_url(server.url) as client, client.pubsub() as subscriber:
        subscriber.subscribe("channel")
        first = subscriber.get_message(timeout=WAIT)
        assert first is not None and first["type"] == "subscribe"
        client.publish("channel", "hello")
        message = subscriber.get_message(timeout=WAIT)
        assert message is not None and message["data"] == b"hello"


def test_an_error_is_answered_and_the_connection_goes_on(redis: Redis) -> None:
    connection = redis.client_id()
    redis.set("text", "no number")
    with pytest.raises(ResponseError, match="not an integer"):
        redis.incr("text")
    with pytest.raises(NoScriptError):
        redis.evalsha("0" * 40, 0)
    assert redis.client_id() == connection


def test_a_script_is_loaded_when_it_is_not_known(redis: Redis) -> None:
    script = redis.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert script(keys=["count"], args=[2]) == 2
    assert script(keys=["count"], args=[3]) == 5


def test_a_transaction_is_one_step(redis: Redis) -> None:
    with redis.pipeline() as pipeline:
        pipeline.set("count", 1)
        pipeline.incr("count")
        pipeline.hset("hash", mapping={"x": 1, "y": 2})
        pipeline.hgetall("hash")
        assert pipeline.execute() == [True, 2, 2, {b"x": b"1", b"y": b"2"}]


def test_many_clients_come_and_go(redis: Redis, server: EmbeddedRedis) -> None:
    def count() -> None:
        with Redis.from_url(server.url) as client:
            for _ in range(20):
                client.incr("count")

    threads = [threading.Thread(target=count) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert redis.get("count") == b"400"
