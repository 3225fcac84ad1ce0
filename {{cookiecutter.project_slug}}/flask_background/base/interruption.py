"""Ending a task's function from outside, by an error that is raised in it.

A signal handler asks for it. The error is raised in the function's own code and nowhere else: the
engine's code around it may be storing a result at that moment.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class TaskEnded(SystemExit):
    """Ends the function of a task that was cancelled; what it has in ``finally`` is done."""


class Interruption:
    """Whether the function of the running task may be interrupted at this moment."""

    def __init__(self) -> None:
        self._inside = False

    @contextmanager
    def possible(self) -> Iterator[None]:
        """Run the function of a task in this."""
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def interrupt(self, error: BaseException) -> None:
        """Raise an error if the main thread is in a task's function; called by signal handlers."""
        if self._inside:
            self._inside = False
            raise error


#: Of this process, for the task in its main thread.
interruption = Interruption()
