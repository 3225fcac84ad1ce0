"""The server of server_story.py, its processes under systemd."""

import pytest

pytest.register_assert_rewrite("targets.server_story")

from targets.server_story import *  # noqa: E402, F403


@pytest.fixture(scope="module")
def manager() -> str:
    """Name what keeps the processes running."""
    return "systemd"
