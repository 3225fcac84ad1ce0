"""The server of server_story.py, its processes under supervisord."""

import time

import pytest

pytest.register_assert_rewrite("targets.server_story")

from targets.server import Server, wait_until  # noqa: E402
from targets.server_story import *  # noqa: E402, F403

MANAGER = "supervisor"
DATABASE = "sqlite"


def test_a_worker_that_an_operator_stopped_stays_stopped(server: Server) -> None:
    """supervisord's watcher looks every 5 s; to it, the file of life is old."""
    worker = f"{server.slug}:{server.slug}-worker"
    server.shell(f"supervisorctl stop {worker}")
    server.shell(f"touch -d '-5 minutes' /run/{server.slug}/worker.alive")
    time.sleep(20)
    assert "STOPPED" in server.shell(f"supervisorctl status {worker} || true")
    server.shell(f"supervisorctl start {worker}")
    started = server.main_pid("worker")
    time.sleep(8)
    assert server.main_pid("worker") == started, "The watcher ended a worker that had just started."
    wait_until(lambda: server.works(), "tasks are done again")
