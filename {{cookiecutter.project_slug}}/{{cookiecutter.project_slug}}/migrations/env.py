"""What ``flask db …`` runs: all migrations that are to come, in one transaction, under a lock."""

import click
from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from flask import current_app
from flask_background.database import once_there
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

#: Seconds that the database may take until it answers.
WAIT = 20

db = current_app.extensions["sqlalchemy"]


def connect() -> Connection:
    """Connect, as soon as the database answers. Raises ``ClickException``."""
    try:
        return once_there(lambda: db.engine.connect(), WAIT)  # type: ignore[no-any-return]
    except SQLAlchemyError as error:
        raise click.ClickException(f"The database does not answer: {error}") from None


def lock(connection: Connection) -> None:
    """Wait until nobody else migrates, and keep others from it until the transaction ends."""
    {% if cookiecutter.database == "postgresql" %}
    # Waiting for a table longer than this would make all who use it wait as well.
    connection.execute(text("SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(7305807311)"))
    {% else %}
    connection.execute(text("PRAGMA foreign_keys = OFF"))  # a table may be made anew
    connection.execute(text("BEGIN IMMEDIATE"))
    {% endif %}


def is_ahead(connection: Connection) -> bool:
    """Whether the database has had migrations that this version does not know."""
    for revision in MigrationContext.configure(connection).get_current_heads():
        try:
            context.script.get_revision(revision)
        except CommandError:
            click.echo(f"The database is ahead of this version: revision {revision} stays.")
            return True
    return False


with connect() as connection:
    lock(connection)
    if not is_ahead(connection):
        context.configure(
            connection=connection,
            target_metadata=db.metadata,
            transactional_ddl=True,
            render_as_batch=connection.dialect.name == "sqlite",
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
