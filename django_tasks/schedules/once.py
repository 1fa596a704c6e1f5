"""Once, at a given moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from .base import NEVER_CHECK_TIMEOUT, BaseSchedule, schedstate
from .zones import as_instant

__all__ = ["clocked"]


class clocked(BaseSchedule):
    """Once, at ``clocked_time``; without a zone it is taken as :meth:`~BaseSchedule.maybe_make_aware` says.

    django-celery-beat's ``clocked``. Its ``is_due`` is true whenever the moment has passed, whether it ran or not:
    there the scheduler switches the entry off. ``next_after`` says ``None`` from that moment on.

    Raises ``TypeError`` for anything but a ``datetime``.
    """

    def __init__(
        self,
        clocked_time: datetime,
        nowfun: Callable[[], datetime] | None = None,
        tz: str | tzinfo | None = None,
        *,
        app: Any = None,
    ) -> None:
        super().__init__(nowfun, tz)
        if not isinstance(clocked_time, datetime):
            raise TypeError(f"clocked_time is {clocked_time!r}; allowed: a datetime")
        self.clocked_time = self.maybe_make_aware(clocked_time)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the moment, in UTC, as long as it lies ahead."""
        run = self.clocked_time.astimezone(UTC)
        return run if run > as_instant(moment) else None

    def remaining_estimate(self, last_run_at: datetime | None) -> timedelta:
        """Return the time from now until the moment, negative afterwards; ``last_run_at`` does not matter."""
        return self._until(self.clocked_time.astimezone(UTC), self.now())

    def is_due(self, last_run_at: datetime | None) -> schedstate:
        """Return whether the moment has come; ``last_run_at`` does not matter."""
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        return schedstate(False, remaining) if remaining > 0 else schedstate(True, NEVER_CHECK_TIMEOUT)

    def __eq__(self, other: object) -> bool:
        # In UTC: a local time that occurs twice equals nothing of another zone.
        if isinstance(other, clocked):
            return self.clocked_time.astimezone(UTC) == other.clocked_time.astimezone(UTC)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.clocked_time.astimezone(UTC))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.clocked_time, self.nowfun, self._tz)

    def __repr__(self) -> str:
        return f"<clocked: {self.clocked_time}>"

    def __str__(self) -> str:
        return f"once, at {self.clocked_time}"
