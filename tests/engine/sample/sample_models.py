"""The database of the sample application, for the tests of arguments that are rows of it."""

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What Flask-SQLAlchemy makes its models from."""


db = SQLAlchemy(model_class=Base)


class Person(db.Model):  # type: ignore[name-defined,misc,unused-ignore]
    """A row with a simple key."""

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
