"""What every schedule has, and what one of your own must tell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.utils import timezone

from .zones import validate_zone

__all__ = ["NEVER_CHECK_TIMEOUT", "BaseSchedule", "schedstate"]

#: What Celery's methods say of a schedule that never runs again: more than three years, in seconds. The number is
#: django-celery-beat's.
NEVER_CHECK_TIMEOUT: Final = 100_000_000.0


_ASKED_BY_CELERY: Final = ("is_due", "remaining_estimate", "remaining_delta")


class schedstate(NamedTuple):
    """The answer of ``is_due``; a plain tuple for those who take it apart."""

    #: Should it run now?
    is_due: bool
    #: Seconds until it is worth asking again: until the next run, or the one after a run that is due.
    next: float


class BaseSchedule(ABC):
    """When something recurs. Subclass it for a schedule of your own.

    The duties of a subclass:

    - ``next_after(moment)``, and nothing else, decides. It is asked in any process and any order, also for moments long
      past or far ahead, and must give the same answer each time: let it depend on its argument and on what the schedule
      was made of, not on the clock or on what it was asked before.
    - It can be pickled. Whoever wants to know whether two are the same compares them by ``==``.
    - ``str()`` tells people what it is, ``repr()`` programmers.

    ``nowfun`` returns the present time for the methods that Celery has; ``tz`` is the zone by whose clocks it runs: an
    IANA name, a ``tzinfo``, or ``None`` for Django's current time zone, looked up anew each time. That one is
    ``TIME_ZONE`` unless ``django.utils.timezone.activate()`` chose another, as sites do for each user: give a zone to
    what must not depend on who looks. Those that Celery has take its ``app``, too, so that a call may stay as it is:
    clock and zone come from there in Celery, and from ``nowfun`` and ``tz`` here.

    Raises ``TypeError`` or ``ValueError`` when either is neither.
    """

    def __init__(self, nowfun: Callable[[], datetime] | None = None, tz: str | tzinfo | None = None) -> None:
        if nowfun is not None and not callable(nowfun):
            raise TypeError(f"nowfun is {nowfun!r}; allowed: None or a function that returns the present datetime")
        self.nowfun = nowfun
        self._tz = validate_zone(tz)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        asked = [name for name in _ASKED_BY_CELERY if name in vars(cls) and hasattr(super(cls, cls), name)]
        if asked and "next_after" not in vars(cls):
            # Runs are planned ahead by next_after alone; the override would never be heard.
            raise TypeError(f"{cls.__qualname__} overrides {', '.join(asked)} and not next_after, which decides here")

    @abstractmethod
    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first run strictly after an aware ``moment``, in UTC; ``None`` when there is none any more.

        Raises ``ValueError`` for a ``moment`` without a zone.
        """

    @property
    def tz(self) -> tzinfo:
        """The zone by whose clocks it runs."""
        return timezone.get_current_timezone() if self._tz is None else self._tz

    def now(self) -> datetime:
        """Return the present time as ``nowfun`` or the system tells it, aware."""
        return datetime.now(self.tz) if self.nowfun is None else self.maybe_make_aware(self.nowfun())

    def maybe_make_aware(self, moment: datetime) -> datetime:
        """Return ``moment``; one without a zone is taken as UTC, as by Celery, or with ``USE_TZ = False`` as local.

        Local means ``TIME_ZONE``, in which Django without ``USE_TZ`` keeps all its times.
        """
        if moment.utcoffset() is not None:
            return moment
        return moment.replace(tzinfo=UTC if settings.USE_TZ else timezone.get_default_timezone())

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time from now until the next run after ``last_run_at``; negative when it is late."""
        return self._until(self.next_after(self.maybe_make_aware(last_run_at)), self.now())

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Return whether the next run after ``last_run_at`` has come, and when to ask again, as Celery does."""
        now = self.now()
        remaining = self._until(self.next_after(self.maybe_make_aware(last_run_at)), now).total_seconds()
        if remaining > 0:
            return schedstate(False, remaining)
        return schedstate(True, self._until(self.next_after(now), now).total_seconds())

    def _until(self, run: datetime | None, now: datetime) -> timedelta:
        # In UTC: within one zone Python subtracts what the walls show.
        return timedelta(seconds=NEVER_CHECK_TIMEOUT) if run is None else run - now.astimezone(UTC)
