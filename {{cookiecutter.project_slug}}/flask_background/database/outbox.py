"""The outbox: tasks that are sent when the transaction that they belong to commits.

``submit(…, on_commit=True)`` notes a task in the session. Just before the commit all that was noted
becomes rows, in the same transaction; after it they are sent in the order of their numbers, and go.
What could not be sent, because Redis was away or the process died, the workers send: each looks
every few seconds (``Core.chores``). Who sends holds a lock in Redis, and who writes holds one in
the database, so that the tasks of a queue come in order of commit. A process that dies between
sending and deleting has its last tasks sent again, with the same ids: at least once.
"""

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.result import AsyncResult
from celery.utils import uuid
from flask import g
from flask_sqlalchemy import SQLAlchemy
from kombu.utils.json import dumps, loads
from redis.exceptions import LockError, RedisError
from redis.lock import Lock
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    Table,
    Text,
    delete,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction

from ..base.errors import BrokerUnavailable
from ..core import Core
from ..sending.tasks import FlaskTask

logger = logging.getLogger(__name__)

#: How many rows are sent before they are deleted: at most so many are sent twice.
_BATCH = 100
#: Seconds after which the lock of a sender that died is free; renewed with each batch.
_LEASE = 10
#: The number of the lock in PostgreSQL; any will do that nobody else takes.
_LOCK = 7_305_807_310


