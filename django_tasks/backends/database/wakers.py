"""How a worker, or a caller that waits, hears that something happened in the database."""

from __future__ import annotations

import contextlib
import os
import random
import select
import time
from typing import Any, ClassVar

from django.db import DatabaseError, connections

from ..base import ResultWaker, Waker
from .engine import Engine
from .postgresql import DONE_CHANNEL, WAKE_CHANNEL

#: Seconds between looks, fresh and after :data:`CALM` idle seconds.
LOOK, LOOK_CALM = 0.001, 0.02
CALM = 10.0
#: Seconds for which a change of the log is followed closely, and between the first looks; the later, the rarer they
#: are. A commit is seen only when the disk has it, a moment after its bytes are written, and its last ones may change
#: neither the log's size nor, within one tick of the kernel's clock, its time.
FOLLOW, FOLLOW_LOOK = 0.5, 0.0003
#: The payload of a wake-up for a command.
COMMANDED = "command"
#: Where nothing tells, an idle worker asks every so many seconds at most.
POLL_MOST = 0.5
#: Seconds between looks at a connection that listens, and the net below its notifications.
LISTEN_LOOK, NET = 5.0, 20.0


class Listener(Waker):
    """PostgreSQL: LISTEN on a connection of its own."""

    tells_commands: ClassVar[bool] = True
    net: ClassVar[float] = NET

    def __init__(self, engine: Engine, channel: str = WAKE_CHANNEL) -> None:
        self._engine = engine
        self._commanded = False
        with engine.session() as connection:
            self._raw: Any = connection.connection
            self._raw.execute(f"LISTEN {channel}")

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def interval(self, idle_for: float) -> float:
        return LISTEN_LOOK

    def woken(self) -> bool:
        """Raises :class:`~django_tasks.exceptions.OperationalError` when the connection is gone: make a new waker."""
        with self._engine.session() as connection, connection.wrap_database_errors:
            payloads = [each.payload for each in self._raw.notifies(timeout=0)]
        self._commanded |= COMMANDED in payloads
        return any(payload != COMMANDED for payload in payloads)

    def commanded(self) -> bool:
        commanded, self._commanded = self._commanded, False
        return commanded

    def close(self) -> None:
        self._engine.close()


class FileWatcher(Waker):
    """SQLite: every commit changes the write-ahead log, and a look at the file costs microseconds.

    What has changed is followed until SQLite itself says that there was a commit: whoever looked before that would find
    nothing.
    """

    def __init__(self, path: str, engine: Engine) -> None:
        self._path = f"{path}-wal"
        self._engine = engine
        self._changed = float("-inf")
        self._file = self._look()
        self._version = self._ask()

    def fileno(self) -> int | None:
        return None

    def interval(self, idle_for: float) -> float:
        look = LOOK if idle_for < CALM else LOOK_CALM
        since = time.monotonic() - self._changed
        return min(look, max(FOLLOW_LOOK, since / 4)) if since < FOLLOW else look

    def woken(self) -> bool:
        found, now = self._look(), time.monotonic()
        if found != self._file:
            self._file, self._changed = found, now
        if now - self._changed >= FOLLOW:
            return False
        version, self._version = self._version, self._ask()
        return version != self._version

    def close(self) -> None:
        self._engine.close()

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    def _ask(self) -> int:
        """Return a number that every commit of another connection changes.

        https://www.sqlite.org/pragma.html#pragma_data_version
        """
        return int(self._engine.query("PRAGMA data_version")[0][0])


class Poller(Waker):
    """MariaDB, MySQL, and whatever cannot tell: ask, ever more rarely the longer nothing came."""

    def fileno(self) -> int | None:
        return None

    def interval(self, idle_for: float) -> float:
        return min(POLL_MOST, max(0.005, idle_for / 20)) * random.uniform(0.9, 1.1)

    def woken(self) -> bool:
        return True

    def close(self) -> None:
        pass


class ListeningCaller(ResultWaker):
    """PostgreSQL: mark the task as awaited; who finishes it sends its id."""

    def __init__(self, engine: Engine, task_id: str, mark: str) -> None:
        self._task_id = task_id
        self._listener = Listener(engine, DONE_CHANNEL)
        # Mark after LISTEN: whoever finishes it from now on tells us. No row: it is finished, or not committed yet.
        with engine.session() as connection, connection.cursor() as cursor:
            cursor.execute(mark, (task_id,))
            self._marked = cursor.rowcount > 0

    def wait(self, timeout: float) -> None:
        if not self._marked:
            time.sleep(min(timeout, 0.05))
            return
        select.select([self._listener], [], [], min(timeout, 1.0))
        self._listener.woken()

    def close(self) -> None:
        self._listener.close()


class LookingCaller(ResultWaker):
    """SQLite, MariaDB, MySQL: look again when the file changes, or after a while."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self._since = time.monotonic()

    def wait(self, timeout: float) -> None:
        end = time.monotonic() + min(timeout, 1.0)
        while time.monotonic() < end:
            waited = time.monotonic() - self._since
            time.sleep(max(0.0, min(self._waker.interval(waited), 0.05, end - time.monotonic())))
            if self._waker.woken():
                return

    def close(self) -> None:
        self._waker.close()


def can_listen(alias: str) -> bool:
    """Does this alias reach a PostgreSQL, by psycopg 3, on a connection that stays ours?"""
    connection = connections[alias]
    if connection.vendor != "postgresql" or connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        return False
    with contextlib.suppress(ImportError, DatabaseError):
        import psycopg  # noqa: F401

        return True
    return False


def local_waker(alias: str, engine: Engine) -> Waker:
    """Return the waker of a database without notifications; ``engine`` is its own from now on."""
    connection = connections[alias]
    if connection.vendor == "sqlite" and not connection.is_in_memory_db():  # type: ignore[attr-defined]
        return FileWatcher(str(connection.settings_dict["NAME"]), engine)
    return Poller()
