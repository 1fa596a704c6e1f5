"""When a call is due and when it expires, as callers may say it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

#: Later moments are near the end of the calendar, where not every time zone has them.
LAST_YEAR: Final = 9_000


def due_of(countdown: Any, eta: Any) -> tuple[float, datetime | None]:
    """Return when a call is due: seconds from now (what has passed is 0), and the aware moment instead, if given.

    Raises ``TypeError`` or ``ValueError`` for what is neither, or both.
    """
    if countdown is not None:
        if eta is not None:
            raise ValueError("Give either countdown (seconds) or eta (datetime), not both")
        if isinstance(countdown, bool) or not isinstance(countdown, int | float) or countdown != countdown:
            raise TypeError(f"countdown must be seconds as a number, not {countdown!r}")
        _within_calendar(countdown, "countdown")
        return max(0.0, float(countdown)), None
    moment = moment_of(eta, "eta")
    if moment is None and eta is not None:
        raise TypeError(f"eta must be a datetime, not {eta!r}")
    return 0.0, moment


def moment_of(value: Any, option: str) -> datetime | None:
    """Return a datetime, or its ISO 8601 text, as an aware datetime; ``None`` for anything else.

    Raises ``ValueError`` for a text that is none, and for a moment behind :data:`LAST_YEAR`.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{option} must be a datetime or its ISO 8601 text, not {value!r}") from None
    if not isinstance(value, datetime):
        return None
    if value.year > LAST_YEAR:
        raise ValueError(f"{option} is {value.isoformat()}; allowed are moments up to the year {LAST_YEAR}")
    return timezone.make_aware(value) if timezone.is_naive(value) else value


def expiry_of(expires: Any) -> tuple[float | None, datetime | None]:
    """Return ``(seconds from now, None)`` or ``(None, aware moment)`` for what Celery allows as ``expires``.

    Raises ``TypeError`` or ``ValueError`` for anything else.
    """
    if isinstance(expires, timedelta):
        expires = expires.total_seconds()
    if (moment := moment_of(expires, "expires")) is not None:
        return None, moment
    if isinstance(expires, int | float) and not isinstance(expires, bool) and expires == expires:
        _within_calendar(expires, "expires")
        return float(expires), None
    raise TypeError(f"expires must be seconds as a number, a timedelta or a datetime, not {expires!r}")


def _within_calendar(seconds: float, option: str) -> None:
    if abs(seconds) > 3_000_000_000:  # 95 years: beyond it, databases disagree on what a date is
        raise ValueError(f"{option}={seconds!r} lies more than 95 years away")
