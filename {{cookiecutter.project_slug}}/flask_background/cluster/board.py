"""Memory that the cluster shares with its places: what each does at this moment.

A place is a process that runs one task at a time. It writes here, which costs it nothing, and the
cluster reads: so it knows of each task, also while that holds the interpreter's lock.
"""

import ctypes
import json
import mmap
import time
from dataclasses import dataclass

from ..base.errors import ConfigurationError

#: Bytes of a slot, and how many there are; memory that nobody wrote to takes no room.
_SIZE, _SLOTS = 1024, 512
#: Characters of a task's id that are noted; JSON may need 12 bytes for each.
_LONGEST_ID = 75


class _Fields(ctypes.Structure):
    """A slot: what :class:`Slot` and :class:`Work` have, the text being a task's tag and id."""

    _fields_ = (
        ("beaten_at", ctypes.c_double),
        ("since", ctypes.c_double),
        ("soft_at", ctypes.c_double),
        ("hard_at", ctypes.c_double),
        ("least", ctypes.c_uint16),
        ("most", ctypes.c_uint16),
        ("text", ctypes.c_char * (_SIZE - 40)),
    )


@dataclass(frozen=True)
class Work:
    """A task at work: its message's tag, its id, and times of ``time.monotonic()``; 0 is never."""

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
        self._fields = _Fields.from_buffer(memory, number * _SIZE)

    def beat(self) -> None:
        """Note that this place is well."""
        self._fields.beaten_at = time.monotonic()

    @property
    def beaten_at(self) -> float:
        """When it noted that last; 0 is not yet."""
        return float(self._fields.beaten_at)

    def begin(self, tag: str, task_id: str, soft: float | None, hard: float | None) -> None:
        """Note a task and its limits (seconds)."""
        now = time.monotonic()
        self._fields.soft_at = now + soft if soft else 0.0
        self._fields.hard_at = now + hard if hard else 0.0
        self._fields.text = json.dumps([tag, task_id[:_LONGEST_ID]]).encode()
        self._fields.since = now  # last: with it the rest counts

    def end(self) -> None:
        """Note that the task has ended."""
        self._fields.since = 0.0

    @property
    def work(self) -> Work | None:
        """The task at work, if there is one."""
        fields = self._fields
        since, soft, hard, text = fields.since, fields.soft_at, fields.hard_at, fields.text
        if not since or fields.since != since:
            return None  # it ended, or another one begins just now
        tag, task_id = json.loads(text)
        return Work(tag, task_id, since, soft, hard)

    @property
    def scale(self) -> tuple[int, int]:
        """How many places its worker shall have: at least, and at most."""
        return self._fields.least, self._fields.most

    @scale.setter
    def scale(self, least_and_most: tuple[int, int]) -> None:
        if not all(0 <= number < 2**16 for number in least_and_most):
            raise ValueError(f"A worker cannot have {least_and_most} places.")
        self._fields.least, self._fields.most = least_and_most

    def clear(self) -> None:
        """Forget the process that had it; the scale stays."""
        self._fields.beaten_at = self._fields.since = 0.0


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
