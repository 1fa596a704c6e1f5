"""How long a task may run: ``time_limit`` and ``soft_time_limit``, in seconds.

Meanings are Celery's (https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits): the soft one is raised in
the task, the hard one ends its process.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class TimeLimits(NamedTuple):
    """What one attempt may take, in seconds; ``None`` is no limit. The order is that of ``request.timelimit``."""

    hard: float | None = None
    soft: float | None = None

    def over(self, other: TimeLimits) -> TimeLimits:
        """Return these, and the other's where these say nothing."""
        return TimeLimits(
            other.hard if self.hard is None else self.hard, other.soft if self.soft is None else self.soft
        )


NONE = TimeLimits()


def validate_limit(value: Any, *, name: str) -> float | None:
    """Return a limit in seconds as it was given; ``None`` is no limit.

    Raises ``TypeError`` or ``ValueError`` for anything else but finite numbers above 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; allowed: None (no limit) or a number of seconds above 0")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; allowed: None (no limit) or a number of seconds above 0")
    return value


def validate_limits(hard: Any, soft: Any, *, hard_name: str = "time_limit", soft_name: str = "") -> TimeLimits:
    """Return both limits. Raises as :func:`validate_limit`, and ``ValueError`` for a soft limit above the hard one."""
    soft_name = soft_name or "soft_time_limit"
    limits = TimeLimits(validate_limit(hard, name=hard_name), validate_limit(soft, name=soft_name))
    if limits.hard is not None and limits.soft is not None and limits.soft > limits.hard:
        raise ValueError(f"{soft_name} is {soft!r}; allowed: at most {hard_name}, here {hard!r}")
    return limits
