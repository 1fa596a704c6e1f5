"""How long to wait before the next try: of a task that failed, and of a call that could not be stored.

Names and numbers are Celery's (https://docs.celeryq.dev/en/stable/userguide/tasks.html#Task.retry_backoff).
"""

from __future__ import annotations

import difflib
import math
import random as random_module
from collections.abc import Iterator, Mapping
from itertools import count
from types import MappingProxyType
from typing import Any, Final, Protocol

__all__ = [
    "PUBLISH_RETRY_POLICY",
    "backoff_delay",
    "publish_delays",
    "validate_backoff",
    "validate_max_retries",
    "validate_publish_policy",
    "validate_seconds",
]

#: Celery's default: three more tries, after 0, 0.2 and 0.2 seconds. Times are in seconds.
PUBLISH_RETRY_POLICY: Final[Mapping[str, Any]] = MappingProxyType(
    {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2, "retry_errors": None}
)


class Uniform(Protocol):
    """What draws the jitter: the ``random`` module, or a ``random.Random`` of a known seed."""

    def uniform(self, a: float, b: float, /) -> float: ...


def backoff_delay(
    retries: int,
    *,
    factor: float = 1.0,
    maximum: float = 600,
    jitter: bool = True,
    random: Uniform = random_module,
) -> float:
    """Return the seconds to wait before the next attempt: ``factor * 2 ** retries``, at most ``maximum``.

    ``retries`` counts the retries so far, so the first wait is ``factor``. With ``jitter`` the delay is drawn evenly
    from 0 to that value, so that what failed together does not come back together. Unlike Celery, fractions of a second
    are honoured.
    """
    try:
        delay = min(maximum, math.ldexp(factor, retries))
    except OverflowError:
        delay = maximum
    if jitter:
        delay = random.uniform(0, delay)
    return max(0.0, float(delay))


def publish_delays(policy: Mapping[str, Any] | None = None) -> Iterator[float]:
    """Return the seconds to wait before each further try to store a call; exhausted when it is time to give up.

    ``policy`` has Celery's keys, those left out have Celery's defaults: ``max_retries`` (``None``: for ever);
    ``interval_start``, ``interval_step`` (added after each try) and ``interval_max`` in seconds; ``retry_errors``, a
    tuple of exception classes (``None``: what says that the database cannot be reached), is for the caller to heed.

    Raises ``TypeError`` or ``ValueError`` at once when the policy is malformed.
    """
    valid = validate_publish_policy(policy)
    start, step, maximum = valid["interval_start"], valid["interval_step"], valid["interval_max"]
    tries = count() if valid["max_retries"] is None else range(valid["max_retries"])
    return (min(float(maximum), start + step * number) for number in tries)


def validate_publish_policy(policy: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the publish retry policy with every key filled in.

    Raises ``TypeError`` or ``ValueError`` that names the key, what was given and what is allowed.
    """
    if policy is None:
        return dict(PUBLISH_RETRY_POLICY)
    if not isinstance(policy, Mapping):
        raise TypeError(f"retry policy is {policy!r}; allowed: a dict with {', '.join(PUBLISH_RETRY_POLICY)}")
    for key in policy:
        if key not in PUBLISH_RETRY_POLICY:
            close = difflib.get_close_matches(str(key), PUBLISH_RETRY_POLICY, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Allowed: {', '.join(PUBLISH_RETRY_POLICY)}."
            raise ValueError(f"retry policy has no key {key!r}.{hint}")
    valid = {**PUBLISH_RETRY_POLICY, **policy}
    valid["max_retries"] = validate_max_retries(valid["max_retries"], name="retry policy's max_retries")
    for key in ("interval_start", "interval_step", "interval_max"):
        valid[key] = validate_seconds(valid[key], name=f"retry policy's {key}")
    errors = valid["retry_errors"]
    if errors is not None:
        classes = errors if isinstance(errors, tuple | list) else (errors,)
        if not all(isinstance(error, type) and issubclass(error, Exception) for error in classes):
            raise TypeError(f"retry policy's retry_errors is {errors!r}; allowed: None or a tuple of exception classes")
        valid["retry_errors"] = tuple(classes)
    return valid


def validate_max_retries(value: Any, *, name: str = "max_retries") -> int | None:
    """Return how often to try again; ``None`` means for ever.

    Raises ``TypeError`` or ``ValueError`` for anything but ``None`` and whole numbers from 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; allowed: None (for ever) or a whole number from 0")
    if value < 0:
        raise ValueError(f"{name} is {value!r}; allowed: None (for ever) or a whole number from 0")
    return value


def validate_seconds(value: Any, *, name: str) -> float:
    """Return a number of seconds as it was given, an ``int`` or a ``float``.

    Raises ``TypeError`` or ``ValueError`` for anything but finite numbers from 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; allowed: a number of seconds from 0")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r}; allowed: a number of seconds from 0")
    return value


def validate_backoff(value: Any, *, name: str = "retry_backoff") -> float:
    """Return the factor of :func:`backoff_delay` for a task's ``retry_backoff``; 0 means no backoff.

    ``True`` is 1 second, ``False`` and ``None`` are 0, a number is the first wait in seconds.

    Raises ``TypeError`` or ``ValueError`` for anything else.
    """
    if value is None or isinstance(value, bool):
        return float(bool(value))
    return float(validate_seconds(value, name=name))
