"""``flask check``, which a deployment asks before it goes on."""

import pytest
from flask import Flask

from {{ cookiecutter.project_slug }} import create_app
from {{ cookiecutter.project_slug }}.ops.check import drops_tasks


def test_a_configuration_that_works_is_said_to(live_app: Flask) -> None:
    result = live_app.test_cli_runner().invoke(args=["check"])

    assert result.exit_code == 0
    assert "settings can work" in result.output
    assert "Redis" in result.output


def test_a_redis_that_is_away_ends_the_deployment() -> None:
    app = create_app("testing", {"REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"})

    result = app.test_cli_runner().invoke(args=["check", "--wait", "0"])

    assert result.exit_code == 1
    assert "Check REDIS_URL" in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("server", "warned"),
    [
        ({"maxmemory_policy": "noeviction", "maxmemory": 100}, False),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 0}, False),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 100}, True),
    ],
)
def test_a_redis_that_drops_tasks_is_warned_of(server: dict[str, object], warned: bool) -> None:
    assert drops_tasks(server) is warned
