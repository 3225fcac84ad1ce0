"""Pools: several futures asked as one."""

import concurrent.futures
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery import states

from .futures import UNKNOWN, Future

#: A pool has the first of these states that one of its futures has.
_POOL_ORDER = ("PENDING", "RECEIVED", "STARTED", "PROGRESS", "RETRY", "REVOKED", "FAILURE", UNKNOWN)


class FuturePool:
    """Several futures asked as one; they keep their order."""

    def __init__(self, futures: Iterable[Future] = ()) -> None:
        self.futures = list(futures)

    def __iter__(self) -> Iterator[Future]:
        return iter(self.futures)

    def __len__(self) -> int:
        return len(self.futures)

    def __getitem__(self, index: int) -> Future:
        return self.futures[index]

    def add(self, future: Future) -> None:
        """Put one more future at the end of the pool."""
        if not isinstance(future, Future):
            raise TypeError(f"A pool holds futures; {future!r} is a {type(future).__name__}.")
        self.futures.append(future)

    def result(self, timeout: float | None = None) -> list[Any]:
        """Wait for all, at most ``timeout`` seconds in sum, and return their results in order.

        Raises as :meth:`Future.result`; of several exceptions the first in order.
        """
        return list(self._each(Future.result, timeout))

    def exception(self, timeout: float | None = None) -> list[BaseException | None]:
        """Wait for all, at most ``timeout`` seconds in sum: what each raised, or None."""
        return list(self._each(Future.exception, timeout))

    def cancel(self) -> bool:
        """Cancel every task that has not ended; False when any had."""
        stopped = [future.cancel() for future in self]
        return all(stopped)

    def cancelled(self) -> bool:
        """Whether any task was cancelled."""
        return any(future.cancelled() for future in self)

    def running(self) -> bool:
        """Whether any task runs."""
        return any(future.running() for future in self)

    def done(self) -> bool:
        """Whether all tasks have ended."""
        return all(future.done() for future in self)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """Call ``fn(future)`` for each future when its task ends."""
        for future in self:
            future.add_done_callback(fn)

    @property
    def state(self) -> str:
        """The state that says most about what is left to do: waiting before running, and so on."""
        found = {future.state for future in self}
        return next((state for state in _POOL_ORDER if state in found), states.SUCCESS)

    status = state

    def _each(
        self, wait: Callable[[Future, float | None], Any], timeout: float | None
    ) -> Iterator[Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        for future in self:
            yield wait(future, None if deadline is None else max(0, deadline - time.monotonic()))
