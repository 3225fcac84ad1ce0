"""Times in words, for the pages."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def ago(time: datetime | None, now: datetime | None = None) -> str:
    """Say how long ago ``time`` was, or in how long it will be: "3 min ago", "in 20 s"."""
    if time is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    if abs(seconds) < 1:
        return "now"
    span = duration(abs(seconds))
    return f"{span} ago" if seconds >= 0 else f"in {span}"


def duration(seconds: float) -> str:
    """Say a number of seconds in its largest unit: "3 min", "20 s"."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(text: str | datetime | None) -> datetime | None:
    """Read a time that is stored as ISO 8601 text."""
    return datetime.fromisoformat(text) if isinstance(text, str) else text
