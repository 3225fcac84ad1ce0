"""Migrations that tests add to a project with a database."""

from __future__ import annotations

import re
from pathlib import Path

GOOD = 'op.create_table("of_a_test", sa.Column("id", sa.Integer, primary_key=True))'
OTHER = GOOD.replace("of_a_test", "other")
#: The table that it makes first must not be there afterwards.
BAD = GOOD.replace("of_a_test", "half_done") + '\n    op.execute("nonsense")'


def write(project: Path, what: str, name: str = "9999_of_a_test") -> Path:
    """Write a migration that comes after all others of the project; one of that name goes first."""
    folder = project / project.name / "migrations" / "versions"
    file = folder / f"{name}.py"
    file.unlink(missing_ok=True)
    texts = [path.read_text() for path in folder.glob("*.py")]
    known = {_value("revision", text) for text in texts}
    (newest,) = known - {_value("down_revision", text) for text in texts}
    file.write_text(
        f"""import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = "{newest}"


def upgrade() -> None:
    {what}
"""
    )
    return file


def _value(name: str, text: str) -> str:
    """Return what a migration gives a name; an empty text for None."""
    found = re.search(rf"^{name}\b[^=]*= *\"(.+)\"", text, re.MULTILINE)
    return found[1] if found else ""


def tables(drilled: bytes) -> int:
    """Return how many tables a drill found."""
    return int(drilled.split(b" tables, ")[0])
