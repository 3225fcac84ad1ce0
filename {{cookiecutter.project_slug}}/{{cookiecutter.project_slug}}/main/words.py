"""Times in words, for the pages."""

from datetime import UTC, datetime

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def ago(time: datetime | None) -> str:
    """Say how long ago ``time`` was, or in how long it will be: "3 min ago", "in 20 s"."""
    if time is None:
        return "never"
    seconds = (datetime.now(UTC) - time).total_seconds()
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


def span(seconds: float | None) -> str:
    """Say exactly how long something took: "0.4 s", "12 s", "1 min 5 s", "2 h 3 min"."""
    if seconds is None:
        return ""
    if seconds < 0.1:
        return "under 0.1 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def clock(time: datetime) -> str:
    """Write a time so that it stays true: "20 Nov 14:03:05 UTC"."""
    return time.astimezone(UTC).strftime("%d %b %H:%M:%S UTC")


def short_name(name: str) -> str:
    """Return the last part of a task's name."""
    return name.rpartition(".")[2]
