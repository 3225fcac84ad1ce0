"""The database of the sample application: rows as arguments, and tasks sent on commit."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from flask import current_app
from flask_background.database import Database, once_there
from sample_app import note
from sqlalchemy import event, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: Seconds that the database may be away.
OUTAGE = 150.0


class Base(DeclarativeBase):
    """What Flask-SQLAlchemy makes its models from."""


db = Database(Base)


class Person(Base):
    """A row with a simple key."""

    __tablename__ = "person"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def greet(person: Person, *others: Person) -> list[str]:
    """Say the names, which only a loaded row knows."""
    return [f"hello {one.name}" for one in (person, *others)]


def add_and_forget(name: str) -> int:
    """Leave a row uncommitted in the session; say how many are there already."""
    waiting = len(db.session.new)
    db.session.add(Person(name=name))
    return waiting


def is_attached(person: Person) -> bool:
    """Whether the row belongs to the session of this task."""
    return person in db.session


def write(name: str) -> int:
    """Read, add a row and commit, as two transactions do that meet."""
    known = db.session.scalar(select(func.count()).select_from(Person)) or 0
    db.session.add(Person(name=name))
    db.session.commit()
    return known


def write_on(name: str, seconds: float) -> int:
    """Write row after row; return how many."""
    ends, rows = time.monotonic() + seconds, 0
    while not rows or time.monotonic() < ends:
        write(name)
        rows += 1
    return rows


def names() -> list[str]:
    """Read the names in the order of the rows."""
    return list(db.session.scalars(select(Person.name).order_by(Person.id)))


def commit_rows(ledger: str, wanted: list[str], pause: float = 0, die_at: int = 0) -> None:
    """Commit a row for each name, with a task on commit; before every third take one back.

    It goes on when the database is back. With ``die_at`` this process is killed after that many
    commits, before the last task can be sent.
    """
    for number, name in enumerate(wanted, 1):
        if number % 3 == 0:
            _add_row(ledger, f"undone-{name}")
            db.session.rollback()
        once_there(partial(_commit_row, ledger, name, die=number == die_at), OUTAGE)
        time.sleep(pause)


def _add_row(ledger: str, name: str) -> None:
    db.session.add(Person(name=name))
    current_app.extensions["celery"].submit(find_row, ledger, name, on_commit=True)


def _commit_row(ledger: str, name: str, *, die: bool) -> None:
    began = time.monotonic()

    def note_commit(*_: object) -> None:
        note(f"{ledger}.commits", f"{name} {began} {time.monotonic() - began}")
        if die:
            os.kill(os.getpid(), signal.SIGKILL)

    with rolled_back_on_errors():
        if _has_row(name):
            return  # the answer to the commit was lost
        _add_row(ledger, name)
        if die:
            event.listen(db.session, "after_commit", note_commit)
        db.session.commit()
    note_commit()


def find_row(ledger: str, name: str) -> None:
    """Note that this task ran, and whether its row is there, in the form of tests/faults."""
    note(ledger, f"start {name} {os.getpid()} {time.monotonic()}")
    found = once_there(partial(_has_row, name), OUTAGE)
    note(ledger, f"{'end' if found else 'alone'} {name} {os.getpid()} {time.monotonic()}")


def _has_row(name: str) -> bool:
    with rolled_back_on_errors():
        return db.session.scalar(select(Person.id).where(Person.name == name)) is not None


@contextmanager
def rolled_back_on_errors() -> Iterator[None]:
    """Let the session be used again after the database was away."""
    try:
        yield
    except SQLAlchemyError:
        db.session.rollback()
        raise
