"""Stand in for Redis where no server can be had from a wheel, that is on Windows.

    python fake_redis.py --port 6379

This is the TCP server of the package `fakeredis`, with three differences that Celery needs:

- replies leave at once instead of waiting for more to send (TCP_NODELAY);
- an error, such as NOSCRIPT, is answered and the connection goes on, as with a real server;
- a connection has one thread that reads and one that writes, so a blocking command and a message
  that nobody asked for (pub/sub) get through on Windows, too, where the original would wait.

It keeps its data in memory only. It runs as a program of its own, without the application.
"""

import argparse
import contextlib
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
        writer.start()
        try:
            while data := self.connection.recv(READ_SIZE):
                socket.sendall(data)
        except OSError:
            pass  # the client went away without a word
        finally:
            socket.put_response(END)
            writer.join()

    def _send_replies(self) -> None:
        """Write replies and messages in the order in which they arise; errors are replies, too."""
        replies = self.current_client.get_socket().responses
        assert replies is not None  # noqa: S101  (only a closed connection has none)
        with contextlib.suppress(OSError):
            while (reply := replies.get()) is not END:
                self.writer.dump(reply)


class FakeRedisServer(TcpFakeServer):
    """The server: one thread per connection, loopback only."""

    def __init__(self, port: int) -> None:
        """Listen on `port` of 127.0.0.1; 0 takes a free one, see `server_address`."""
        super().__init__(("127.0.0.1", port))
        self.RequestHandlerClass = Handler
        self.daemon_threads = True


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="An in-memory stand-in for Redis")
    parser.add_argument("--port", type=int, required=True)
    with FakeRedisServer(parser.parse_args(arguments).port) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
