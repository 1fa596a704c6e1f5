"""The engine's own database connection.

The queue is worked on connections of its own for the same alias, so that user code that breaks a transaction, closes
connections or holds locks cannot touch it. One is used by one process; its lock makes it usable from any thread.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any, TypeVar

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

from ... import exceptions
from .dialect import Dialect
from .turns import Turn

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a deadlock or a busy database is tried again before the caller hears of it.
ATTEMPTS = 8


class Engine:
    """A private connection, its dialect, and reconnecting."""

    def __init__(self, alias: str, dialect: Dialect) -> None:
        self.alias = alias
        self.dialect = dialect
        self._lock = threading.RLock()
        self._connection: BaseDatabaseWrapper | None = None
        self._turn = Turn()
        #: Grows with every new connection: a caller that sees it change must ask what it holds.
        self.generation = 0

    @contextmanager
    def session(self) -> Iterator[BaseDatabaseWrapper]:
        """Give the connection to one thread, making it if need be; drop it after any database error.

        Raises :class:`~django_tasks.exceptions.OperationalError` when the server cannot be reached or the connection
        broke:
        whether a statement in flight took effect is then unknown.
        """
        with self._lock:
            try:
                yield self._open()
            except (OperationalError, InterfaceError) as error:
                self.close()
                raise exceptions.OperationalError(f"The database {self.alias!r} cannot be reached: {error}") from error
            except DatabaseError:
                self.close()
                raise

    def transaction(self, work: Callable[[Any], T]) -> T:
        """Run ``work(cursor)`` in one transaction; again after a deadlock or a busy database.

        ``work`` may therefore run several times; only the last run counts.
        """
        begin = self.dialect.begin
        for attempt in range(1, ATTEMPTS + 1):
            with self.session() as connection, self._turn.taken(), connection.cursor() as cursor:
                try:
                    cursor.execute(begin)
                    value = work(cursor)
                    cursor.execute("COMMIT")
                    return value
                except BaseException as error:
                    transient = isinstance(error, OperationalError) and self.dialect.is_transient(error)
                    if not self._rolled_back(cursor) or not transient or attempt == ATTEMPTS:
                        raise
            time.sleep(random.uniform(0, 0.002 * 2**attempt))
        raise AssertionError("unreachable")

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement in its own transaction; return the number of rows it touched."""

        def work(cursor: Any) -> int:
            cursor.execute(sql, params)
            return int(cursor.rowcount)

        return self._retry(work, writes=True)

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one query; return its rows."""

        def work(cursor: Any) -> list[tuple[Any, ...]]:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

        return self._retry(work)

    def close(self) -> None:
        """Close the connection; the next use makes a new one. Needed before a fork: none may cross it."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                try:
                    connection.close()
                except Exception:
                    logger.debug("Closing a broken connection failed", exc_info=True)
            self._turn.close()

    def _retry(self, work: Callable[[Any], T], *, writes: bool = False) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            with (
                self.session() as connection,
                self._turn.taken() if writes else nullcontext(),
                connection.cursor() as cursor,
            ):
                try:
                    return work(cursor)
                except OperationalError as error:
                    if attempt == ATTEMPTS or not self.dialect.is_transient(error):
                        raise
            time.sleep(random.uniform(0, 0.002 * 2**attempt))
        raise AssertionError("unreachable")

    def _open(self) -> BaseDatabaseWrapper:
        if self._connection is None:
            template = connections[self.alias].settings_dict
            settings = deepcopy(template)
            settings.update(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=False, ATOMIC_REQUESTS=False, AUTOCOMMIT=True)
            settings["OPTIONS"] = self.dialect.connection_options(settings.get("OPTIONS") or {})
            wrapper: BaseDatabaseWrapper = load_backend(settings["ENGINE"]).DatabaseWrapper(settings, self.alias)
            wrapper.inc_thread_sharing()
            wrapper.ensure_connection()  # which translates the driver's errors
            self.dialect.prepare_session(wrapper)
            self._turn = self.dialect.turn(wrapper)
            self._connection = wrapper
            self.generation += 1
        return self._connection

    def _rolled_back(self, cursor: Any) -> bool:
        try:
            cursor.execute("ROLLBACK")
        except DatabaseError:
            self.close()
            return False
        return True