class Outbox:
    """The table, and who writes and empties it."""

    def __init__(self, db: SQLAlchemy) -> None:
        number = BigInteger().with_variant(Integer, "sqlite")
        self.table = Table(
            "outbox",
            db.metadata,
            Column("id", number, primary_key=True),
            Column("message", Text, nullable=False),
            # Or SQLite gives the number of a row that is gone again, and its order is lost.
            sqlite_autoincrement=True,
        )
        self._db = db
        self._complained = False
        event.listen(db.session, "before_commit", self._write)
        event.listen(db.session, "after_soft_rollback", self._forget)
        event.listen(db.session, "after_transaction_end", self._ended)

    def init_app(self, core: Core) -> None:
        """Take what ``core`` sends on commit, and have its workers look for what waits."""
        self._core = core
        core.keep = self.keep
        core.chores["outbox"] = self.send_waiting

    def keep(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Note a task for the commit of the session; return its result, as ``apply_async`` does."""
        self._core.refuse_queue(options.get("queue"))
        now = datetime.now(UTC)
        if (countdown := options.pop("countdown", None)) is not None:
            options["eta"] = now + timedelta(seconds=countdown)
        if isinstance(expires := options.get("expires"), int | float):
            options["expires"] = now + timedelta(seconds=expires)
        if request_id := g.get("request_id"):
            options["headers"] = {"request_id": request_id, **(options.get("headers") or {})}
        task_id = options.setdefault("task_id", uuid())
        session = self._db.session()
        if not session.in_transaction():
            session.begin()  # so that a rollback is told of, even if nothing else happens before
        part_of = session.get_nested_transaction() or session.get_transaction()
        noted = session.info.setdefault("outbox", [])
        noted.append((part_of, dumps([name, args, kwargs, options])))
        return AsyncResult(task_id, backend=self._core.backend, task_name=name, app=self._core)

    def waiting(self) -> int:
        """Count the tasks that were committed and not sent yet."""
        with self._core.flask_app.app_context(), self._session() as session:
            return session.scalar(select(func.count()).select_from(self.table)) or 0

    def _session(self) -> Session:
        """Make a session of its own, in tests on the same connection as the application's."""
        return Session(self._db.engine, join_transaction_mode="create_savepoint")

    # What the session tells

    def _write(self, session: Session) -> None:
        """Make rows of what was noted, as the last thing before the commit."""
        if session.in_nested_transaction() or not session.info.get("outbox"):
            return
        session.flush()
        if session.get_bind().dialect.name == "postgresql":
            # Numbers in order of commit: until then nobody else takes one. SQLite has one writer.
            session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        noted = session.info.pop("outbox")
        session.execute(insert(self.table), [{"message": message} for _, message in noted])
        session.info["outbox written"] = True

    def _forget(self, session: Session, ended: SessionTransaction) -> None:
        """Forget what was noted in a transaction, or in a savepoint, that was rolled back."""
        noted = session.info.get("outbox", [])
        session.info["outbox"] = [entry for entry in noted if not _is_part_of(entry[0], ended)]

    def _ended(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            session.info.pop("outbox", None)
            if session.info.pop("outbox written", False):
                self.send_waiting()

    # Sending

    def send_waiting(self) -> None:
        """Send what was committed. What cannot be sent now stays; the log says why."""
        if self._core.conf.task_always_eager:
            self._run_all()
            return
        try:
            with self._core.flask_app.app_context():
                # Once more after the lock was given back: who came meanwhile did not get it.
                while self._is_any() and self._send_all():
                    pass
            self._complained = False
        except (BrokerUnavailable, RedisError, SQLAlchemyError) as error:
            if not self._complained:
                logger.warning("Tasks that were committed wait in the outbox: %s", error)
            self._complained = True

    def _is_any(self) -> bool:
        with self._session() as session:
            return session.scalar(select(self.table.c.id).limit(1)) is not None

    def _send_all(self) -> bool:
        """Send all rows, if nobody else does. Returns whether to look again."""
        core = self._core
        lock = Lock(core.redis, f"{core.keys.prefix}background:outbox", _LEASE, blocking=False)
        if not lock.acquire():
            return False
        last, all_sent = 0, True
        try:
            while rows := self._rows(last):
                all_sent &= self._send(rows)
                last = rows[-1].id
                lock.reacquire()
        except LockError:
            return False  # it took longer than the lease: another goes on
        finally:
            with suppress(LockError, RedisError):
                lock.release()
        return all_sent

    def _rows(self, last: int) -> list[Any]:
        which = select(self.table).where(self.table.c.id > last)
        with self._session() as session:
            return list(session.execute(which.order_by(self.table.c.id).limit(_BATCH)))

    def _send(self, rows: list[Any]) -> bool:
        """Send rows and delete what was sent. Returns whether that is all of them.

        They are deleted first, and sent before that is committed: a database that can be read and
        not be written to would have them sent at each look. What somebody else deleted is theirs.
        """
        sent = []
        with self._session() as session:
            mine = self._drop(session, [row.id for row in rows])
            rows = [row for row in rows if row.id in mine]
            try:
                for row in rows:
                    try:
                        self._send_one(row.message)
                    except BrokerUnavailable:
                        raise
                    except Exception:
                        logger.exception("A task in the outbox (row %d) cannot be sent.", row.id)
                    else:
                        sent.append(row.id)
            finally:
                if len(sent) < len(rows):
                    session.rollback()
                    self._drop(session, sent)
                session.commit()
        return len(sent) == len(rows)

    def _drop(self, session: Session, numbers: list[int]) -> set[int]:
        """Delete rows; return which of them were there."""
        number = self.table.c.id
        return set(session.scalars(delete(self.table).where(number.in_(numbers)).returning(number)))

    def _send_one(self, message: str) -> None:
        name, args, kwargs, options = loads(message)
        # Not patiently, as a worker sends: nobody could write to SQLite until Redis is back.
        options["retry"] = False
        task = self._core.tasks.get(name)
        if isinstance(task, FlaskTask):
            task.send_prepared(args, kwargs, **options)
        else:
            self._core.send_task(name, args, kwargs, **options)

    def _run_all(self) -> None:
        """Run the tasks here, as eager ones do: each commit of theirs may find the next ones."""
        while rows := self._rows(0)[:1]:
            with self._session() as session:
                self._drop(session, [rows[0].id])
                session.commit()
            self._send_one(rows[0].message)


def _is_part_of(transaction: SessionTransaction | None, whole: SessionTransaction) -> bool:
    while transaction is not None and transaction is not whole:
        transaction = transaction.parent
    return transaction is whole
