"""What a release relies on: workers of the new version beside those of the old one."""

from __future__ import annotations

import sys

import pytest
import sample_app
from engine_support import StartCluster
from flask_background import FlaskCelery


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_second_cluster_of_the_machine_covers_the_end_of_the_first(
    start: StartCluster, client: FlaskCelery
) -> None:
    places = {"CELERY_WORKERS": {"worker": {"concurrency": 2}}}
    first = start(places, "cluster", workers=2)
    start(places, "cluster", workers=4, environ={"CELERY_WORKER_HOST": "spare"})

    assert first.stop() == 0

    assert [beat.name for beat in client.heartbeats()] == ["worker@spare", "worker.2@spare"]
    assert client.readiness().reason is None
    assert client.submit(sample_app.double, 2).result(timeout=10) == 4
