"""Run the programs of `flask dev` side by side until one Ctrl-C stops them all."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

from flask_background import Child

from .screen import Output

# What stops `flask dev`; SIGHUP is a closed terminal, SIGBREAK is Ctrl-Break on Windows.
STOP_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
]
# Seconds between a graceful stop and the kill: more than `flask celery cluster` allows itself.
GRACE = 40.0
# Seconds from one start to the next of a program that signals end.
PAUSE = 3.0
# Windows runs signal handlers only between two waits.
LONGEST_WAIT = 0.5 if sys.platform == "win32" else None


@dataclass(frozen=True)
class Program:
    """A program to run: its name, its command and its whole environment."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Exited:
    """A child has ended."""

    child: Child


@dataclass(frozen=True)
class Due:
    """A program that a signal ended has waited long enough: start it again."""

    name: str


@dataclass(frozen=True)
class Changed:
    """Files have changed: restart."""

    files: Sequence[str]


@dataclass(frozen=True)
class Stop:
    """Stop everything; with a reason if it is not the user's wish."""

    failure: str = ""


Event = Exited | Due | Changed | Stop


class ProcessManager:
    """Starts programs, restarts them on a change, and leaves none behind.

    A program that ends by itself is reported. It starts again with the next change, for most often
    a mistake in the code ended it, and starting the same code again would only repeat the mistake.
    Without reload no change will come, so its end stops the rest. One that a signal ended (memory
    was short, or somebody killed it) is not to blame, and starts again by itself.
    """

    def __init__(
        self,
        output: Output,
        *,
        cwd: Path | None = None,
        grace: float = GRACE,
        reload: bool = True,
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            output: prints the programs' lines and our own.
            cwd: the programs' working directory.
            grace: seconds between a graceful stop and the kill.
            reload: whether `Changed` events may come.
        """
        self._output = output
        self._cwd = cwd
        self._grace = grace
        self._reload = reload
        self._programs: dict[str, Program] = {}
        self._on_start: Callable[[Child], None] | None = None
        self._children: dict[str, Child] = {}
        self._started_at: dict[str, float] = {}
        self._restarting: set[str] = set()
        # A signal handler may put into a SimpleQueue whatever the interrupted code was doing.
        self._events: SimpleQueue[Event] = SimpleQueue()

    def post(self, event: Event) -> None:
        """Tell the manager of an event; safe from any thread and from a signal handler."""
        self._events.put(event)

    def run(
        self,
        programs: Sequence[Program],
        on_start: Callable[[Child], None] | None = None,
    ) -> int:
        """Run until a signal or a `Stop` event.

        Args:
            programs: in the order of their start; they stop in the reverse order.
            on_start: called with each program that was started, first or again; it must not wait.

        Returns:
            The exit code: 0 after a signal, 1 after a failure.
        """
        self._programs = {program.name: program for program in programs}
        self._on_start = on_start
        with self._signals():
            try:
                for name in self._programs:
                    self._start(name)
                failure = self._follow()
                if failure:
                    self._output.own(failure)
            finally:
                self._stop_all()
        return 1 if failure else 0

    def _follow(self) -> str:
        """Act on events until it is time to stop; return what went wrong, if anything."""
        while True:
            match self._next():
                case Stop(failure):
                    return failure
                case Changed(files):
                    self._restart_all(files)
                case Exited(child) if child.name in self._restarting:
                    self._restarting.discard(child.name)
                    self._start(child.name)
                case Due(name) if name not in self._children:
                    self._start(name)
                case Due():
                    continue  # a change came first
                case Exited(child) if signal_of(child):
                    del self._children[child.name]
                    self._start_later(child)
                case Exited(child):
                    del self._children[child.name]
                    end = f"{child.name} ended with exit code {child.returncode}"
                    if not self._reload:
                        return f"{end}. Stopping the rest."
                    self._output.own(f"{end}. It starts again when a file changes.")

    def _next(self) -> Event:
        while True:
            try:
                return self._events.get(timeout=LONGEST_WAIT)
            except Empty:
                continue

    def _start_later(self, child: Child) -> None:
        """Start a program that a signal ended again: at once, unless it began just now."""
        wait = max(0.0, self._started_at[child.name] + PAUSE - time.monotonic())
        self._output.own(f"{child.name} was ended by {signal_of(child)}. It starts again.")
        timer = threading.Timer(wait, self.post, [Due(child.name)])
        timer.daemon = True
        timer.start()

    def _start(self, name: str) -> None:
        program = self._programs[name]
        self._started_at[name] = time.monotonic()
        child = self._children[name] = Child(
            name,
            program.command,
            env=program.env,
            cwd=self._cwd,
            grace=self._grace,
            on_line=lambda text: self._output.line(name, text),
            on_exit=lambda child: self.post(Exited(child)),
        )
        if self._on_start:
            self._on_start(child)

    def _restart_all(self, files: Sequence[str]) -> None:
        """Stop what runs, to be started when it has ended; start what had ended before."""
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        self._output.own(f"{files[0]}{more} changed: restarting")
        ended = [name for name in self._programs if name not in self._children]
        for name, child in self._children.items():
            if name not in self._restarting:
                self._restarting.add(name)
                child.stop()
        for name in ended:
            self._start(name)

    def _stop_all(self) -> None:
        """Stop gracefully, last started first; a further signal meanwhile kills at once."""
        if self._children:
            self._output.own("Stopping. Press Ctrl-C again to end everything at once.")
        order = [name for name in reversed(self._programs) if name in self._children]
        for name in order:
            child = self._children[name]
            child.stop()
            while not child.exited.is_set():
                if isinstance(self._next(), Stop):
                    for other in self._children.values():
                        other.kill()
        self._children.clear()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take the signals that stop us as events, and give the former handlers back after."""

        def handler(_number: int, _frame: FrameType | None) -> None:
            self.post(Stop())

        former = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, action in former.items():
                signal.signal(number, action)


def signal_of(child: Child) -> str:
    """Name the signal that ended a program, such as SIGKILL; empty if it ended by itself."""
    try:
        return signal.Signals((child.returncode or 0) - 128).name
    except ValueError:
        return ""
