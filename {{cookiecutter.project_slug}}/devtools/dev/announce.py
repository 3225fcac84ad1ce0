"""Say where the application is, as soon as it really answers."""

import threading
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

from flask_background.cluster.child import Child
from .output import Output

PAUSE = 0.1  # seconds between two questions whether the web server answers
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (what to open for "all addresses")


class Announcement:
    """The block with the addresses; after a restart, one line."""

    def __init__(self, output: Output, host: str, port: int, facts: Mapping[str, str]) -> None:
        """Prepare.

        Args:
            output: where to print.
            host: the web server's address.
            port: the web server's port.
            facts: what else to say: a word, and what it is.
        """
        self._output = output
        self._host = EVERYWHERE.get(host, host)
        self._port = port
        address = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}"
        facts = {"Page": f"{address}/", "API": f"{address}/api/v1", **facts, "Stop": "Ctrl-C"}
        self._block = [f"{word:<8} {fact}" for word, fact in facts.items()]

    def follow(self, child: Child) -> None:
        """If `child` is the web server, wait in the background until it answers, and say so."""
        if child.name == "web":
            threading.Thread(target=self._follow, args=(child,), daemon=True).start()

    def _follow(self, web: Child) -> None:
        while not web.wait(PAUSE):
            if self._answers():
                self._say()
                return

    def _answers(self) -> bool:
        connection = HTTPConnection(self._host, self._port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _say(self) -> None:
        self._output.own("Ready", bold=True)
        for line in self._block:
            self._output.own(f"  {line}")
        self._block.clear()
