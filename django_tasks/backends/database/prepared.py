"""Statements prepared on Django's own PostgreSQL connection, so that they join whatever transaction the caller is in.

Django's cursor has each statement parsed and planned anew, and its preparation in the client costs more than the whole
round trip of a prepared one. Not every connection keeps what was prepared, though: ``DISCARD ALL`` takes it away, and
behind a pooler the next transaction may meet another server process. So nothing is trusted that could cost more than
time: outside of a transaction a lost statement is an error without effect, after which Django's cursor does the work;
inside of one, where any error would break the caller's work, the server is asked first. The names tell the statements'
texts apart, so that no session can have another statement under one of them.

Imports psycopg 3, so it is imported only where Django uses that.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from django.db.backends import utils
from psycopg import Connection
from psycopg.errors import DuplicatePreparedStatement, InvalidSqlStatementName, error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus

_PREFIX = "django_tasks_"
#: What the server process has that the caller's transaction runs in.
PRESENT = f"SELECT name FROM pg_prepared_statements WHERE starts_with(name, '{_PREFIX}')"
#: A connection that lost a statement so often will lose it again.
LOSSES_MOST = 3


class _Session:
    """What is known of one connection to the server."""

    def __init__(self, wrapper: Any) -> None:
        self.usable = not wrapper.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS") and not _is_traced(wrapper)
        #: Is this its second use? What is closed after one statement had better not prepare it.
        self.used = False
        self.names: set[bytes] = set()
        self.losses = 0
        #: The transaction in which the server was asked, and whether it had what we prepared.
        self.asked_in: object = None
        self.trusted = False


_sessions: WeakKeyDictionary[Connection[Any], _Session] = WeakKeyDictionary()


class Statement:
    """A statement with a place for each parameter, marked ``%s`` as for Django's cursor, and no other ``%``."""

    def __init__(self, sql: str) -> None:
        first, *rest = sql.split("%s")
        self.sql = (first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))).encode()
        self.name = f"{_PREFIX}{zlib.crc32(self.sql):08x}".encode()

    def run(self, wrapper: Any, parameters: Sequence[Any], *, transaction: object = None) -> bool:
        """Run on the connection of Django's ``wrapper`` if that is cheaper and safe; ``False``: it did not run.

        ``parameters`` are texts, numbers, truth values, moments and ``None``. ``transaction`` is one and the same
        object throughout a transaction of the caller; while it is ``None``, nothing is prepared within one.

        Raises what Django's cursor would. ``False`` whenever somebody wants to see Django's cursor run it: queries are
        logged, ``execute_wrapper()`` is in use, or the method ``cursor`` of the connection has been replaced.
        """
        if wrapper.execute_wrappers or wrapper.queries_logged or "cursor" in vars(wrapper):
            return False
        # As Django's cursor() begins.
        wrapper.close_if_health_check_failed()
        wrapper.ensure_connection()
        wrapper.validate_thread_sharing()
        connection = wrapper.connection
        session = _sessions.get(connection)
        if session is None:
            session = _sessions[connection] = _Session(wrapper)
        if not session.usable:
            return False
        outside = not wrapper.in_atomic_block
        if not (_is_idle(connection) if outside else _is_trusted(wrapper, session, transaction)):
            return False
        texts = _as_texts(parameters)
        if texts is None:
            return False
        pgconn = connection.pgconn
        with wrapper.wrap_database_errors:
            if self.name not in session.names:
                if outside and not session.used:
                    session.used = True
                    return False
                try:
                    _answer(connection, lambda: pgconn.send_prepare(self.name, self.sql))
                except DuplicatePreparedStatement:  # by another client of the same server process, or before a loss
                    if not outside:
                        raise
                session.names.add(self.name)
            try:
                _answer(connection, lambda: pgconn.send_query_prepared(self.name, texts))
            except InvalidSqlStatementName:
                session.names.clear()
                session.losses += 1
                session.usable = session.losses < LOSSES_MOST
                if not outside:
                    raise
                return False
        return True


def _is_traced(wrapper: Any) -> bool:
    """Has a tool put cursors of its own in the place of Django's, or a function in the place of their ``execute``?"""
    execute = utils.CursorWrapper.execute
    return (
        wrapper.connection.cursor_factory.__module__ != "django.db.backends.postgresql.base"
        or type(execute) is not FunctionType
        or execute.__globals__ is not vars(utils)
    )


def _is_idle(connection: Connection[Any]) -> bool:
    """Is there no transaction, and will the statement be one of its own?"""
    pgconn = connection.pgconn
    return (
        connection.autocommit
        and pgconn.transaction_status == TransactionStatus.IDLE
        and pgconn.pipeline_status == PipelineStatus.OFF
    )


def _is_trusted(wrapper: Any, session: _Session, transaction: object) -> bool:
    """Does the server process of this open transaction have all that we prepared? It is asked once."""
    connection = wrapper.connection
    pgconn = connection.pgconn
    if (
        transaction is None
        or pgconn.transaction_status != TransactionStatus.INTRANS
        or pgconn.pipeline_status != PipelineStatus.OFF
        # psycopg, if it prepares by itself, drops all statements when a table is dropped or a savepoint rolled back.
        or connection.prepare_threshold is not None
    ):
        return False
    wrapper.validate_no_broken_transaction()
    if session.asked_in is not transaction:
        with wrapper.cursor() as cursor:
            cursor.execute(PRESENT)
            present = {name.encode() for (name,) in cursor.fetchall()}
        session.asked_in, session.trusted = transaction, session.names <= present
        session.names |= present
    return session.trusted


_WRITTEN: dict[type, Callable[[Any], bytes]] = {
    str: str.encode,
    bool: lambda value: b"t" if value else b"f",
    int: b"%d".__mod__,
    float: lambda value: repr(value).encode(),
    datetime: lambda value: value.isoformat().encode(),
}


def _as_texts(parameters: Sequence[Any]) -> list[bytes | None] | None:
    """Return parameters in the server's text format; ``None`` if one is of another type, or has a NUL byte: there, that
    would be its end."""
    try:
        texts = [None if value is None else _WRITTEN[type(value)](value) for value in parameters]
    except KeyError:
        return None
    return None if b"\0" in b"".join(filter(None, texts)) else texts


def _answer(connection: Connection[Any], send: Callable[[], None]) -> None:
    """Send to the server and wait for its answer, as psycopg's cursors do: other threads run, Ctrl-C is heard."""
    with connection.lock:
        send()
        results = connection.wait(execute(connection.pgconn))
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
