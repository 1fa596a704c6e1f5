"""How many tasks of each name a child has run, in memory that it shares with its supervisor."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

_SIZE = 8


class Tally:
    """One child's counts. The names are settled when it is made, before the fork; others are not counted.

    One thread of the child writes, the supervisor reads.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._places = {name: place for place, name in enumerate(sorted(names))}
        self._memory = mmap.mmap(-1, _SIZE * max(1, len(self._places)))
        self._counts = memoryview(self._memory).cast("Q")

    def add(self, name: str, count: int = 1) -> None:
        """So many more have run."""
        place = self._places.get(name)
        if place is not None:
            self._counts[place] += count

    def counts(self) -> dict[str, int]:
        """Return the counts that are not 0, by name."""
        return {name: count for name, place in self._places.items() if (count := self._counts[place])}
