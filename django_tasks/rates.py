"""How often something may start: Celery's spellings of a rate, and the arithmetic that keeps one.

Starts are spaced evenly. A window of one period therefore never holds more than the rate and one, however many workers
take part; a bucket that fills while nothing happens would let twice as many through.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

#: Seconds of the units that Celery knows.
UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: Closer than so many seconds, starts may come in bursts: a look at the clock for each would cost more than the task.
CLOSE: Final = 0.05

ALLOWED: Final = "a number per second, or a text such as '10/s', '100/m' or '5/h'; None or 0 is no limit"


def parse(value: Any) -> float | None:
    """Return a rate as starts per second, ``None`` for no limit.

    The forms are Celery's ``rate_limit`` (https://docs.celeryq.dev/en/stable/userguide/tasks.html#Task.rate_limit), and
    as in Celery 0 is no limit.

    Raises ``TypeError`` or ``ValueError`` for anything else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"rate_limit is {value!r}; allowed: {ALLOWED}")
    number, _, unit = value.partition("/") if isinstance(value, str) else (value, "", "")
    try:
        rate = float(number) / UNITS[unit.strip() or "s"]
    except (KeyError, ValueError):
        rate = -1.0
    if not 0 <= rate < math.inf:
        raise ValueError(f"rate_limit is {value!r}; allowed: {ALLOWED}")
    return rate or None


def text(value: Any) -> str:
    """Return a rate as :attr:`Limit.rate <django_tasks.models.Limit.rate>` holds it. Raises as :func:`parse` does."""
    return "" if parse(value) is None else str(value).strip()


def validate_concurrency(value: Any) -> int | None:
    """Return how many may run at a time, ``None`` for no limit. Raises ``TypeError`` or ``ValueError``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"concurrency is {value!r}; allowed: None (no limit) or a whole number from 1")
    if not 1 <= value <= 1_000_000:
        raise ValueError(f"concurrency is {value!r}; allowed: None (no limit) or a whole number from 1")
    return value


class Spacing(NamedTuple):
    """A rate as the seconds between two starts, and how many may come at once."""

    seconds: float
    burst: int

    @classmethod
    def of(cls, per_second: float) -> Spacing:
        """Return the spacing of a rate."""
        seconds = 1.0 / per_second
        return cls(seconds, max(1, math.ceil(CLOSE / seconds)))

    @property
    def is_watched(self) -> bool:
        """Is the next one let through only once the one before has begun?"""
        return self.burst == 1

    def room(self, following: float, now: float) -> int:
        """Return how many may start now, when the next one is due at ``following``."""
        if now < following:
            ahead = math.ceil((following - now) / self.seconds)
            return max(0, self.burst - ahead)
        return self.burst

    def after(self, following: float, now: float, count: int) -> float:
        """Return when the next one is due after ``count`` more."""
        return max(following, now) + count * self.seconds

    def wait(self, following: float, now: float) -> float:
        """Return in how many seconds there is room again."""
        return max(0.0, following - now - (self.burst - 1) * self.seconds)
