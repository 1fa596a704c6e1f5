"""Whose turn it is to write to a SQLite file: the engines of one host queue for it, outside of the database.

SQLite's own way to wait is to sleep for milliseconds and to look again: by then the lock may have gone round without
the sleeper. Here a lock on the write-ahead log's file is looked at every tenth of a millisecond, at the price of a
system call. It only decides who asks SQLite next; that no two write at once is still SQLite's business, so a
connection that does not queue (the site's own, another program's) does no harm, nor does a turn that is given up.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from weakref import WeakSet

try:
    import fcntl
except ImportError:  # Windows: SQLite's own waiting is all there is
    fcntl = None  # type: ignore[assignment]

#: Seconds between looks.
LOOK = 0.0001
#: Seconds after which a writer stops queueing and asks SQLite: whoever has the turn may be stopped, or wait itself.
PATIENCE = 1.0


class Turn:
    """One connection's place in the queue of its file; without a file there is no queue."""

    def __init__(self, path: str = "") -> None:
        self._descriptor: int | None = None
        if path and fcntl is not None:
            # The log is there for as long as a connection is, and SQLite locks other files: closing a descriptor of one
            # of those would take its locks away, as is the rule of POSIX.
            with contextlib.suppress(OSError):
                self._descriptor = os.open(f"{path}-wal", os.O_RDONLY)
                _open.add(self)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn, for :data:`PATIENCE` at most, and have it for this block. The kernel ends it with the
        process."""
        descriptor = self._descriptor
        if descriptor is None or not _lock(descriptor):
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # closed within the block, which ended it
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave the queue."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK)
        except OSError:  # a file system without such locks
            return False


_open: WeakSet[Turn] = WeakSet()


def _after_fork() -> None:
    # A copy of the descriptor would keep the turn of a parent that was killed.
    for turn in list(_open):
        turn.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
