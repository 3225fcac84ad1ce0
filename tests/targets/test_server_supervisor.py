"""The server of server_story.py, its processes under supervisord."""

import time

import pytest

pytest.register_assert_rewrite("targets.server_story")

from targets.server import Server, wait_until  # noqa: E402
from targets.server_story import *  # noqa: E402, F403

MANAGER = "supervisor"
DATABASE = "sqlite"


def test_a_worker_that_an_operator_stopped_stays_stopped(server: Server) -> None:
    """To supervisord's watcher, which looks every 5 s, the file of life is old."""
    worker = f"{server.slug}:{server.slug}-worker"
    alive = f"/run/{server.slug}/worker.alive"

    def the_watcher_looks() -> None:
        server.shell(f"touch -d '-5 minutes' {alive}")
        wait_until(
            lambda: server.shell(f"find {alive} -newermt '-1 minute'") != "", "the watcher looks"
        )

    server.shell(f"supervisorctl stop {worker}")
    for _ in range(2):  # when it looks again, it is done with what it did before
        the_watcher_looks()
    assert "STOPPED" in server.shell(f"supervisorctl status {worker} || true")
    server.shell(f"touch -d '-5 minutes' {alive}; supervisorctl start {worker}")
    started = server.main_pid("worker")
    time.sleep(8)
    assert server.main_pid("worker") == started, "The watcher ended a worker that had just started."
    wait_until(lambda: server.works(), "tasks are done again")
