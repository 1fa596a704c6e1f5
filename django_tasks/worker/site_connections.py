"""Django's own connections, those that tasks use: none that broke in one task is left to the next."""

from __future__ import annotations

import threading
import time
from typing import Any

from django.db import close_old_connections, connections, reset_queries
from django.db.backends.signals import connection_created

#: Seconds between checks of connections that nothing speaks against.
CHECK_EVERY = 1.0


class _Opened:
    """How many connections this process has opened: looking at all that there may be takes a task's time."""

    count = 0

    def add(self, **named: Any) -> None:
        """There is another one."""
        self.count += 1


_opened = _Opened()
connection_created.connect(_opened.add, weak=False)


class SiteConnections:
    """Looks after the connections of every thread of a process that runs tasks. Each call is about the thread it is in.

    ``generation`` is the broker's: when that had to connect anew, the server has most likely ended the others, too.
    """

    def __init__(self, generation: int) -> None:
        self._first = generation
        self._pools_of = generation
        self._lock = threading.Lock()
        self._mine = threading.local()

    def before_task(self, generation: int) -> None:
        """Leave those behind that the server has most likely ended."""
        if getattr(self._mine, "generation", self._first) == generation:
            return
        self._mine.generation = generation
        connections.close_all()
        with self._lock:
            if self._pools_of != generation:
                self._pools_of = generation
                close_pools()

    def some_are_broken(self) -> bool:
        """Did a statement of the site's fail, even if the task made nothing of it?"""
        mine = self._mine
        if getattr(mine, "count", -1) != _opened.count:
            mine.count = _opened.count
            mine.opened = connections.all(initialized_only=True)
        return any(one.errors_occurred for one in mine.opened)

    def after_task(self, *, failed: bool = False) -> None:
        """Close what broke, what is too old, and what others wait for in a pool; the rest is kept for the next task."""
        now = time.monotonic()
        opened = connections.all(initialized_only=True)
        long_ago = now - getattr(self._mine, "checked", 0.0) >= CHECK_EVERY
        pooled = any(one.settings_dict["OPTIONS"].get("pool") for one in opened)
        if failed or long_ago or pooled or any(one.errors_occurred for one in opened):
            self._mine.checked = now
            close_old_connections()
            reset_queries()


def close_pools() -> None:
    """Close the pools of connections (``"pool"`` in ``OPTIONS``); the next use makes new ones."""
    for connection in connections.all():
        if connection.settings_dict["OPTIONS"].get("pool"):
            connection.close_pool()  # type: ignore[attr-defined]
