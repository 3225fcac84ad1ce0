"""The models: what the rows of the application are. After a change: ``flask db migrate``.

https://docs.sqlalchemy.org/en/21/orm/quickstart.html
"""

{% if cookiecutter.include_examples == "yes" %}
from datetime import datetime

from sqlalchemy import DateTime, MetaData, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
{% else %}
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase
{% endif %}


class Base(DeclarativeBase):
    """What all models are made from."""

    #: Names for what has none, so that a migration can change it later, on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
{% if cookiecutter.include_examples == "yes" %}


class Version(Base):
    """Example: a version of the manifest, and who looked when it was found."""

    __tablename__ = "version"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    found_by: Mapped[str]
    found_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.current_timestamp()
    )
{% endif %}
