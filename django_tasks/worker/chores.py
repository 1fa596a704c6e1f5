"""What any worker does for all of them: taking back what the dead held, and tidying up. Each has a pace of its own."""

from __future__ import annotations

import math
import random
import time

from ..backends.base import Broker
from ..conf import settings
from ..registry import tasks

#: Looks for the dead to one look for tasks that were set aside because no worker knew them.
RESCUES_TO_AN_ADOPTION = 3
#: Seconds between looks for tasks that wait for nothing any more.
UNBLOCK_EVERY = 60.0
#: Seconds until the next sweep after one that failed; one that did not says itself when the next is due.
SWEEP_AGAIN = 10.0
#: Seconds between prunings, and after one that found nothing; the longest that one may take.
PRUNE_EVERY, PRUNE_CALM, PRUNE_FOR = 60.0, 300.0, 2.0


class Chores:
    """Does them when they are due. Used by the steward's thread alone; the first time everything is."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._due = dict.fromkeys(("rescue", "adopt", "sweep", "unblock", "prune"), 0.0)

    @property
    def due_at(self) -> float:
        """When the next one is due, by ``time.monotonic()``."""
        return min(self._due.values())

    def hurry(self, moment: float = math.inf) -> None:
        """Look at once for what others left behind, if that is due before this moment of ``time.monotonic()``."""
        for chore in ("rescue", "sweep"):
            if self._due[chore] < moment:
                self._due[chore] = 0.0

    def do(self) -> bool:
        """Do what is due; return whether that made something due that idle workers may not know of.

        Raises :class:`~django_tasks.exceptions.OperationalError`; what was not done is due again after its usual time.
        """
        found = False
        if self._is_due("rescue", settings.WORKER_RESCUE_INTERVAL):
            found |= self._broker.rescue(max_losses=settings.TASK_MAX_WORKER_LOSSES) > 0
        if self._is_due("adopt", RESCUES_TO_AN_ADOPTION * settings.WORKER_RESCUE_INTERVAL):
            found |= self._broker.adopt(tasks) > 0
        if self._is_due("sweep", SWEEP_AGAIN):
            self._due["sweep"] = time.monotonic() + self._broker.sweep()
        if self._is_due("unblock", UNBLOCK_EVERY):
            self._broker.unblock()
        if self._is_due("prune", PRUNE_EVERY):
            count = self._broker.prune(settings.RESULT_EXPIRES, deadline=time.monotonic() + PRUNE_FOR)
            count += self._broker.prune_commands()
            if not count:
                self._due["prune"] += PRUNE_CALM - PRUNE_EVERY
        return found

    def _is_due(self, chore: str, every: float) -> bool:
        """Is it? If so, not again before so many seconds, or a little more: workers that began together drift apart."""
        now = time.monotonic()
        if now < self._due[chore]:
            return False
        self._due[chore] = now + every * random.uniform(1.0, 1.1)
        return True
