"""How many tasks to claim at a time: as many as should fit into about 50 ms, by what recent ones took."""

from __future__ import annotations

#: Seconds of work that one claim should hold.
BUDGET = 0.05
#: Most claims at a time.
MOST = 500
#: The first claim after a pause, when nothing is known.
AFTER_IDLE = 8


class Batch:
    """An estimate that rises at once with a slow batch and sinks slowly."""

    def __init__(self, most: int | None = None) -> None:
        self.most = min(MOST, most or MOST)
        self._seconds = BUDGET / AFTER_IDLE

    def size(self) -> int:
        """Return how many tasks to claim now."""
        return max(1, min(self.most, int(BUDGET / self._seconds)))

    def ran(self, tasks: int, seconds: float) -> None:
        """Learn that ``tasks`` took ``seconds`` together."""
        each = max(seconds / max(tasks, 1), 1e-6)
        self._seconds = each if each > self._seconds else 0.5 * (self._seconds + each)

    def idle(self) -> None:
        """Begin carefully after a pause."""
        self._seconds = max(self._seconds, BUDGET / AFTER_IDLE)
