"""Workers of the same database that another broker feeds: the database itself, or another Redis.

There are some while a site moves from one broker to another. They take tasks without asking this Redis, so as long as
they live each row is asked before its task starts, and only one of all who ask is told yes.
"""

from __future__ import annotations

import time

from ..database.dialect import WORKER
from ..database.engine import Engine
from .leases import Leases

#: Seconds for which an answer counts. Whoever begins to feed workers otherwise waits for longer before they take any.
FRESH = 1.0


class Others:
    """As one process sees them."""

    def __init__(self, engine: Engine, leases: Leases) -> None:
        self._engine = engine
        self._leases = leases
        self._read = float("-inf")
        self._present = True
        #: Workers that were seen to be ours.
        self._ours: frozenset[int] = frozenset()

    def present(self) -> bool:
        """Are there any?"""
        if time.monotonic() - self._read > FRESH:
            alive = self.alive()
            if not alive <= self._ours:
                self._ours = self._leases.workers()
            self._present = not alive <= self._ours
            self._read = time.monotonic()
        return self._present

    def alive(self) -> frozenset[int]:
        """Return all workers of this database that live, whoever feeds them."""
        dialect = self._engine.dialect
        rows = self._engine.query(
            f"SELECT id FROM {WORKER} WHERE stopped_at IS NULL AND lost_at IS NULL"
            f" AND {dialect.epoch('beat_at')} + lease >= {dialect.epoch(dialect.now)}"
        )
        return frozenset(row[0] for row in rows)
