"""The memory that a cluster shares with its places."""

from __future__ import annotations

import subprocess
import sys

import pytest
from engine_support import environment
from flask_background import ConfigurationError
from flask_background.cluster.board import Board

PROGRAM = """
import os, signal
from flask_background.cluster.board import Board
slot = Board().slot()
slot.scale = (1, 2)
slot.beat()
if (place := os.fork()) == 0:
    while True:
        slot.begin("tag", "id", 1.0, 2.0)
        slot.end()
read = {(slot.scale, slot.beaten_at > 0) for _ in range(300_000)}
os.kill(place, signal.SIGKILL)
os.waitpid(place, 0)
print(read)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Places are forked.")
def test_a_task_that_begins_does_not_wipe_what_the_cluster_reads() -> None:
    """It read that there shall be no place at all, let the only one go, and ended itself."""
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split("\n")[0] == "{((1, 2), True)}"


def test_an_id_of_any_letters_and_length_is_read_again() -> None:
    slot = Board().slot()

    slot.begin("a" * 36, "\U0001f426" * 300, None, None)

    assert slot.work
    assert slot.work.tag == "a" * 36


def test_a_cluster_that_is_full_says_so_in_a_sentence() -> None:
    board = Board()
    with pytest.raises(ConfigurationError, match=r"has 512 places at most\. Have a second one"):
        for _ in range(513):
            slot = board.slot()

    board.give_back(slot)
    assert board.slot().number == slot.number
