"""Durations counted into buckets: a percentile costs a few additions, however many durations there were."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

#: Upper ends of the buckets in seconds, each included: 1 ms, doubled up to 70 minutes. One more bucket has what is
#: longer.
BOUNDS: Final = tuple(0.001 * 2**power for power in range(23))
#: How many buckets there are.
SIZE: Final = len(BOUNDS) + 1


def bucket(seconds: float) -> int:
    """Return the place of the bucket that counts a duration."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], part: float) -> float | None:
    """Return the seconds that ``part`` (0 to 1) of the durations did not exceed; ``None`` if there were none.

    Within a bucket they are taken to be spread evenly, so the answer is right to the bucket's width; in the last one,
    which has no end, it is the beginning.
    """
    if not 0 <= part <= 1:
        raise ValueError(f"A part is from 0 to 1, not {part!r}")
    wanted = part * sum(counts)
    below = 0
    for place, count in enumerate(counts):
        if count and below + count >= wanted:
            lower = BOUNDS[place - 1] if place else 0.0
            upper = BOUNDS[place] if place < len(BOUNDS) else lower
            return lower + (upper - lower) * max(0.0, wanted - below) / count
        below += count
    return None
