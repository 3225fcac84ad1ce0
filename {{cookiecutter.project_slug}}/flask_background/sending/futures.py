"""Futures: a task that was sent, with the interface of :class:`concurrent.futures.Future`."""

import concurrent.futures
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from celery import current_task, states

from ..base.errors import UnknownTask
from ..base.records import TaskInfo, exception_from_meta, info_from_meta
from ..core import Core
from ..state import lookup
from .listener import ResultListener
from .tasks import application_context

logger = logging.getLogger(__name__)

#: The state of an id that was never issued, or whose result has expired.
UNKNOWN = "UNKNOWN"


class Future(concurrent.futures.Future[Any]):
    """A task on its way, and its result once it is there.

    It is a ``concurrent.futures.Future``: ``concurrent.futures.wait``, ``as_completed`` and
    ``asyncio.wrap_future`` work on it. Whoever waits is woken by Redis when the task ends; nothing
    polls.
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
        self._waiters: list[Any] = _WatchingList(self._waited_for)

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

    def cancel(self, *, wait: bool = False, timeout: float | None = None) -> bool:
        """Stop the task: a waiting one never runs, a running one is ended.

        With ``wait`` it returns when the task does not run any more; ``TimeoutError`` after
        ``timeout`` seconds. Returns False when it had ended before. Raises ``BrokerUnavailable``.
        """
        if not self.cancelled():
            if not lookup.cancel(self._core, self.id):
                return False
            self._settle_cancelled()
        if wait:
            with contextlib.suppress(concurrent.futures.CancelledError):
                Future(self._core, self.id).exception(timeout)
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

    ready = done

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """Call ``fn(future)`` when the task ends, or now if it has ended.

        It runs in the application's context, in the thread that listens to Redis, so it should be
        short. Whoever waits in :meth:`result` may go on before it is called.
        """
        super().add_done_callback(functools.partial(self._call_back, fn))
        self._watch()

    def _call_back(self, fn: Callable[[Any], object], _: object) -> None:
        try:
            with application_context(self._core.flask_app, reuse=True):
                fn(self)
        except Exception:
            logger.exception("A callback of the task %s (%s) failed.", self._name, self.id)

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
    def task_id(self) -> str:
        """The id, as Celery's results have it too."""
        return self.id

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task, as text."""
        return info.traceback if (info := self.info) else None

    @property
    def date_done(self) -> datetime | None:
        """When the task ended (UTC)."""
        return info.date_done if (info := self.info) else None

    @property
    def worker(self) -> str | None:
        """The worker that runs it, or ran it."""
        return info.worker if (info := self.info) else None

    @property
    def queue(self) -> str | None:
        """The queue that it was taken from."""
        return info.queue if (info := self.info) else None

    def successful(self) -> bool:
        """Whether the task has ended with a result."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether the task has ended with an error."""
        return self.state == states.FAILURE

    def settle(self, meta: Mapping[str, Any] | None) -> bool:
        """Take over a task's record, None if there is none. Returns whether that settles it."""
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
        if self._name is None:
            self._refresh()  # it was not sent from here: who knows whether Redis is there
        if not super().done():
            self._waited_for()

    def _waited_for(self) -> None:
        if current_task and not current_task.request.is_eager:
            waiting = current_task.request.shadow or current_task.name
            raise RuntimeError(
                f"The task {waiting} waits for the task {self.id}: with every worker waiting, "
                "nothing would run. Use add_done_callback, or a Celery chain or chord."
            )
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
