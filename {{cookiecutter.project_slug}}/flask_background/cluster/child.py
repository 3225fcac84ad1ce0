"""One program under a guard: its output, its end, and how to stop it. It cannot outlive us."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GUARD = str(Path(__file__).with_name("guard.py"))
LAST_LINES_WAIT = 1.0  # seconds to collect output after the end, should a stranger hold the pipe


class Child:
    """A running program under `guard.py`, which ends it when this process ends."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        on_line: Callable[[str], None],
        on_exit: Callable[["Child"], None] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace: float = 10.0,
    ) -> None:
        """Start the program.

        Args:
            name: what people call it.
            command: the program and its arguments.
            on_line: called in a thread with each line of its output (stdout and stderr).
            on_exit: called in a thread after its end and its last line.
            env: its whole environment; this process's own if left out.
            cwd: its working directory.
            grace: seconds between a graceful stop and the kill.
        """
        self.name = name
        self.exited = threading.Event()
        self.returncode: int | None = None
        self._on_line = on_line
        self._on_exit = on_exit
        # The guard needs neither site-packages nor PYTHONPATH; the program itself gets `env` whole.
        guard = [sys.executable, "-IS", GUARD, str(grace)]
        self._process = subprocess.Popen(  # noqa: S603
            [*guard, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            # Out of reach of the terminal's Ctrl-C, which is for the owner alone to act on.
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._process.stdin and self._process.stdout  # noqa: S101  (both are pipes)
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._pipe_lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id of the guard; it ends when the program does."""
        return self._process.pid

    def stop(self) -> None:
        """Ask for a graceful end; returns at once. The guard kills what remains after the grace."""
        self._order(b"s")

    def kill(self) -> None:
        """End it at once, with all that it started; returns before it is gone."""
        self._order(b"k")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds for the end; True when it has ended."""
        return self.exited.wait(timeout)

    def _order(self, letter: bytes) -> None:
        with self._pipe_lock, contextlib.suppress(OSError, ValueError):  # it has ended
            os.write(self._stdin.fileno(), letter)

    def _read(self) -> None:
        for line in self._stdout:
            self._on_line(line.decode("utf-8", "replace").rstrip("\r\n"))

    def _wait(self) -> None:
        self.returncode = self._process.wait()
        self._reader.join(LAST_LINES_WAIT)
        with self._pipe_lock:
            self._stdin.close()
        if not self._reader.is_alive():
            self._stdout.close()
        self.exited.set()
        if self._on_exit:
            self._on_exit(self)
