"""Memory that the cluster shares with its places: what each does at this moment.

A place is a process that runs one task at a time. It writes here, which costs it nothing, and the
cluster reads: so it knows of each task, also while that holds the interpreter's lock.
"""

import json
import mmap
import struct
import time
from dataclasses import dataclass

from ..base.errors import ConfigurationError

#: Bytes of a slot, and how many there are; memory that nobody wrote to takes no room.
_SIZE, _SLOTS = 1024, 512
#: In a slot: the last beat, the start of its task, the task's two limits, how many places its
#: worker shall have (least, most), the length of the text that follows: tag and id of the task.
_LAYOUT = struct.Struct("=ddddHHH")
_BEAT, _SINCE, _SCALE = 0, 8, 32
#: Characters of a task's id that are noted; JSON may need 12 bytes for each.
_LONGEST_ID = 75


@dataclass(frozen=True)
class Work:
    """A task at work: its message's tag, its id, and when (``time.monotonic()``) what happens.

    0 is never for ``soft_at`` and ``hard_at``.
    """

    tag: str
    id: str
    since: float
    soft_at: float
    hard_at: float


class Slot:
    """The part of the board that belongs to one place."""

    def __init__(self, memory: mmap.mmap, number: int, *, first: bool) -> None:
        """``first``: of its worker's places. That one answers for how many there shall be."""
        self.number, self.first = number, first
        self._memory, self._start = memory, number * _SIZE

    def beat(self) -> None:
        """Note that this place is well."""
        struct.pack_into("=d", self._memory, self._start + _BEAT, time.monotonic())

    @property
    def beaten_at(self) -> float:
        """When it noted that last; 0 is not yet."""
        beat: float = struct.unpack_from("=d", self._memory, self._start + _BEAT)[0]
        return beat

    def begin(self, tag: str, task_id: str, soft: float | None, hard: float | None) -> None:
        """Note a task and its limits (seconds)."""
        now = time.monotonic()
        text = json.dumps([tag, task_id[:_LONGEST_ID]]).encode()
        limits = (now + soft if soft else 0.0, now + hard if hard else 0.0)
        at = self._start + _LAYOUT.size
        # Beat and scale stay: Python writes zeros first, and the cluster may read them meanwhile.
        packed = _LAYOUT.pack(0.0, 0.0, *limits, 0, 0, len(text))
        self._memory[self._start + _SINCE : self._start + _SCALE] = packed[_SINCE:_SCALE]
        self._memory[self._start + _SCALE + 4 : at] = packed[_SCALE + 4 :]
        # The start comes last: with it the rest counts.
        self._memory[at : at + len(text)] = text
        struct.pack_into("=d", self._memory, self._start + _SINCE, now)

    def end(self) -> None:
        """Note that the task has ended."""
        struct.pack_into("=d", self._memory, self._start + _SINCE, 0.0)

    @property
    def work(self) -> Work | None:
        """The task at work, if there is one."""
        _, since, soft, hard, _, _, length = _LAYOUT.unpack_from(self._memory, self._start)
        at = self._start + _LAYOUT.size
        text = bytes(self._memory[at : at + length])
        if not since or struct.unpack_from("=d", self._memory, self._start + _SINCE)[0] != since:
            return None  # it ended, or another one begins just now
        tag, task_id = json.loads(text)
        return Work(tag, task_id, since, soft, hard)

    @property
    def scale(self) -> tuple[int, int]:
        """How many places its worker shall have: at least, and at most."""
        least, most = struct.unpack_from("=HH", self._memory, self._start + _SCALE)
        return least, most

    @scale.setter
    def scale(self, least_and_most: tuple[int, int]) -> None:
        struct.pack_into("=HH", self._memory, self._start + _SCALE, *least_and_most)

    def clear(self) -> None:
        """Forget the process that had it; the scale stays."""
        scale = self.scale
        self._memory[self._start : self._start + _SIZE] = bytes(_SIZE)
        self.scale = scale


class Board:
    """All slots of a cluster, in memory that forked processes share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE * _SLOTS)
        self._free = list(range(_SLOTS))

    def slot(self, *, first: bool = True) -> Slot:
        """Give out a slot that is free. Raises ``ConfigurationError`` if there is none."""
        if not self._free:
            raise ConfigurationError(
                f"A cluster has {_SLOTS} places at most. Have a second one run the other workers "
                "(flask celery cluster --workers NAMES)."
            )
        slot = Slot(self._memory, self._free.pop(0), first=first)
        slot.clear()
        slot.scale = (0, 0)
        return slot

    def give_back(self, slot: Slot) -> None:
        """Take a slot back."""
        self._free.append(slot.number)
