"""Says to the outside that the workers take tasks: to systemd, and by the age of a file.

Each worker beats from the loop that takes its tasks. Alone it reports by itself; in a cluster it
writes the time into memory shared with the parent, which reports for all of them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

_TIME = struct.Struct("d")


class Board:
    """The times of the last beats of several processes, in memory that forks share."""

    def __init__(self, places: int) -> None:
        self._memory = mmap.mmap(-1, _TIME.size * places)

    def write(self, place: int, moment: float) -> None:
        """Note a beat at ``moment`` (``time.monotonic()``); 0 means none yet."""
        _TIME.pack_into(self._memory, _TIME.size * place, moment)

    def read(self, place: int) -> float:
        """Return the moment of the last beat; 0 for none yet."""
        return float(_TIME.unpack_from(self._memory, _TIME.size * place)[0])


_ready = False


def report() -> None:
    """Tell systemd that all is well, and touch the file that ``CELERY_ALIVE_FILE`` names.

    systemd's protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    global _ready
    notify_systemd("WATCHDOG=1" if _ready else "READY=1")
    _ready = True
    path = os.environ.get("CELERY_ALIVE_FILE")
    if path:
        # A full disk must not stop the worker; the file's age will tell.
        with contextlib.suppress(OSError):
            Path(path).touch()


def notify_systemd(message: str) -> None:
    """Send a line to the service manager, if this process was started by one that listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.connect("\0" + address[1:] if address.startswith("@") else address)
        to.send(message.encode())


_beat: Callable[[], None] = report


def beat() -> None:
    """Note that this worker takes tasks."""
    _beat()


def beat_on(board: Board, place: int) -> None:
    """Let :func:`beat` write to a board from now on; called in a forked worker."""
    global _beat

    def write() -> None:
        board.write(place, time.monotonic())

    _beat = write
