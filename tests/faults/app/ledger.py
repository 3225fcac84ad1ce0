"""The ledger: what really ran, written by the tasks themselves and read without Celery.

One line for each event, in one write to a file that was opened for appending, so that several
processes may write at once and a process that is killed leaves whole lines. Its times are those of
the machine's monotonic clock, which all processes share and nobody sets.
"""

import os
import select
import time
from pathlib import Path


def note(event: str, ref: str) -> None:
    """Write that something happened to the task ``ref``."""
    line = f"{event} {ref} {os.getpid()} {time.monotonic():.3f}\n"
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def has(event: str, ref: str) -> bool:
    """Whether that was written of this task."""
    lines = Path(os.environ["LEDGER"]).read_text(encoding="utf-8").splitlines()
    return any(line.split()[:2] == [event, ref] for line in lines)


def run(ref: str, seconds: float) -> None:
    """Do the work of a task: it begins, takes its time, ends."""
    note("start", ref)
    if seconds:
        # Not time.sleep(): libfaketime, which sets the clock in one scenario, makes that fail.
        select.select([], [], [], seconds)
    note("end", ref)
