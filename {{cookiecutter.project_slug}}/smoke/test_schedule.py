"""What runs by the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from .client import Client

pytestmark = pytest.mark.log("worker")

#: Seconds that a tick may be late: another scheduler takes over within 30.
LATE = 60


def read(client: Client) -> tuple[list[dict[str, Any]], datetime]:
    """Return the schedule, and what time it is where it was read."""
    answer = client.numbers("/api/v1/schedule")
    date = answer.headers.get("Date")
    return answer.json(), parsedate_to_datetime(date) if date else datetime.now(UTC)


def test_nothing_scheduled_is_late(client: Client) -> None:
    """The scheduler sends what is due."""
    entries, _ = read(client)
    if not entries:
        pytest.skip("nothing is scheduled")

    def nothing_late() -> bool | None:
        entries, now = read(client)
        late = [entry for entry in entries if overdue(entry, now) > LATE]
        assert not late, f"The scheduler stands still: {late}"
        regular = [entry for entry in entries if entry["schedule"].startswith("every")]
        return True if all(entry["total_run_count"] for entry in regular) else None

    client.wait_for("The first run of everything that runs at an interval", nothing_late)


def overdue(entry: dict[str, Any], now: datetime) -> float:
    """Return for how many seconds an entry has been due; negative if it is not yet."""
    if entry["next_run_at"] is None:
        return 0.0
    return (now - datetime.fromisoformat(entry["next_run_at"])).total_seconds()
