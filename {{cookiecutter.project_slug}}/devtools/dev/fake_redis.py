"""Stand in for Redis where no server can be had from a wheel, that is on Windows.

    REDIS_PASSWORD=secret python fake_redis.py --port 6379

This is the TCP server of the package `fakeredis`, with a password that it insists on, and three
more differences, which Celery needs:

- replies leave at once instead of waiting for more to send (TCP_NODELAY);
- an error, such as NOSCRIPT, is answered and the connection goes on, as with a real server;
- a connection has one thread that reads and one that writes, so a blocking command and a message
  that nobody asked for (pub/sub) get through on Windows, too, where the original would wait.

It keeps its data in memory only. It runs as a program of its own, without the application.
"""

import argparse
import contextlib
import hmac
import os
import threading
from collections.abc import Sequence

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler

READ_SIZE = 65536
END = object()


class Handler(TCPFakeRequestHandler):
    """One connection of a client."""

    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Use blocking reads and writes; the original polls a non-blocking socket."""
        super().setup()
        self.connection.setblocking(True)

    def handle(self) -> None:
        """Execute what the client sends until it goes away."""
        socket = self.current_client.get_socket()
        writer = threading.Thread(target=self._send_replies, daemon=True)
        try:
            data = self._wait_for_password()
            writer.start()
            while data:
                socket.sendall(data)
                data = self.rfile.read1(READ_SIZE)
        except (OSError, ValueError):
            pass  # the client went away without a word, or does not speak Redis' protocol
        finally:
            if writer.is_alive():
                socket.put_response(END)
                writer.join()

    def _wait_for_password(self) -> bytes:
        """Refuse all commands until one brings the password; return that one, or the end's b""."""
        while lines := self._read_command():
            words = lines[2::2]  # behind the number of words, and the length of each
            name = words[0].upper() if words else b""
            given = words[-1] if name == b"AUTH" else b""
            if name == b"HELLO" and len(words) > 4:  # HELLO 3 AUTH default secret
                given = words[4]
            if hmac.compare_digest(given, self.server.password):  # type: ignore[attr-defined]
                return b"".join(line + b"\r\n" for line in lines)
            error = b"WRONGPASS invalid password" if given else b"NOAUTH Authentication required."
            self.wfile.write(b"-" + error + b"\r\n")
        return b""

    def _read_command(self) -> list[bytes]:
        """Read the lines of one command; none at the end of the connection."""
        first = self.rfile.readline().rstrip()
        lines = [first] if first else []
        for _ in range(int(first.removeprefix(b"*") or 0) if lines else 0):
            size = self.rfile.readline().rstrip()
            lines += [size, self.rfile.read(int(size.removeprefix(b"$")) + 2)[:-2]]
        return lines

    def _send_replies(self) -> None:
        """Write replies and messages in the order in which they arise; errors are replies, too."""
        replies = self.current_client.get_socket().responses
        assert replies is not None  # noqa: S101  (only a closed connection has none)
        with contextlib.suppress(OSError):
            while (reply := replies.get()) is not END:
                self.writer.dump(reply)


class FakeRedisServer(TcpFakeServer):
    """The server: one thread per connection, loopback only."""

    def __init__(self, port: int, password: str) -> None:
        """Listen on `port` of 127.0.0.1; 0 takes a free one, see `server_address`."""
        super().__init__(("127.0.0.1", port))
        self.password = password.encode()
        self.fake_server.config[b"requirepass"] = self.password  # what AUTH compares with
        self.RequestHandlerClass = Handler
        self.daemon_threads = True


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="An in-memory stand-in for Redis")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args(arguments).port
    with FakeRedisServer(port, os.environ["REDIS_PASSWORD"]) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
