"""What the programs of `flask dev` say, line by line, each behind its program's name."""

import os
import sys
import threading
from collections.abc import Iterable
from typing import TextIO

import click

COLOURS = ("cyan", "green", "yellow", "magenta", "blue")
OWN_NAME = "dev"


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
