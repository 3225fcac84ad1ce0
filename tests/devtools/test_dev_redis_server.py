"""The embedded Redis: a real server that keeps its data and is found by whoever looks for it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from devtools.dev import redis_server
from devtools.dev.redis_server import EmbeddedRedis, RedisStartError, running_url
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such server for Windows")

WAIT = 30.0  # seconds; reached only when something is broken
ONCE = Retry(NoBackoff(), 0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A running server with its data in `tmp_path/redis`."""
    with EmbeddedRedis(tmp_path / "redis") as redis:
        yield redis


def ended_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write_record(folder: Path, url: str, pid: int) -> None:
    (folder / "redis.json").write_text(json.dumps({"url": url, "pid": pid}))


def test_it_is_set_up_for_a_queue_and_for_this_machine_only(server: EmbeddedRedis) -> None:
    with Redis.from_url(server.url) as redis:
        asked = ["bind", "appendonly", "save", "maxmemory-policy", "protected-mode"]
        said = redis.config_get(*asked)
    assert [said[name] for name in asked] == ["127.0.0.1", "yes", "", "noeviction", "yes"]


def test_nobody_uses_it_without_the_password(server: EmbeddedRedis) -> None:
    """Another account of the machine reaches the port; it does not know what is in instance/."""
    parts = urlsplit(server.url)
    assert parts.port and parts.password and len(parts.password) >= 32
    for password in (None, "", "wrong"):
        with (
            Redis(port=parts.port, password=password, retry=ONCE) as stranger,
            pytest.raises((AuthenticationError, ResponseError)),
        ):
            stranger.ping()


def test_only_its_owner_can_read_the_password_and_the_data(server: EmbeddedRedis) -> None:
    password = str(urlsplit(server.url).password)
    holders = [path for path in server.data_dir.parent.rglob("*")
               if path.is_file() and password in path.read_text(errors="replace")]  # fmt: skip
    assert server.record_file in holders
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}
    assert server.data_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_list_of_processes_does_not_tell_the_password(server: EmbeddedRedis) -> None:
    password = str(urlsplit(server.url).password).encode()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert password not in process.read_bytes()
        except OSError:
            continue  # it has ended


def test_the_redis_of_the_version_before_is_found_and_followed(tmp_path: Path) -> None:
    """It had no password; the next start gives it one."""
    with EmbeddedRedis(tmp_path / "redis") as old:
        url = old.url
        with Redis.from_url(url) as redis:
            redis.config_set("requirepass", "")
        bare = f"redis://127.0.0.1:{urlsplit(url).port}/0"
        write_record(tmp_path, bare, os.getpid())
        assert running_url(tmp_path) == bare
    write_record(tmp_path, bare, ended_pid())
    with EmbeddedRedis(tmp_path / "redis") as new:
        assert urlsplit(new.url).password
        assert urlsplit(new.url).port == urlsplit(url).port


def test_data_and_port_are_the_same_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as first, Redis.from_url(first.url) as redis:
        redis.set("kept", "yes")
    with EmbeddedRedis(tmp_path / "redis") as second, Redis.from_url(second.url) as redis:
        assert redis.get("kept") == b"yes"
    assert first.url == second.url


def test_a_taken_port_is_left_to_its_owner(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as first:
        pass
    port = int(first.url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)), EmbeddedRedis(tmp_path / "redis") as second:
        assert first.url != second.url


def test_it_is_found_while_it_runs(tmp_path: Path) -> None:
    assert running_url(tmp_path) is None
    with EmbeddedRedis(tmp_path / "redis") as server:
        assert running_url(tmp_path) == server.url
    assert running_url(tmp_path) is None


def test_a_second_one_for_the_same_data_is_refused(server: EmbeddedRedis) -> None:
    with pytest.raises(RedisStartError) as caught:
        EmbeddedRedis(server.data_dir).start()
    text = str(caught.value)
    assert f"@127.0.0.1:{urlsplit(server.url).port}/0" in text
    assert str(os.getpid()) in text
    assert str(urlsplit(server.url).password) not in text


def test_a_record_whose_process_has_ended_does_not_count(
    tmp_path: Path, server: EmbeddedRedis
) -> None:
    write_record(tmp_path, server.url, ended_pid())
    assert running_url(tmp_path) is None


def test_a_record_whose_server_is_silent_does_not_count(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_record(tmp_path, f"redis://127.0.0.1:{silent.getsockname()[1]}/0", os.getpid())
        assert running_url(tmp_path) is None


def test_a_stale_record_is_replaced(tmp_path: Path) -> None:
    write_record(tmp_path, "redis://127.0.0.1:1/0", ended_pid())
    with EmbeddedRedis(tmp_path / "redis") as server:
        assert running_url(tmp_path) == server.url


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 5}', '{"url": "nowhere", "pid": 1}'])
def test_a_record_that_makes_no_sense_does_not_count(tmp_path: Path, text: str) -> None:
    (tmp_path / "redis.json").write_text(text)
    assert running_url(tmp_path) is None


def test_a_failed_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonlydir").write_text("a file where the server needs a folder")
    with pytest.raises(RedisStartError, match=r"ended at its start with exit code 1: .*appendonly"):
        EmbeddedRedis(tmp_path / "redis").start()
    assert running_url(tmp_path) is None


def test_it_ends_with_its_owner_even_if_that_is_killed(tmp_path: Path) -> None:
    folder = Path(redis_server.__file__).parents[2]
    code = (
        f"import sys, time; from {redis_server.__name__} import EmbeddedRedis; "
        "print(EmbeddedRedis(sys.argv[1] + '/redis').__enter__().url, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    owner = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        port = int(owner.stdout.readline().rpartition(":")[2].partition("/")[0])
        connection = socket.create_connection(("127.0.0.1", port), WAIT)
        assert running_url(tmp_path) is not None
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    with connection:
        assert connection.recv(1) == b""
    assert running_url(tmp_path) is None
