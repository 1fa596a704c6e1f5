"""A line of cron, with cron's meaning."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, ClassVar, Final

from .parser import ParseException, crontab_parser, field_error, parsed
from .pattern import CalendarSchedule, Days, Pattern, bits

__all__ = ["cron"]

ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS: Final = {
    "second": (60, 0),
    "minute": (60, 0),
    "hour": (24, 0),
    "day of month": (31, 1),
    "month": (12, 1),
    "day of week": (8, 0),
}


class cron_parser(crontab_parser):
    """As :class:`crontab_parser`; ``5/15`` is from 5 on, every 15th, and the day of the week has a 7, Sunday, too."""

    _number_with_step: ClassVar[bool] = True


class cron(CalendarSchedule):
    """A line of cron: ``cron("*/5 9-17 * * MON-FRI")``, by the clocks of the zone.

    Five fields as in crontab(5): minute, hour, day of month, month, day of week (0 and 7 are Sunday). A sixth one
    stands *before* them and is the second, as in Quartz, Spring and cronsim. Days and months may be named, in any case;
    ranges may go round the end (``FRI-MON``, ``22-2``); ``5/15`` is from 5 on. The day of month may be ``L``, the last
    one; the day of week ``FRI#2``, the second Friday of the month, or ``FRIL``, the last one. ``@hourly``, ``@daily``
    (``@midnight``), ``@weekly``, ``@monthly`` and ``@yearly`` (``@annually``) stand for lines.

    If both fields of the day are restricted, a day need fit only *one* of them, unlike in :class:`crontab`; a field
    that begins with ``*`` counts as unrestricted, as in Vixie's and Debian's cron. ``0 0 13 * FRI`` is each 13th and
    each Friday.

    Where clocks jump it does what all schedules here do, with fields of ``*``, too: nothing runs twice at a repeated
    local time. ``schedule(300)`` goes on in real time.

    Raises ``ParseException``, a ``ValueError``, which names the field, or ``TypeError`` for what is no text.
    """

    def __init__(
        self,
        line: str,
        nowfun: Callable[[], datetime] | None = None,
        tz: str | tzinfo | None = None,
    ) -> None:
        super().__init__(nowfun, tz)
        if not isinstance(line, str):
            raise TypeError(f"line is {line!r}; allowed: a text such as '*/5 9-17 * * MON-FRI'")
        self.line = " ".join(line.split())
        self._pattern = _pattern_of(self.line)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.line, self.nowfun, self._tz)

    def __repr__(self) -> str:
        return f"<cron: {self}>"

    def __str__(self) -> str:
        return self.line + ("" if self._tz is None else f" ({self._tz})")


def _pattern_of(line: str) -> Pattern:
    if line.startswith("@") and line.lower() not in ALIASES:
        raise field_error("line", line, "there is no such alias", ", ".join(ALIASES))
    fields = ALIASES.get(line.lower(), line).split(" ")
    if len(fields) not in (5, 6):
        allowed = "minute, hour, day of month, month, day of week; a sixth before them is the second"
        raise field_error("line", line, f"fields in it: {len(fields)}", allowed)
    *second, minute, hour, day_of_month, month, day_of_week = fields
    pattern = Pattern(
        seconds=bits(_numbers("second", *second)) if second else 1,
        minutes=bits(_numbers("minute", minute)),
        hours=bits(_numbers("hour", hour)),
        days=_days(day_of_month, day_of_week),
        months=bits(_numbers("month", month)),
    )
    if pattern.never_fits():
        raise field_error("line", line, "there is no such day, so this would never run", "days that occur in a month")
    return pattern


def _days(day_of_month: str, day_of_week: str) -> Days:
    plain_of_month, special_of_month = _split(day_of_month, lambda part: part.upper() == "L")
    plain_of_week, special_of_week = _split(day_of_week, lambda part: "#" in part or part.upper().endswith("L"))
    return Days(
        of_month=bits(_numbers("day of month", plain_of_month)) if plain_of_month else 0,
        of_week=_weekdays(plain_of_week) if plain_of_week else frozenset(),
        last_of_month=bool(special_of_month),
        nth_of_week=frozenset(_nth(part) for part in special_of_week),
        either=not (day_of_month.startswith("*") or day_of_week.startswith("*")),
    )


def _split(field: str, special: Callable[[str], bool]) -> tuple[str, list[str]]:
    """Return a field without its special parts, which may be nothing, and these."""
    parts = field.split(",")
    return ",".join(part for part in parts if not special(part)), [part for part in parts if special(part)]


def _nth(part: str) -> tuple[int, int]:
    """Return the day of the week and which one of the month ``FRI#2`` or ``FRIL`` is."""
    day, sign, n = part.partition("#")
    if not sign:
        day, n = part[:-1], "-1"
    elif n not in ("1", "2", "3", "4", "5"):
        raise field_error("day of week", part, f"{n!r} stands after #", "1 to 5")
    numbers = _weekdays(day) if day else frozenset()
    if len(numbers) != 1:
        raise field_error("day of week", part, "what stands before # or L is not one day", "such as FRI#2 and FRIL")
    return min(numbers), int(n)


def _weekdays(field: str) -> frozenset[int]:
    return frozenset(number % 7 for number in _numbers("day of week", field))


def _numbers(name: str, field: str) -> frozenset[int]:
    count, lowest = FIELDS[name]
    try:
        return parsed(cron_parser, field, count, lowest)
    except ParseException as error:
        special = {"day of month": ", L (the last day)", "day of week": ", FRI#2 (the second), FRIL (the last)"}
        allowed = cron_parser(count, lowest).allowed + special.get(name, "")
        raise field_error(name, field, str(error), allowed) from None
