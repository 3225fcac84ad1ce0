"""Submits tasks over HTTP while something breaks, and judges by the ledger what came of them."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from faults.stack import HOST, Stack
from support import Report

#: How long tasks take (seconds), in turn: most are short, some are not.
DURATIONS = (0, 0.01, 0, 0.02, 0, 0.05, 0.2, 0, 0.01, 0, 0.1, 0, 0.02, 0, 0.9)
#: Seconds after which a client gives up; the longest that a request can be seen to take.
GIVE_UP = 30.0


@dataclass
class Answer:
    """What became of one request."""

    ref: str
    at: float
    status: int
    seconds: float
    text: str


@dataclass
class Load:
    """Clients of the application: ``threads`` of them send ``rate`` requests per second in all."""

    stack: Stack
    rate: float = 15.0
    threads: int = 4
    answers: list[Answer] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _stop: threading.Event = field(default_factory=threading.Event)
    _clients: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin to send."""
        for _ in range(self.threads):
            client = threading.Thread(target=self._send_on, daemon=True)
            client.start()
            self._clients.append(client)

    def stop(self) -> None:
        """End, when the last answers are there."""
        self._stop.set()
        for client in self._clients:
            client.join(2 * GIVE_UP)
            assert not client.is_alive(), "A request hangs."

    def post(self, kind: str = "work", ref: str = "", **body: Any) -> Answer:
        """Send one request and note what was answered; status 0 stands for no answer."""
        connection = http.client.HTTPConnection(HOST, self.stack.web_port, timeout=GIVE_UP)
        ref = ref or f"{kind}{next(self._numbers)}"
        sent, status, text = time.monotonic(), 0, ""
        try:
            data = json.dumps({"ref": ref, **body})
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            connection.request("POST", f"/faults/{kind}", data, headers)
            response = connection.getresponse()
            status, text = response.status, response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            text = repr(error)
        finally:
            connection.close()
        now = time.monotonic()
        answer = Answer(ref, now, status, now - sent, text)
        self.answers.append(answer)
        return answer

    def _send_on(self) -> None:
        while not self._stop.wait(self.threads / self.rate):
            number = next(self._numbers)
            self.post(ref=f"work{number}", seconds=DURATIONS[number % len(DURATIONS)])


@dataclass
class Outcome:
    """One line of the table."""

    scenario: str
    kind: str
    accepted: int = 0
    refused: int = 0
    ended: int = 0
    lost: int = 0
    repeated: int = 0
    gap: float = 0.0
    slowest: float = 0.0
    request: float = 0.0
    dead: int = 0
    missing: list[str] = field(default_factory=list)
    patience: float = 0.0

    TITLE: ClassVar = (
        " " * 54 + "run more longest  slowest    longest",
        f"{'scenario':<33}accepted  ended   lost than once  gap, s  task, s request, s",
    )

    def tell(self, report: Report) -> None:
        """Add the line to the table at the end of the run."""
        if not any(line.startswith("faults") for line in report.lines):
            for line in self.TITLE:
                report.add("faults", line)
        report.add("faults", self.line)

    @property
    def line(self) -> str:
        """The line as people read it."""
        name = self.scenario if self.kind == "ours" else f"{self.scenario} (plain)"
        lost = f"{self.lost}"
        note = f"  not back within {self.patience:.0f} s" if self.lost else ""
        note += f"  {self.dead} dead letters" if self.dead else ""
        return (
            f"{name:<33}{self.accepted:>7}{self.ended:>7}{lost:>7}{self.repeated:>10}"
            f"{self.gap:>9.1f}{self.slowest:>10.1f}{self.request:>11.1f}{note}"
        )


def events(stack: Stack) -> list[tuple[float, str, str]]:
    """Read the ledger: time, event, task."""
    if not stack.ledger.exists():
        return []
    rows = (line.split() for line in stack.ledger.read_text().splitlines())
    return sorted((float(at), event, ref) for event, ref, _, at in rows)


def unfinished(load: Load, *, poison: bool = False) -> set[str]:
    """Name the tasks that were accepted and have not ended; poison never ends."""
    ended = {ref for _, event, ref in events(load.stack) if event == "end"}
    return {
        ref
        for answer in load.answers
        if answer.status == 202 and (poison or not answer.ref.startswith("poison"))
        for ref in refs(answer)
        if ref not in ended
    }


def refs(answer: Answer) -> list[str]:
    """Name the tasks that one request started; ``many1000x`` started a thousand."""
    if not answer.ref.startswith("many"):
        return [answer.ref]
    count = int(answer.ref.removeprefix("many").partition("x")[0])
    return [f"{answer.ref}-{number}" for number in range(count)]


def judge(scenario: str, load: Load, now: float) -> Outcome:
    """Make the line of the table from answers and ledger."""
    happened = events(load.stack)
    accepted = {
        ref: answer.at
        for answer in load.answers
        if answer.status == 202 and not answer.ref.startswith("poison")
        for ref in refs(answer)
    }
    ends: dict[str, float] = {}
    starts: dict[str, int] = {}
    for at, event, ref in happened:
        if event == "end":
            ends.setdefault(ref, at)
        else:
            starts[ref] = starts.get(ref, 0) + 1
    return Outcome(
        scenario,
        load.stack.kind,
        accepted=len(accepted),
        refused=sum(answer.status != 202 for answer in load.answers),
        ended=len(accepted.keys() & ends.keys()),
        lost=len(accepted.keys() - ends.keys()),
        missing=sorted(accepted.keys() - ends.keys()),
        repeated=sum(starts.get(ref, 0) > 1 for ref in accepted),
        gap=longest_gap(accepted, ends, [at for at, _, _ in happened], now),
        slowest=max((ends[ref] - at for ref, at in accepted.items() if ref in ends), default=0),
        request=max((answer.seconds for answer in load.answers), default=0),
    )


def longest_gap(
    accepted: dict[str, float], ends: dict[str, float], worked: list[float], now: float
) -> float:
    """Return the longest time in which there was work to do and nothing was begun or ended."""
    steps = [(at, 1) for at in accepted.values()]
    steps += [(ends[ref], -1) for ref in accepted if ref in ends]
    timeline = sorted([*steps, *((at, 0) for at in worked)])
    waiting, since, longest = 0, 0.0, 0.0
    for at, step in timeline:
        if step == 1:
            since = at if waiting <= 0 else since
        elif waiting > 0:
            longest, since = max(longest, at - since), at
        waiting += step
    return max(longest, now - since) if waiting > 0 else longest
