"""Celery's ``crontab``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, Self, TypeAlias

from .parser import ParseException, crontab_parser, field_error, parsed
from .pattern import CalendarSchedule, Days, Pattern, bits
from .zones import validate_zone, wall_of

__all__ = ["Cronspec", "crontab"]

#: A number, a text such as ``"*/15"``, or numbers.
Cronspec: TypeAlias = int | str | Iterable[int]

#: How many numbers a field has, and which is the first.
BOUNDS: Final = {
    "minute": (60, 0),
    "hour": (24, 0),
    "day_of_week": (7, 0),
    "day_of_month": (31, 1),
    "month_of_year": (12, 1),
}


class crontab(CalendarSchedule):
    """At the minutes whose time fits every field, by the clocks of the zone. Celery's ``celery.schedules.crontab``.

    Each field is a number, a text as :class:`crontab_parser` reads it, or an iterable of numbers; days of the week are
    0 (Sunday) to 6. A day must fit ``day_of_week`` *and* ``day_of_month`` *and* ``month_of_year``, unlike in cron:
    ``crontab(0, 0, day_of_week="fri", day_of_month=13)`` is each Friday the 13th. :class:`cron` has cron's meaning.

    ``minute``, ``hour``, ``day_of_week``, ``day_of_month`` and ``month_of_year`` are sets of numbers afterwards.

    It differs from Celery's where clocks jump: Celery runs a skipped time as much later as the gap is long, and may run
    a repeated one twice (what happens here is told in :mod:`django_tasks.schedules`). It can be hashed, and refuses an
    empty field, with which Celery fails later. A deadline for late starts is no business of the schedule's.

    Raises ``ParseException``, a ``ValueError``, or ``TypeError``, which name the field.
    """

    def __init__(
        self,
        minute: Cronspec = "*",
        hour: Cronspec = "*",
        day_of_week: Cronspec = "*",
        day_of_month: Cronspec = "*",
        month_of_year: Cronspec = "*",
        nowfun: Callable[[], datetime] | None = None,
        tz: str | tzinfo | None = None,
        *,
        app: Any = None,
    ) -> None:
        super().__init__(nowfun, tz)
        self._orig_minute, self.minute = _expanded("minute", minute)
        self._orig_hour, self.hour = _expanded("hour", hour)
        self._orig_day_of_week, self.day_of_week = _expanded("day_of_week", day_of_week)
        self._orig_day_of_month, self.day_of_month = _expanded("day_of_month", day_of_month)
        self._orig_month_of_year, self.month_of_year = _expanded("month_of_year", month_of_year)
        days = Days(bits(self.day_of_month), self.day_of_week)
        self._pattern = Pattern(1, bits(self.minute), bits(self.hour), days, bits(self.month_of_year))
        if self._pattern.never_fits():
            raise ParseException(
                f"day_of_month is {self._orig_day_of_month!r} and month_of_year {self._orig_month_of_year!r}: "
                f"there is no such day, so this would never run; allowed: days that occur in one of the months"
            )

    @classmethod
    def from_string(
        cls, crontab: str, nowfun: Callable[[], datetime] | None = None, tz: str | tzinfo | None = None
    ) -> Self:
        """Return the crontab of a line in cron's order: minute, hour, day of month, month, day of week.

        The meaning stays Celery's: the day must fit both fields.

        Raises ``ParseException`` when there are not five fields, or one cannot be read.
        """
        if not isinstance(crontab, str):
            raise TypeError(f"crontab is {crontab!r}; allowed: a text of five fields")
        fields = crontab.split()
        if len(fields) != 5:
            raise field_error("crontab", crontab, f"fields in it: {len(fields)}", "five, as in '30 4 * * mon-fri'")
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, nowfun=nowfun, tz=tz)

    @property
    def fields(self) -> tuple[str, str, str, str, str]:
        """What was given, as texts in cron's order: ``from_string`` of them, joined by spaces, is an equal crontab."""
        return (
            _text(self._orig_minute),
            _text(self._orig_hour),
            _text(self._orig_day_of_month),
            _text(self._orig_month_of_year),
            _text(self._orig_day_of_week),
        )

    def remaining_delta(
        self, last_run_at: datetime, tz: str | tzinfo | None = None
    ) -> tuple[datetime, timedelta, datetime]:
        """Return ``last_run_at`` and now, both in the zone, and between them what leads to the next run on the wall.

        ``last_run_at + delta`` is the local time of the next run. Celery's delta is an object of its own that is added
        in the same way. ``tz`` takes the place of the schedule's zone.

        Raises ``OverflowError`` when there is no run before the year 10,000.
        """
        zone = validate_zone(tz) or self.tz
        last = self.maybe_make_aware(last_run_at).astimezone(zone)
        run = self._next_in(zone, last)
        if run is None:
            raise OverflowError(f"{self!r} does not run between {last} and the year 10,000")
        return last, wall_of(run, zone) - last.replace(tzinfo=None), self.now().astimezone(zone)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (
            self._orig_minute,
            self._orig_hour,
            self._orig_day_of_week,
            self._orig_day_of_month,
            self._orig_month_of_year,
            self.nowfun,
            self._tz,
        )

    def __repr__(self) -> str:
        order = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        given = " ".join(str(getattr(self, f"_orig_{name}")) for name in order)
        return f"<crontab: {given} (m/h/dM/MY/d){'' if self._tz is None else f', {self._tz}'}>"

    def __str__(self) -> str:
        return " ".join(self.fields) + ("" if self._tz is None else f" ({self._tz})")


def _expanded(name: str, spec: Any) -> tuple[Any, frozenset[int]]:
    """Return a field as it is kept, and its numbers."""
    count, lowest = BOUNDS[name]
    if isinstance(spec, str):
        try:
            return spec, parsed(crontab_parser, spec, count, lowest)
        except ParseException as error:
            raise field_error(name, spec, str(error), crontab_parser(count, lowest).allowed) from None
    numbers: Any = spec
    if isinstance(spec, bool) or not isinstance(spec, int | Iterable):
        raise TypeError(f"{name} is {spec!r}; allowed: a number, a text such as '*/5', or an iterable of numbers")
    if isinstance(spec, int):
        numbers = (spec,)
    elif not isinstance(spec, list | tuple | set | frozenset | range):
        spec = numbers = list(spec)  # an iterator can be read but once
    else:
        spec = numbers = copy(spec)  # the caller may go on to change it
    if not numbers:
        raise field_error(name, spec, "it is empty, so this would never run", crontab_parser(count, lowest).allowed)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(
                f"{name} is {spec!r}; allowed in an iterable: numbers from {lowest} to {count + lowest - 1}"
            )
        if not lowest <= number < lowest + count:
            reason = f"{number} is not between {lowest} and {count + lowest - 1}"
            raise field_error(name, spec, reason, crontab_parser(count, lowest).allowed)
    return spec, frozenset(numbers)


def _text(spec: Any) -> str:
    if isinstance(spec, str):
        return "".join(spec.split())
    return ",".join(map(str, [spec] if isinstance(spec, int) else sorted(spec)))
