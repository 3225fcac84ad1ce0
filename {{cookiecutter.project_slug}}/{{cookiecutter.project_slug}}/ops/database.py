"""The database, as an operator sees it: does it answer, and which migrations has it had?"""

import logging
from pathlib import Path

import click
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from flask import Flask, current_app
from flask.typing import ResponseReturnValue
from flask_background.database import is_away, once_there
from sqlalchemy.exc import SQLAlchemyError

from ..extensions import db
from ..web.problems import RETRY_AFTER, problem

AWAY = "The database does not answer."
BEHIND = "The database is behind: {0} of this version is to come. Run: flask db upgrade"
AHEAD = "The database is ahead of this version: revision {0} stays."


def init_app(app: Flask) -> None:
    """Answer 503 while the database is away, as while Redis is."""
    # Each look of /readyz would be two lines.
    logging.getLogger("alembic.runtime.migration").addFilter(_is_no_greeting)
    app.register_error_handler(SQLAlchemyError, _failed)


def _is_no_greeting(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(("Context impl", "Will assume"))


def _failed(error: SQLAlchemyError) -> ResponseReturnValue:
    if not is_away(error):
        raise error
    current_app.logger.warning("The database did not serve this request: %s", error)
    return problem(503, f"{AWAY} Try again soon.", {"Retry-After": str(RETRY_AFTER)})


def revisions() -> tuple[str | None, str | None, bool]:
    """Return the database's revision, what is wrong with it if anything is, and if it is behind."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(db.session.connection()).get_current_revision()
    newest = scripts.get_current_head()
    if current == newest:
        return current, None, False
    try:
        scripts.get_revision(current or "base")
    except CommandError:
        return current, AHEAD.format(current), False
    return current, BEHIND.format(newest), True


def reason() -> str | None:
    """Say why no request that needs the database can be served now, or None."""
    try:
        _, wrong, behind = revisions()
    except SQLAlchemyError as error:
        current_app.logger.warning("The database does not answer: %s", error)
        return AWAY
    return wrong if behind else None


def check(wait: float) -> tuple[str, str | None]:
    """Return what ``flask check`` says, and a warning or None.

    Raises ``ClickException`` when the database does not answer in time.
    """

    def ask() -> tuple[str | None, str | None, bool]:
        try:
            return revisions()
        except SQLAlchemyError:
            db.session.rollback()  # or no later try could use the session
            raise

    try:
        current, wrong, _ = once_there(ask, wait)
    except SQLAlchemyError as error:
        where = db.engine.engine.url.render_as_string(hide_password=True)
        said = str(getattr(error, "orig", None) or error).strip()
        raise click.ClickException(
            f"The database at {where} does not answer: {said}. Check DATABASE_URL."
        ) from None
    return f"The database answers; it is at revision {current or 'none'}.", wrong
