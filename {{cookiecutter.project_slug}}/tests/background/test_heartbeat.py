"""What a worker does with each heartbeat, besides saying that it lives."""

from __future__ import annotations

from kombu.asynchronous.timer import Timer
from support import forget_cancelled


def test_the_time_limits_of_tasks_that_have_ended_take_no_memory() -> None:
    timer = Timer()
    ended = [timer.call_after(300 - number, print) for number in range(100)]
    late, soon = timer.call_after(200, print), timer.call_after(100, print)
    for entry in ended:
        entry.cancel()

    forget_cancelled(timer)

    assert len(timer) == 2
    assert [event.entry for event in timer.queue] == [soon, late]
