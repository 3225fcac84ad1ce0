"""What a stack under Compose is put through, whichever file it runs from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import support
from targets.compose import PRODUCTION, Stack, Stream, install, unique_slug


@dataclass
class Used:
    """A stack, and the tasks that were started while it was hurt (None without the examples)."""

    stack: Stack
    stream: Stream | None


#: Which database a project gets: two of four, so that both kinds and neither run from the files.
DATABASES = {(PRODUCTION, "yes"): "postgresql", (PRODUCTION, "no"): "sqlite"}


@contextlib.contextmanager
def use(file: str, examples: str, render: Callable[[support.Answers], Path]) -> Iterator[Used]:
    """Bring a new project up, and start tasks all the time."""
    database = DATABASES.get((file, examples), "none")
    answers = {"include_examples": examples, "database": database}
    project = install(render({"project_slug": unique_slug(), **answers}))
    settings = {}
    if file == PRODUCTION and examples == "yes":
        settings["MANIFEST_URL"] = "http://web:8000/sample-manifest.json"
    with contextlib.ExitStack() as after:
        stack = after.enter_context(Stack(project, file, settings))
        stream = after.enter_context(Stream(stack.url)) if examples == "yes" else None
        yield Used(stack, stream)


def restart(service: str) -> Callable[[Stack], None]:
    """Return the fault that a service is restarted."""

    def fault(stack: Stack) -> None:
        stack.compose("restart", service)

    return fault


def down_and_up(stack: Stack) -> None:
    """Remove the containers and make them again; the data is in volumes."""
    stack.down()
    stack.up()


FAULTS: dict[str, Callable[[Stack], None]] = {
    "start": lambda stack: None,
    "killed worker": lambda stack: stack.kill_main_process("worker"),
    "killed place": lambda stack: stack.kill_place(),
    "restart of redis": restart("redis"),
    "restart of web": restart("web"),
    "restart of worker": restart("worker"),
    "down and up": down_and_up,
}


def check_tasks(used: Used, report: support.Report) -> None:
    """No task that was answered with 202 is lost, whatever was killed or restarted meanwhile."""
    if used.stream is None:
        return
    used.stream.__exit__()
    assert len(used.stream.accepted) > 10, f"Only {used.stream.accepted} were accepted."
    used.stream.wait_until_all_succeeded()
    report.add(
        "compose",
        f"{used.stack.file}: {len(used.stream.accepted)} tasks accepted while it was hurt, all "
        f"succeeded ({used.stream.refused} requests got no answer)",
    )
