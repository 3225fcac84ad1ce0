"""Futures: a task that was sent, with the interface of :class:`concurrent.futures.Future`."""

import concurrent.futures
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from celery import current_task, states

from ..base.errors import UnknownTask
from ..base.records import TaskInfo, exception_from_meta, info_from_meta
from ..core import Core
from ..state import lookup
from .listener import ResultListener

#: The state of an id that was never issued, or whose result has expired.
UNKNOWN = "UNKNOWN"

#: A pool has the first of these states that one of its futures has.
_POOL_ORDER = ("PENDING", "RECEIVED", "STARTED", "PROGRESS", "RETRY", "REVOKED", "FAILURE", UNKNOWN)


class Future(concurrent.futures.Future[Any]):
    """A task on its way, and its result once it is there.

    It is a ``concurrent.futures.Future``: ``concurrent.futures.wait``, ``as_completed`` and
    ``asyncio.wrap_future`` work on it. Whoever waits is woken by Redis when the task ends; nothing
    polls. Callbacks run in the thread that listens to Redis, so they should be short.
    """

    def __init__(
        self, core: Core, task_id: str, name: str | None = None, *, kept: bool = True
    ) -> None:
        """Make it for an issued id. ``kept``: whether the task's result is stored at all."""
        super().__init__()
        self.id = task_id
        self._core = core
        self._name = name
        self._kept = kept
        self._watched = False
        self._cancelling = threading.Lock()
        # concurrent.futures.wait() and as_completed() put their waiter into this list, and nothing
        # else tells that somebody waits. A private name of the standard library:
        # https://github.com/python/cpython/blob/3.13/Lib/concurrent/futures/_base.py
        self._waiters: list[Any] = _WatchingList(self._watch)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the task's result, at most ``timeout`` seconds, and return it.

        Raises ``TimeoutError``; ``concurrent.futures.CancelledError``; ``UnknownTask`` for an id
        that was never issued or a task that keeps no result; ``BrokerUnavailable``; or what the
        task raised, by its type and message.
        """
        self._before_waiting()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the task's end, at most ``timeout`` seconds: what it raised, or None.

        Raises as :meth:`result` does, but for the task's own exception.
        """
        self._before_waiting()
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Stop the task: a waiting one never runs, a running one is ended.

        Returns False when it had ended before. Raises ``BrokerUnavailable``.
        """
        if self.cancelled():
            return True
        if not lookup.cancel(self._core, self.id):
            return False
        self._settle_cancelled()
        return True

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        self._refresh()
        return super().cancelled()

    def running(self) -> bool:
        """Whether the task's function is at work at this moment."""
        info = self._refresh()
        return info is not None and info.running

    def done(self) -> bool:
        """Whether the task has ended: with a result, with an error, or cancelled."""
        self._refresh()
        return super().done()

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """Call ``fn(future)`` when the task ends, or now if it has ended."""
        super().add_done_callback(fn)
        self._watch()

    @property
    def info(self) -> TaskInfo | None:
        """What the result backend knows now; None for an id that was never issued."""
        return lookup.task_info(self._core, self.id)

    @property
    def known(self) -> bool:
        """Whether the id was issued by this application and its result has not expired."""
        return super().done() or self.info is not None

    @property
    def state(self) -> str:
        """Celery's state of the task, ``PROGRESS``, or ``UNKNOWN``.

        What was cancelled here is ``REVOKED`` from then on, also while its worker still ends it.
        """
        if super().cancelled():
            return str(states.REVOKED)
        info = self.info
        return info.state if info else UNKNOWN

    status = state

    @property
    def name(self) -> str | None:
        """The name of the task, or of the function that was submitted."""
        if self._name is None and (info := self.info):
            self._name = info.name
        return self._name

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task, as text."""
        info = self.info
        return info.traceback if info else None

    @property
    def date_done(self) -> datetime | None:
        """When the task ended (UTC)."""
        info = self.info
        return info.date_done if info else None

    def settle(self, meta: Mapping[str, Any] | None) -> bool:
        """Take the end of the task over from the result backend's record of it.

        Called by the listener. ``meta`` is None for an id that was never issued. Returns whether
        the future is settled now.
        """
        # Two threads may bring the same news; the first one wins.
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            if meta is None:
                self.set_exception(UnknownTask(self._why_unknown()))
            elif meta["status"] == states.SUCCESS:
                self.set_result(meta.get("result"))
            elif meta["status"] == states.FAILURE:
                self.set_exception(exception_from_meta(meta))
            elif meta["status"] == states.REVOKED:
                self._settle_cancelled()
        return super().done()

    def _why_unknown(self) -> str:
        if self._kept:
            return (
                f"No task has the id {self.id!r}, or its result has expired, or it keeps none "
                "(ignore_result)."
            )
        return (
            f"The task {self._name} ({self.id}) keeps no result (ignore_result), so its end is "
            "not known. Do not wait for it, or send it with ignore_result=False."
        )

    def _settle_cancelled(self) -> None:
        # A future must not be told twice that it is cancelled: set_running_or_notify_cancel() would
        # fail. So the first caller keeps the lock for good, and nobody waits for it.
        if self._cancelling.acquire(blocking=False) and super().cancel():
            self.set_running_or_notify_cancel()

    def _refresh(self) -> TaskInfo | None:
        """Look the task up once, unless its end is known already."""
        if super().done():
            return None
        meta = lookup.task_meta(self._core, self.id)
        if meta is not None and meta["status"] in states.READY_STATES:
            self.settle(meta)
            return None
        return None if meta is None else info_from_meta(self.id, meta)

    def _before_waiting(self) -> None:
        if super().done():
            return
        if current_task and not current_task.request.is_eager:
            raise RuntimeError(
                f"The task {current_task.name} waits for the task {self.id}: with every worker "
                "waiting, nothing would run. Use add_done_callback, or a Celery chain or chord."
            )
        if self._name is None:
            self._refresh()  # it was not sent from here: who knows whether Redis is there
        self._watch()

    def _watch(self) -> None:
        """Ask the listener to settle this future when the task ends."""
        if not self._watched and not super().done():
            self._watched = True
            make = functools.partial(ResultListener, self._core)
            self._core.once_per_process("listener", make).watch(self)


class _WatchingList(list[Any]):
    """A list that tells when something is appended to it."""

    def __init__(self, on_append: Callable[[], None]) -> None:
        super().__init__()
        self._on_append = on_append

    def append(self, item: Any) -> None:
        super().append(item)
        self._on_append()


class FuturePool:
    """Several futures asked as one; they keep their order."""

    def __init__(self, futures: Iterable[Future] = ()) -> None:
        self.futures = list(futures)

    def __iter__(self) -> Iterator[Future]:
        return iter(self.futures)

    def __len__(self) -> int:
        return len(self.futures)

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
