"""``flask celery dead …``: look at the dead letters, send them again, or drop them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from redis.exceptions import RedisError

from ..state import failed as dead_letters
from ..app import FlaskCelery, find_celery
from ..state.failed import DeadLetter
from ..base.errors import BackgroundError


class _Group(click.Group):
    """Says an error in a sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BackgroundError as error:
            raise click.ClickException(str(error)) from None
        except RedisError as error:
            raise click.ClickException(f"Redis does not answer: {error}") from None


@click.group(cls=_Group)
def dead() -> None:
    """Tasks that were given up: they ended their worker each time, or nobody could read them."""


@dead.command("list")
@with_appcontext
def list_() -> None:
    """List them, the latest first."""
    for letter in dead_letters.read(_celery()):
        call = f"{letter.name or '?'}{letter.args}"
        click.echo(f"{letter.id}  {letter.date:%Y-%m-%d %H:%M:%S}Z  {call[:60]}  {letter.reason}")


@dead.command()
@click.argument("letter_id", metavar="ID")
@with_appcontext
def show(letter_id: str) -> None:
    """Show all of one, as JSON."""
    click.echo(json.dumps(asdict(dead_letters.find(_celery(), letter_id)), indent=2))


@dead.command()
@click.argument("letter_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@with_appcontext
def requeue(letter_id: str | None, every: bool) -> None:
    """Send one again, as if it were new."""
    _each(letter_id, every, dead_letters.requeue, "sent again")


@dead.command()
@click.argument("letter_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@with_appcontext
def drop(letter_id: str | None, every: bool) -> None:
    """Throw one away."""
    _each(letter_id, every, dead_letters.drop, "dropped")


def _each(
    letter_id: str | None, every: bool, do: Callable[[FlaskCelery, DeadLetter], bool], done: str
) -> None:
    if (letter_id is None) != every:
        raise click.UsageError("Give the ID of one, or --all.")
    celery = _celery()
    chosen = [dead_letters.find(celery, letter_id)] if letter_id else dead_letters.read(celery)
    for letter in chosen:
        try:
            result = done if do(celery, letter) else "gone already"
        except BackgroundError as error:
            if not every:
                raise
            result = str(error)
        click.echo(f"{letter.id}  {result}")


def _celery() -> FlaskCelery:
    return find_celery(current_app)
