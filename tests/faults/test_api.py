"""Send the generated project's API whatever its own description allows, and what it does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from faults.stack import HOST, SECRETS, Stack


@pytest.fixture
def stack(generated: Path, tmp_path: Path) -> Stack:
    """The application, with a limit on starting tasks that nobody reaches."""
    return Stack(generated, tmp_path / "stack", environ={"RATELIMIT_ENQUEUE": "100000 per minute"})


def test_the_api_answers_everything_as_it_is_described(stack: Stack) -> None:
    with stack.running():
        done = subprocess.run(
            [
                *("schemathesis", "run", "--max-examples", "50", "--no-color"),
                # A task that was cancelled is still there to be looked at.
                *("--exclude-checks", "use_after_free"),
                *("--header", f"Authorization: Bearer {SECRETS['API_TOKEN']}"),
                f"http://{HOST}:{stack.web_port}/api/v1/openapi.json",
            ],
            cwd=stack.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        log = (stack.folder / "web.log").read_text()

    assert done.returncode == 0, done.stdout
    assert " 500 " not in log
