"""Asking the database for a caller who waits no longer than it said, whether the server answers or not."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, connections
from django.utils.asyncio import async_unsafe

from ..exceptions import OperationalError as Unreachable

T = TypeVar("T")

#: Seconds for which an answer may come after the caller's time is up, and for which a thread is awaited at its end.
GRACE, PARTING = 0.5, 0.2
#: Seconds without an answer after which a connection is given up, and a new one made.
STALLED = 10.0
#: Seconds between tries to reach a database: at first, and at most.
PAUSE, LONGEST_PAUSE = 0.1, 1.0

BROKEN = (OperationalError, InterfaceError, Unreachable)


class Unanswered(Exception):
    """The database did not answer in time."""


class Lookout:
    """Asks one database, in a thread, so that the caller can leave when its time is up.

    No driver bounds every wait for a server that has stopped answering, or for a network that swallows what is sent. A
    thread that is left behind has its connection cut, and so ends, too.

    The connection is the caller's own if that is open, and while it lives; else one made for this. ``apart`` always
    takes another one than the caller's: it sees what everybody sees. SQLite has no server, and is asked directly.
    Used by one thread, by one wait.
    """

    def __init__(self, alias: str, *, apart: bool = False) -> None:
        self._alias = alias
        mine: Any = connections[alias]
        #: There is no other view of a database in memory.
        self.alone = mine.vendor == "sqlite" and mine.is_in_memory_db()
        self._direct = mine.vendor == "sqlite" and (self.alone or not apart)
        self._mine = None if apart or mine.connection is None else mine
        self._in_transaction = self._mine is not None and mine.in_atomic_block
        self._asker: _Asker | None = None

    @async_unsafe("get() would stop the event loop for as long as it waits: await aget() instead.")
    def ask(self, question: Callable[[], T], end: float | None, unwanted: Callable[[T], object] | None = None) -> T:
        """Return what ``question()`` returns, run where ``connections`` lead to this lookout's connection.

        ``end`` by ``time.monotonic()``; ``None``: a connection that does not answer is replaced for ever, but for that
        of an open transaction, which nothing can replace: its errors are raised. An answer that comes when nobody
        waits for it any more goes to ``unwanted``.

        Raises :class:`Unanswered` when the time is up, at most :data:`GRACE` and :data:`PARTING` late.
        """
        if self._direct:
            return question()
        pause = PAUSE
        while True:
            try:
                return self._ask(question, end, unwanted)
            except (*BROKEN, Unanswered) as error:
                kept = self._in_transaction
                self.close(cut=True)
                if kept and not isinstance(error, Unanswered):
                    raise
                left = LONGEST_PAUSE if end is None else end - time.monotonic()
                if left <= 0:
                    raise Unanswered(str(error)) from error
            time.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE)

    def close(self, *, cut: bool = False) -> None:
        """End the thread; ``cut`` what it is at, and the connection with it."""
        asker, self._asker = self._asker, None
        if asker is not None:
            asker.end(cut=cut)
        if cut and self._mine is not None:
            mine, self._mine = self._mine, None
            if asker is not None and asker.lives:
                del connections[self._alias]  # it is still in use: the caller gets another one
            else:
                mine.close()

    def _ask(self, question: Callable[[], T], end: float | None, unwanted: Callable[[T], object] | None) -> T:
        if end is None:
            patience = None if self._in_transaction else STALLED
        else:
            left = max(0.0, end - time.monotonic()) + GRACE
            patience = left if self._in_transaction else min(left, STALLED)
        if self._asker is None:
            self._asker = _Asker(self._alias, self._mine)
        answer = self._asker.put(question, unwanted)
        answered = threading.Event()
        answer.add_done_callback(lambda _: answered.set())
        # What came in this very moment cannot be cancelled any more.
        if not answered.wait(patience) and answer.cancel():
            raise Unanswered("the database does not answer")
        return answer.result()


class _Asker:
    """A thread, and the connection to which an alias leads in it."""

    def __init__(self, alias: str, shared: Any) -> None:
        self._alias = alias
        self._shared = shared
        self._connection = shared
        self._questions: SimpleQueue[tuple[Callable[[], Any], Any, Future[Any]] | None] = SimpleQueue()
        if shared is not None:
            shared.inc_thread_sharing()
        # A daemon: while a server does not let it connect, the process can end all the same.
        self._thread = threading.Thread(target=self._run, name="django_tasks lookout", daemon=True)
        self._thread.start()

    @property
    def lives(self) -> bool:
        return self._thread.is_alive()

    def put(self, question: Callable[[], T], unwanted: Callable[[T], object] | None) -> Future[T]:
        answer: Future[T] = Future()
        self._questions.put((question, unwanted, answer))
        return answer

    def end(self, *, cut: bool) -> None:
        if cut and self._connection is not None:
            _shut_down(self._connection)
        self._questions.put(None)
        self._thread.join(PARTING)  # longer only while it connects to a server that does not answer
        if self._shared is not None:
            self._shared.dec_thread_sharing()

    def _run(self) -> None:
        if self._shared is not None:
            connections[self._alias] = self._shared
        else:
            self._connection = connections[self._alias]
            self._connection.settings_dict = _bounded(self._connection.settings_dict, self._connection.vendor)
        while (asked := self._questions.get()) is not None:
            question, unwanted, answer = asked
            try:
                value = question()
            except BaseException as error:
                _settle(answer.set_exception, error)
            else:
                if not _settle(answer.set_result, value) and unwanted is not None:
                    unwanted(value)
            del asked, question, unwanted, answer
        if self._shared is None:
            with suppress(*BROKEN):
                self._connection.close()


def _settle(setter: Callable[[Any], None], value: Any) -> bool:
    """Give an answer; False if nobody waits for it any more."""
    try:
        setter(value)
    except InvalidStateError:
        return False
    return True


def _bounded(settings: dict[str, Any], vendor: str) -> dict[str, Any]:
    """Return the settings of a connection that gives up by itself where its driver can."""
    options = {key: value for key, value in settings["OPTIONS"].items() if key != "pool"}
    if vendor == "postgresql":
        options = {"connect_timeout": int(STALLED), "tcp_user_timeout": int(2_000 * STALLED), **options}
    elif vendor == "mysql":
        options |= {"connect_timeout": int(STALLED), "read_timeout": int(STALLED)}
    return {**settings, "OPTIONS": options}


def _shut_down(connection: Any) -> None:
    """Wake whoever waits for this connection's server: from now on its socket is at its end."""
    raw: Any = connection.connection
    # psycopg and mysqlclient tell the descriptor; PyMySQL does not.
    owner: Any = raw if hasattr(raw, "fileno") else getattr(raw, "_sock", None)
    with suppress(Exception), socket.socket(fileno=os.dup(owner.fileno())) as sock:  # closed or not open yet
        sock.shutdown(socket.SHUT_RDWR)
