"""A database whose transactions also send tasks: Flask-SQLAlchemy, and an outbox.

The second face of the engine, only there in projects with a database. Whatever is public is here;
the project's docs/database.md shows it with examples.
"""

from .connections import Database, database_url
from .outages import is_away, once_there

__all__ = ["Database", "database_url", "is_away", "once_there"]
