"""What `flask dev` prints: its programs' lines behind their names, and where the application is."""

import os
import sys
import threading
from collections.abc import Iterable, Mapping
from http.client import HTTPConnection, HTTPException
from typing import TextIO

import click
from flask_background import Child

COLOURS = ("cyan", "green", "yellow", "magenta", "blue")
OWN_NAME = "dev"
PAUSE = 0.1  # seconds between two questions whether the web server answers
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (what to open for "all addresses")


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: NO_COLOR and FORCE_COLOR decide, else whether `stream` is a terminal.

    See https://no-color.org and https://force-color.org; an empty value counts as unset.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


class Output:
    """Prints lines with a coloured, padded name in front; safe to use from several threads."""

    def __init__(self, names: Iterable[str], stream: TextIO | None = None) -> None:
        """Prepare for the programs of `names`; `stream` is standard output if left out."""
        self._stream = stream or sys.stdout
        self.colour = wants_colour(self._stream)
        names = [OWN_NAME, *names]
        self._width = max(map(len, names))
        self._colours = dict(zip(names[1:], COLOURS, strict=False))
        self._lock = threading.Lock()

    def line(self, name: str, text: str) -> None:
        """Print one line of the program `name`."""
        prefix = click.style(f"{name:<{self._width}} |", fg=self._colours.get(name))
        with self._lock:
            try:
                click.echo(f"{prefix} {text}", file=self._stream, color=self.colour)
            except (OSError, ValueError):
                # The reader of our output has gone (a closed pipe). Keep taking the programs'
                # lines all the same: they would block on a full pipe otherwise.
                return

    def own(self, text: str, *, bold: bool = False) -> None:
        """Print a line of `flask dev` itself."""
        self.line(OWN_NAME, click.style(text, bold=True) if bold else text)


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
