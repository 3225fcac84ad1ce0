"""``flask celery dead …``: look at the dead letters, send them again, or drop them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from redis.exceptions import RedisError

from ..base.errors import BackgroundError
from ..core import Core, find_core
from ..state import failed
from ..state.failed import FAILED, GIVEN_UP, REFUSED, FailedTask


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
    """Tasks that were given up: they ended their worker, could not be read, or were not signed."""


@dead.command("list")
@with_appcontext
def list_() -> None:
    """List them, the latest first."""
    for letter in _all():
        call = f"{letter.name or '?'}{letter.args}"
        click.echo(f"{letter.id}  {letter.date:%Y-%m-%d %H:%M:%S}Z  {call[:60]}  {letter.reason}")


@dead.command()
@click.argument("letter_id", metavar="ID")
@with_appcontext
def show(letter_id: str) -> None:
    """Show all of one, as JSON."""
    click.echo(json.dumps(asdict(_one(letter_id)), indent=2))


@dead.command()
@click.argument("letter_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--unsigned", is_flag=True, help="Those too that this application did not sign.")
@with_appcontext
def requeue(letter_id: str | None, every: bool, unsigned: bool) -> None:
    """Send one again, as if it were new, or with --all each."""
    _each(letter_id, every, partial(failed.send_again, unsigned=unsigned), "sent again")


@dead.command()
@click.argument("letter_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@with_appcontext
def drop(letter_id: str | None, every: bool) -> None:
    """Throw one away, or with --all each."""
    _each(letter_id, every, failed.drop, "dropped")


def _each(
    letter_id: str | None, every: bool, do: Callable[[Core, FailedTask], object], done: str
) -> None:
    if (letter_id is None) != every:
        raise click.UsageError("Give the ID of one, or --all.")
    core = find_core(current_app)
    for letter in [_one(letter_id)] if letter_id else _all():
        try:
            result = done if do(core, letter) else "gone already"
        except BackgroundError as error:
            if not every:
                raise
            result = str(error)
        click.echo(f"{letter.id}  {result}")


def _all() -> list[FailedTask]:
    core = find_core(current_app)
    letters = failed.latest(core, GIVEN_UP) + failed.latest(core, REFUSED)
    return sorted(letters, key=lambda letter: letter.at, reverse=True)


def _one(letter_id: str) -> FailedTask:
    letter = failed.find(find_core(current_app), letter_id)
    if letter is None or letter.kind == FAILED:
        raise BackgroundError(
            f"No dead letter has the id {letter_id!r}. See: flask celery dead list"
        )
    return letter
