"""The part of the page that changes: made at most once a second, however many pages are open.

Every open page asks for it again and again, so an answer has to cost almost nothing: the HTML is
shared, an unchanged one is answered with 304, and the server says when to come back. The more
pages are open, the later: together they ask about ``MOST_POLLS`` times a second.
"""

import threading
import time

from flask import Response, current_app, render_template, request
from flask_background import Overview
from redis.exceptions import RedisError

from ..extensions import celery
from ..web.operators import is_operator, may_see_details

#: Seconds for which one reading of Redis serves all pages.
FRESH = 1.0
#: Seconds for which an old one serves while another thread reads anew.
STALE = 10.0

#: Polls that one process answers each second, about.
MOST_POLLS = 20
#: Bounds of the pause between two polls of a page, in seconds.
SHORTEST, LONGEST = 1.0, 30.0
#: Seconds over which the polls are counted, at least.
_WINDOW = 5.0


class Pace:
    """Counts the polls, and says when the page that asks should come back."""

    def __init__(self) -> None:
        self.pause = SHORTEST
        self._polls = 0
        self._since = time.monotonic()

    def next(self) -> float:
        """Count a poll; return the seconds until the same page should ask again."""
        self._polls += 1
        elapsed = time.monotonic() - self._since
        # Long enough for every page to come once, at the pause that it was told last.
        if elapsed >= max(_WINDOW, 1.25 * self.pause):
            excess = self._polls / elapsed / MOST_POLLS
            # Less than the whole correction, so that the pause settles and does not swing.
            self.pause = min(max(self.pause * excess**0.6, SHORTEST), LONGEST)
            self._polls, self._since = 0, time.monotonic()
        return self.pause


class Live:
    """The latest overview of one application in this process, and the HTML made of it."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._lock = threading.Lock()
        self._overview = Overview(reachable=False)
        self._html: dict[tuple[bool, bool], str] = {}
        self.forget()

    def forget(self) -> None:
        """Read Redis at the next question: this process has just changed something."""
        self._read_at = float("-inf")

    def overview(self) -> Overview:
        """Return the latest overview, at most a second old unless Redis is slow."""
        age = time.monotonic() - self._read_at
        # While one thread waits for Redis, the others answer with what there is.
        if age >= FRESH and self._lock.acquire(blocking=age >= STALE):
            try:
                if time.monotonic() - self._read_at >= FRESH:
                    self._read()
            finally:
                self._lock.release()
        return self._overview

    def _read(self) -> None:
        try:
            self._overview = celery.overview()
        except RedisError as error:
            current_app.logger.warning("The page is shown without Redis: %s", error)
            self._overview = Overview(reachable=False)
        self._html = {}
        self._read_at = time.monotonic()

    def html(self) -> str:
        """Return the HTML for whoever asks; it is made once for all who may see the same."""
        state, made = self.overview(), self._html
        visitor = (may_see_details(), is_operator())
        if visitor not in made:
            made[visitor] = render_template("main/live.html", state=state, words=False)
        return made[visitor]


def live() -> Live:
    """Return the one of the current application."""
    found: Live = current_app.extensions.setdefault("live", Live())
    return found


def answer(html: str) -> Response:
    """Answer with a part of a page, or 304 if the browser has it; and when to ask again."""
    response = current_app.make_response(html)
    response.add_etag()
    response.headers["Poll-After"] = f"{live().pace.next():.1f}"
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response
