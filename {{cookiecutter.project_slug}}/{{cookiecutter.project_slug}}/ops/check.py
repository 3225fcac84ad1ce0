"""The command ``flask check``: can this configuration work? For a deployment to ask first.

Loading the application has checked every setting by itself: with one that cannot work, the command
prints why and ends with exit code 1. What is left is the Redis that the settings name.
"""

import time
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import with_appcontext
from flask_background import connect_redis, is_verified, without_password
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from ..extensions import celery
{% if cookiecutter.database != "none" %}
from . import database
{% endif %}


def init_app(app: Flask) -> None:
    """Add the command, and say in the log what works but is not safe."""
    app.cli.add_command(check)
    if not is_verified(celery.redis_url):
        app.logger.warning(
            "Redis is spoken to over TLS, but its certificate is not checked: nobody can "
            "listen, but somebody in between could pose as Redis (REDIS_TLS_VERIFY=none)."
        )


@click.command(short_help="Say whether the settings can work and Redis answers.")
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
    with connect_redis(celery.redis_url, timeout=5) as client:
        server = _info(client, wait)
    {% if cookiecutter.database != "none" %}
    said, warning = database.check(wait)
    {% endif %}
    click.echo(f"The {current_app.config['CONFIG_NAME']} settings can work.")
    click.echo(f"Redis {server.get('redis_version', '')} answers.")
    {% if cookiecutter.database != "none" %}
    click.echo(said)
    if warning:
        click.echo(f"Warning: {warning}", err=True)
    {% endif %}
    if drops_tasks(server):
        click.echo(
            "Warning: Redis drops data when its memory is full, tasks among it. "
            f"Set its maxmemory-policy ({server['maxmemory_policy']}) to noeviction.",
            err=True,
        )


def drops_tasks(server: dict[str, Any]) -> bool:
    """Tell whether a Redis drops data when it is full; ``server`` is its INFO."""
    policy = server.get("maxmemory_policy", "noeviction")
    return bool(policy != "noeviction" and server.get("maxmemory"))


def _info(client: Redis, wait: float) -> dict[str, Any]:
    """Return the INFO of Redis. Raises ``ClickException`` when it does not come in time."""
    ends = time.monotonic() + wait
    while True:
        try:
            return dict(client.info())
        except RedisError as error:
            if isinstance(error, AuthenticationError) or time.monotonic() >= ends:
                where = without_password(celery.redis_url)
                raise click.ClickException(
                    f"Redis at {where} does not answer: {error}. Check REDIS_URL."
                ) from None
        time.sleep(0.5)
