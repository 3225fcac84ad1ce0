"""The progress of long work: a line that moves on a terminal, lines in a log."""

from __future__ import annotations

import io
import os
import pty
import re
import sys

import pytest
from devtools import steps
from devtools.steps import Steps, duration

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a terminal is made with pty")


def test_in_a_log_each_step_is_a_line() -> None:
    log = io.StringIO()
    progress = Steps(12, log)
    with progress.step("Upload"):
        pass
    progress.start("Build")
    progress.end("no change")
    first, second = log.getvalue().splitlines()
    assert re.fullmatch(r" 1/12 Upload \.\.\. 0\.\d s", first)
    assert re.fullmatch(r" 2/12 Build \.\.\. 0\.\d s, no change", second)


def test_a_step_that_fails_says_so() -> None:
    log = io.StringIO()
    with pytest.raises(KeyError), Steps(1, log).step("Build"):
        raise KeyError
    assert log.getvalue().endswith(", failed\n")


def test_a_log_is_told_of_a_step_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "REMIND", 0.01)
    read, write = os.pipe()
    with os.fdopen(read) as log, os.fdopen(write, "w") as stream:
        progress = Steps(1, stream)
        progress.start("Build")
        assert re.fullmatch(r"1/1 Build \.\.\. \d\.\d s so far\n", log.readline())
        progress.end()


def test_on_a_terminal_the_line_moves_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "REDRAW", 0.01)
    outside, inside = pty.openpty()
    with os.fdopen(outside, "rb", buffering=0) as screen, os.fdopen(inside, "w") as stream:
        progress = Steps(1, stream)
        progress.start("Build")
        seen = b""
        while seen.count(b"\r1/1 Build ... ") < 3:
            seen += screen.read(4096)
        assert b"\n" not in seen
        with progress._lock:  # between two looks of the line
            stream.write("what another part says\n")
            stream.flush()
        while b"\n" not in seen:
            seen += screen.read(4096)
        assert b"\x1b[Kwhat another part says" in seen
        progress.end()
        while seen.count(b"\n") < 2:
            seen += screen.read(4096)
    last = seen.splitlines()[-1].rpartition(b"\r")[2] or seen.split(b"\r")[-2]
    assert re.fullmatch(rb"1/1 Build \.\.\. 0\.\d s", last.strip())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s")],
)
def test_a_time_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
