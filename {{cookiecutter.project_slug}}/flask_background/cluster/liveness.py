"""Says to the outside that the workers take tasks: to systemd, and by the age of a file.

Each worker beats as long as it takes tasks. Alone it reports by itself; in a cluster it notes the
time on the board that it shares with the parent, which reports for all of them.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Pulse:
    """What becomes of this process's beats: ``report``, unless a cluster gives something else."""

    def __init__(self) -> None:
        #: Whether it was reported at least once.
        self.ready = False
        #: This process's part of the board, if a cluster forked it.
        self.slot: Any = None
        self.beat: Callable[[], None] = self.report

    def report(self) -> None:
        """Tell systemd that all is well, and touch the file that ``CELERY_ALIVE_FILE`` names.

        systemd's protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
        """
        notify_systemd("WATCHDOG=1" if self.ready else "READY=1")
        self.ready = True
        if path := os.environ.get("CELERY_ALIVE_FILE"):
            # A full disk must not stop the worker; the file's age will tell.
            with contextlib.suppress(OSError):
                Path(path).touch()

    def write_to(self, slot: Any) -> None:
        """Let each beat note its time on the cluster's board."""
        self.slot, self.beat = slot, slot.beat


#: Of this process.
pulse = Pulse()


def notify_systemd(message: str) -> None:
    """Send a line to the service manager, if this process was started by one that listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.connect("\0" + address[1:] if address.startswith("@") else address)
        to.send(message.encode())
