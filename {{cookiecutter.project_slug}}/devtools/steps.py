"""Which step of how many runs, and for how long: a line that moves, and in a log lines."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

REDRAW = 0.5  # seconds between two looks of the line on a terminal
REMIND = 10.0  # seconds after which a log is told that a step still runs


class Steps:
    """Tells of one step after the other; safe to leave in the middle of one."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        """Prepare for so many steps; `stream` is standard error if left out."""
        self.total = total
        self._stream = stream or sys.stderr
        self._moves = self._stream.isatty()
        self._number = 0
        self._name = ""
        self._since = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Tell of the step that is done inside of ``with``."""
        self.start(name)
        try:
            yield
        except BaseException:
            self.end("failed")
            raise
        self.end()

    def start(self, name: str) -> None:
        """Begin the next step."""
        self._number += 1
        self._name = name
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._draw(self._ended)
        threading.Thread(target=self._go_on, args=(self._ended,), daemon=True).start()

    def end(self, note: str = "") -> None:
        """End the step; a note says what there is to say of it."""
        with self._lock:
            self._ended.set()
            line = self._line() + (f", {note}" if note else "")
            self._write(f"\r{self._fill(line)}\n" if self._moves else f"{line}\n")

    def _go_on(self, ended: threading.Event) -> None:
        while not ended.wait(REDRAW if self._moves else REMIND):
            self._draw(ended)

    def _draw(self, ended: threading.Event) -> None:
        with self._lock:
            if ended.is_set():
                return
            if self._moves:
                self._write(f"\r{self._fill(self._line())}\r")
                if os.name != "nt":
                    # It waits unsent for what somebody else prints, and clears the line for that.
                    self._stream.write("\x1b[K")
            elif time.monotonic() - self._since >= REMIND:
                self._write(f"{self._line()} so far\n")

    def _line(self) -> str:
        total = str(self.total)
        took = duration(time.monotonic() - self._since)
        return f"{self._number:>{len(total)}}/{total} {self._name} ... {took}"

    def _fill(self, line: str) -> str:
        width = shutil.get_terminal_size().columns - 1
        return line[:width].ljust(width)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def duration(seconds: float) -> str:
    """Write a time as people do: 0.3 s, 12 s, 2 min 5 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
