"""What a worker's children have done, written down as rollups, and samples of what the queues hold.

Numbers are never worth a task: a database that cannot be reached is tried again later, and one that refuses them is
left alone for a while.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from django.db import DatabaseError

from ..backends.database.metrics import Metrics
from ..exceptions import OperationalError
from ..metrics.rows import MINUTE, OUTCOMES
from .counts import OUTCOME, WIDTH, Counts, Key

logger = logging.getLogger("django_tasks.worker")

#: Seconds between writings, if there is anything to write; and after one that the database refused.
WRITE_EVERY, WRITE_AFTER_REFUSAL = 10.0, 300.0
#: Looking through the to-do list may take this part of the time.
SAMPLE_PART: Final = 0.005
#: Seconds between deletions of what is old, and the longest that one may take.
PRUNE_EVERY, PRUNE_FOR = 600.0, 2.0


class Accounts:
    """What all children of a worker have done: in all, and since it was last written down."""

    def __init__(self) -> None:
        #: How many attempts of each task ended, by name.
        self.totals: Counter[str] = Counter()
        self._pending: dict[Key, list[float]] = {}
        self._read: dict[int, dict[Key, list[float]]] = {}

    def read(self, slot: int, counts: Counts) -> None:
        """Take in what the child in ``slot`` did since the last call."""
        before = self._read.get(slot, {})
        now = counts.read()
        for key, numbers in now.items():
            last = before.get(key)
            if last != numbers:
                self._add(key, [new - old for new, old in zip(numbers, last, strict=True)] if last else numbers)
        self._read[slot] = now

    def forget(self, slot: int) -> None:
        """The child in ``slot`` is gone, and was read for the last time."""
        self._read.pop(slot, None)

    def ended(self, key: Key, state: str) -> None:
        """An attempt was ended from outside."""
        if (outcome := OUTCOME.get(state)) is not None:
            self._add(key, [float(place == outcome) for place in range(WIDTH)])

    def take(self) -> Mapping[Key, Sequence[float]]:
        """Return what is to be written down, which is then no longer pending."""
        taken, self._pending = self._pending, {}
        return taken

    def put_back(self, taken: Mapping[Key, Sequence[float]]) -> None:
        """It could not be written down."""
        for key, numbers in taken.items():
            self._add_pending(key, numbers)

    def _add(self, key: Key, numbers: Sequence[float]) -> None:
        if ended := sum(numbers[: len(OUTCOMES)]):
            self.totals[key[1]] += int(ended)
        if any(numbers):
            self._add_pending(key, numbers)

    def _add_pending(self, key: Key, numbers: Sequence[float]) -> None:
        there = self._pending.get(key)
        self._pending[key] = [a + b for a, b in zip(there, numbers, strict=True)] if there else list(numbers)


class Scribe:
    """Writes down what :class:`Accounts` have. In the steward's thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.accounts = Accounts()
        #: By how many seconds the database's clock was ahead of this machine's when last asked; ``None``: never yet.
        self.skew: float | None = None
        self._sample_at = 0.0
        self._prune_at = time.monotonic() + PRUNE_EVERY

    def ended(self, ids: Sequence[str]) -> None:
        """Attempts were ended from outside; those that are in the ledger count."""
        if ids:
            for queue, name, state in self._metrics.ended(ids):
                self.accounts.ended((queue, name), state)

    def write(self) -> float:
        """Write what there is, and return in how many seconds to do so again.

        Raises :class:`~django_tasks.exceptions.OperationalError`; nothing is forgotten then.
        """
        try:
            self._add()
            now = time.monotonic()
            if now >= self._sample_at:
                self._metrics.sample()
                took = time.monotonic() - now
                self._sample_at = now + max(MINUTE, took / SAMPLE_PART)
            if now >= self._prune_at:
                self._prune_at = now + PRUNE_EVERY
                self._metrics.prune(deadline=now + PRUNE_FOR)
        except OperationalError:
            raise
        except DatabaseError:
            logger.exception("The numbers for charts cannot be stored; trying again in %.0f s", WRITE_AFTER_REFUSAL)
            return WRITE_AFTER_REFUSAL
        return WRITE_EVERY

    def _add(self) -> None:
        taken = self.accounts.take()
        if not taken and self.skew is not None:
            return
        try:
            self.skew = self._metrics.add(taken)
        except BaseException:
            self.accounts.put_back(taken)
            raise
