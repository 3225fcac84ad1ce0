"""The command ``flask check``: can this configuration work? For a deployment to ask first.

Loading the application has checked every setting by itself: with one that cannot work, the command
prints why and ends with exit code 1. What is left is the Redis that the settings name.
"""

from __future__ import annotations

import time
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from flask_background import connect_redis, without_password

from ..extensions import celery


@click.command()
@click.option(
    "--wait",
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long Redis may take to answer.",
)
@with_appcontext
def check(wait: float) -> None:
    """Check the configuration, and that Redis answers and is set up for it.

    The exit code is 0 when a deployment may go on.
    """
    config = current_app.config
    url = celery.redis_url
    with connect_redis(url, timeout=5) as client:
        server = _ask(client, wait, without_password(url))
    click.echo(f"The {config['CONFIG_NAME']} settings can work.")
    click.echo(f"Redis {server.get('redis_version', '')} answers.")
    for warning in warnings(server):
        click.echo(f"Warning: {warning}", err=True)


def warnings(server: dict[str, Any]) -> list[str]:
    """Say what of Redis' own settings may lose tasks; ``server`` is its INFO."""
    found = []
    policy = server.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and server.get("maxmemory"):
        found.append(
            f"Redis drops data when its memory is full ({policy}), tasks among it. "
            "Set its maxmemory-policy to noeviction."
        )
    return found


def _ask(client: Redis, wait: float, where: str) -> dict[str, Any]:
    """Return the INFO of Redis. Raises ``ClickException`` when it does not come in time."""
    ends = time.monotonic() + wait
    while True:
        try:
            return dict(client.info())
        except RedisError as error:
            if isinstance(error, AuthenticationError) or time.monotonic() >= ends:
                raise click.ClickException(
                    f"Redis at {where} does not answer: {error}. Check REDIS_URL."
                ) from None
        time.sleep(0.5)
