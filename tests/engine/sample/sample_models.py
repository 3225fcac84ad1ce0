"""The database of the sample application: rows as arguments, and tasks sent on commit."""

import os
import signal

from flask import current_app
from flask_background.database import Database
from sqlalchemy import event, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


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


def names() -> list[str]:
    """Read the names in the order of the rows."""
    return list(db.session.scalars(select(Person.name).order_by(Person.id)))


def die_after_commit(prefix: str, times: int) -> None:
    """Send tasks on commit, and be killed before the last one can be sent."""
    celery = current_app.extensions["celery"]
    for number in range(times):
        if number == times - 1:
            event.listen(db.session, "after_commit", lambda _: os.kill(os.getpid(), signal.SIGKILL))
        celery.submit(write, f"{prefix}{number}", on_commit=True)
        db.session.commit()
