"""Which walls fit the fields of a crontab, and the first of them from a given one on.

A set of numbers is an ``int`` with a bit for each of them: the next member is found by a shift, not by a search.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from .base import BaseSchedule
from .zones import as_instant, end_of_first_pass, instants_of, wall_of

__all__ = ["CalendarSchedule", "Days", "Pattern", "bits"]

SECOND: Final = timedelta(seconds=1)
#: How far to look, in years: a 29 February on a given day of the week may be 40 years away (2072 to 2112).
YEARS_AHEAD: Final = 41
_EVERY_DAY: Final = (1 << 32) - 2


def bits(numbers: Iterable[int]) -> int:
    """Return the set of these numbers."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def _first(mask: int, start: int) -> int:
    """Return the smallest member from ``start`` on; -1 when there is none."""
    rest = mask >> start
    return start + (rest & -rest).bit_length() - 1 if rest else -1


@lru_cache(maxsize=256)
def _days_of_week(numbers: frozenset[int]) -> tuple[int, ...]:
    """Return the days of a month that are those of the week, for months that begin on Sunday, Monday, …"""
    return tuple(bits(day for day in range(1, 32) if (first + day - 1) % 7 in numbers) for first in range(7))


@dataclass(frozen=True, slots=True)
class Days:
    """Which days of a month fit. Days of the week count from Sunday, 0."""

    of_month: int
    of_week: frozenset[int]
    #: The last day of the month?
    last_of_month: bool = False
    #: (day of the week, n): its n-th one in the month; n = -1 is the last one.
    nth_of_week: frozenset[tuple[int, int]] = frozenset()
    #: Need the day fit only one of the two fields, month and week?
    either: bool = False

    def in_month(self, year: int, month: int) -> int:
        """Return the set of days that fit."""
        monday_based, length = monthrange(year, month)
        first = (monday_based + 1) % 7
        of_month = self.of_month | (1 << length if self.last_of_month else 0)
        of_week = _days_of_week(self.of_week)[first]
        for weekday, n in self.nth_of_week:
            day = 1 + (weekday - first) % 7
            of_week |= 1 << (day + 7 * (n - 1) if n > 0 else day + (length - day) // 7 * 7)
        fitting = of_month | of_week if self.either else of_month & of_week
        return fitting & ((2 << length) - 2)


@dataclass(frozen=True, slots=True)
class Pattern:
    """The fields of a crontab, as sets."""

    seconds: int
    minutes: int
    hours: int
    days: Days
    months: int

    def at_or_after(self, wall: datetime) -> datetime | None:
        """Return the first whole second from ``wall`` on that fits; ``None`` when there is none for 41 years."""
        year, month, day = wall.year, wall.month, wall.day
        if self.months >> month & 1:
            days = self.days.in_month(year, month)
            if days >> day & 1 and (time := self._time(wall.hour, wall.minute, wall.second)):
                return datetime(year, month, day, *time)
            if (day := _first(days, day + 1)) > 0:
                return self._begin(year, month, day)
        month += 1
        for later in range(year, min(year + YEARS_AHEAD, datetime.max.year) + 1):
            while (month := _first(self.months, month)) > 0:
                if (day := _first(self.days.in_month(later, month), 1)) > 0:
                    return self._begin(later, month, day)
                month += 1
            month = 1
        return None

    def never_fits(self) -> bool:
        """Tell whether no day fits, such as a 31 February."""
        # From then on there is a 29 February on each day of the week within the years that are looked at.
        return self.at_or_after(datetime(2000, 1, 1)) is None

    def _begin(self, year: int, month: int, day: int) -> datetime:
        return datetime(year, month, day, _first(self.hours, 0), _first(self.minutes, 0), _first(self.seconds, 0))

    def _time(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """Return the first hour, minute and second of the day from those on."""
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (second := _first(self.seconds, second)) >= 0:
                return hour, minute, second
            if (minute := _first(self.minutes, minute + 1)) >= 0:
                return hour, minute, _first(self.seconds, 0)
        if (hour := _first(self.hours, hour + 1)) >= 0:
            return hour, _first(self.minutes, 0), _first(self.seconds, 0)
        return None


class CalendarSchedule(BaseSchedule):
    """What goes by the calendar and by the clocks of a zone. Two are the same when pattern, zone and ``nowfun`` are."""

    _pattern: Pattern

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first run strictly after an aware ``moment``, in UTC; ``None`` after the year 9999.

        A local time that clocks skip runs at the first moment after the gap, one that they show twice the first time
        only. Whatever falls into one gap is one run.
        """
        return self._next_in(self.tz, moment)

    def _next_in(self, zone: tzinfo, moment: datetime) -> datetime | None:
        start = as_instant(moment)
        try:
            wall = wall_of(start, zone).replace(microsecond=0) + SECOND
            while (fitting := self._pattern.at_or_after(wall)) is not None:
                first = instants_of(fitting, zone)[0]
                if first > start:
                    return first
                # The second pass of a repeated time: what lies in it has run.
                wall = end_of_first_pass(first, start, zone)
        except OverflowError:
            pass
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented  # of a subclass, Python asks that one
        return (self._pattern, self._tz, self.nowfun) == (other._pattern, other._tz, other.nowfun)

    def __hash__(self) -> int:
        return hash(self._pattern)  # without the zone: those of dateutil have no hash
