"""In which order, and from where on, a process claims: queues, the priorities seen in them, and low-water marks."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from ..base import Queues
from ..message import Delivery
from .dialect import Band

#: Every so many claims begin with another queue, so that a backlog in the first one does not stop the others.
ROTATION = 4
#: Seconds after which the priorities and queues in use are looked up again, at the latest.
SURVEY_EVERY = 1.0
#: Seconds after which a claim looks below the mark once, for rows of late commits.
UNBOUND_EVERY = 2.0
#: A mark lies this many seconds below the newest due time claimed.
SLACK = 10.0
#: Seconds for which an emptied priority keeps its mark: its dead rows still lie in the index.
REMEMBER = 120.0

_HIGHEST, _LOWEST = 32_767, -32_768


class Plan:
    """One process's memory of its queues.

    A *mark* bounds a priority from below. Where a foreign transaction keeps deleted rows from being cleaned away, a
    claim would walk over all that were claimed since; with the mark it walks over some seconds' worth. What a limit let
    through may have become due long ago, so there is no mark where that happens.
    """

    def __init__(self, queues: Queues) -> None:
        self._wanted = queues
        self._bands: dict[tuple[str, int], float] = {}
        self._seen: dict[tuple[str, int], float] = {}
        self._order: list[str] = [name for name in queues.names if name not in queues.excluded]
        self._paused: Collection[str] = ()
        #: Where limits let tasks through, which may have waited for long: when that was seen last.
        self._late: dict[tuple[str, int], float] = {}
        self._turn = 0
        self._surveyed = float("-inf")
        self._unbound = time.monotonic()

    @property
    def names(self) -> Sequence[str] | None:
        """The queues to survey; ``None`` for all there are."""
        return self._wanted.names or None

    @property
    def stale(self) -> bool:
        """Is it time to survey again?"""
        return time.monotonic() - self._surveyed >= SURVEY_EVERY

    def surveyed(self, bands: Sequence[Band], paused: Collection[str] = ()) -> list[Band]:
        """Take a survey in, and which queues are paused; return the bands that are ours."""
        self._paused = paused
        now = self._surveyed = time.monotonic()
        mine = [band for band in bands if band.queue not in self._wanted.excluded and band.queue not in paused]
        for band in mine:
            self._seen[band.queue, band.priority] = now
            self._bands.setdefault((band.queue, band.priority), 0.0)
        for key in [key for key, seen in self._seen.items() if now - seen > REMEMBER]:
            del self._seen[key], self._bands[key]
        self._late = {key: seen for key, seen in self._late.items() if now - seen <= REMEMBER}
        if not self._wanted.names:
            self._order = sorted({queue for queue, _ in self._bands})
        return mine

    @property
    def empty(self) -> bool:
        """Is no queue known yet?"""
        return not self._order

    def expects(self, queue: str) -> bool:
        """Take in that something waits in a queue; return whether the next claim looks there."""
        if not self._wanted.includes(queue) or queue in self._paused:
            return False
        if queue not in self._order:
            self._order = sorted([*self._order, queue])
        return True

    def queues(self) -> list[str]:
        """Return the queues in the order of the next claim; each call is a turn."""
        self._turn += 1
        order = [name for name in self._order if name not in self._paused] if self._paused else self._order
        if len(order) < 2 or self._turn % ROTATION:
            return order
        start = (self._turn // ROTATION) % len(order)
        return order[start:] + order[:start]

    def ranges(self) -> list[dict[str, Any]]:
        """Return the next claim as ranges of priority, best first: each known priority with its mark, and the gaps
        between them, where a priority that nobody has seen yet may appear at any moment."""
        bounded = time.monotonic() - self._unbound < UNBOUND_EVERY
        if not bounded:
            self._unbound = time.monotonic()
        found: list[dict[str, Any]] = []
        for queue in self.queues():
            top = _HIGHEST
            for priority in sorted((p for q, p in self._bands if q == queue), reverse=True):
                if top > priority:
                    found.append({"q": queue, "hi": top, "lo": priority + 1, "mark": 0})
                mark = self._bands[queue, priority] if bounded and (queue, priority) not in self._late else 0
                found.append({"q": queue, "hi": priority, "lo": priority, "mark": mark})
                top = priority - 1
            found.append({"q": queue, "hi": top, "lo": _LOWEST, "mark": 0})
        return found

    def claimed(self, deliveries: Sequence[Delivery], limit: int) -> list[Delivery]:
        """Take a claim in: move the marks; return it best first."""
        if len(deliveries) < limit:
            self._unbound = float("-inf")
        now = time.monotonic()
        for one in deliveries:
            key = (one.queue, one.priority)
            self._seen[key] = now
            if one.limit_key is not None:
                self._late[key] = now
            if one.due - SLACK > self._bands.get(key, 0.0):
                self._bands[key] = one.due - SLACK
        if len(deliveries) < 2:
            return list(deliveries)
        place = {name: at for at, name in enumerate(self._order)}
        return sorted(deliveries, key=lambda one: (place.get(one.queue, len(place)), -one.priority, one.due))
