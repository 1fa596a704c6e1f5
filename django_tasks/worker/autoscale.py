"""How many child processes a worker has, if their number follows the work (``--autoscale=max,min``)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

#: Seconds between two steps, up or down.
STEP_EVERY = 0.5


@dataclass(slots=True)
class Autoscale:
    """Grows while all children are busy and something is due, shrinks when one has long been idle.

    Raises ``ValueError`` when 1 ≤ ``minimum`` ≤ ``maximum`` does not hold. ``idle_after`` in seconds.
    """

    maximum: int
    minimum: int
    idle_after: float
    _stepped: float = field(default=0.0, init=False)
    _idle_since: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum:
            raise ValueError(f"autoscale {self.maximum},{self.minimum}: allowed are max,min with 1 <= min <= max")

    def wanted(self, present: int, *, pressed: bool, idle: bool, now: float) -> int:
        """Return how many there should be now, if so many are ``present``.

        ``pressed``: all are busy and something is due; ``idle``: one is idle. ``now`` by a monotonic clock.
        """
        self._idle_since = (self._idle_since or now) if idle else None
        wanted = min(max(present, self.minimum), self.maximum)
        if now - self._stepped < STEP_EVERY:
            return wanted
        if pressed and wanted < self.maximum:
            self._stepped = now
            return wanted + 1
        if self._idle_since is not None and now - self._idle_since >= self.idle_after and wanted > self.minimum:
            self._stepped = now
            return wanted - 1
        return wanted

    def including(self, present: int) -> Autoscale:
        """Return bounds that allow so many, too."""
        return replace(self, maximum=max(self.maximum, present), minimum=min(self.minimum, present))
