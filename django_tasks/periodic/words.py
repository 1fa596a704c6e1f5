"""A crontab in words, in the reader's language. Celery's meaning of the days: they must fit the month's field *and* the
week's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from django.utils.dates import MONTHS, WEEKDAYS
from django.utils.translation import get_language, ngettext, override, pgettext
from django.utils.translation import gettext as _

from ..schedules import crontab

__all__ = ["in_words"]

#: Most times of a day that are listed one by one.
MOST_TIMES: Final = 6
#: Languages that write days and months small inside a sentence, though Django has them large.
_SMALL: Final = ("pt", "ru")


def in_words(schedule: crontab) -> str:
    """Return when it runs: ``At 02:30, Monday to Friday``; in English where there are no words in the language."""
    if _("Every minute") == "Every minute":  # or names of days in one language would stand in a sentence of another
        with override("en"):
            return _told(schedule)
    return _told(schedule)


def _told(schedule: crontab) -> str:
    of_month, of_week = schedule.day_of_month, schedule.day_of_week
    parts = [_times(schedule.minute, schedule.hour)]
    if len(of_month) < 31:
        days = _parts(of_month, str)
        text = ngettext("on day %(days)s of the month", "on days %(days)s of the month", len(of_month))
        parts.append(text % {"days": _and(days)})
    if len(of_week) < 7:
        days = _parts(of_week, _weekday)
        parts.append(_("only if it is %s") % _or(days) if len(of_month) < 31 else _and(days))
    if len(schedule.month_of_year) < 12:
        parts.append(pgettext("months", "in %s") % _and(_parts(schedule.month_of_year, _month)))
    return _parted(*parts)


def _times(minutes: Collection[int], hours: Collection[int]) -> str:
    if len(minutes) == 60:
        return _("Every minute") if len(hours) == 24 else _("Every minute of %s") % _hours(hours)
    if len(minutes) * len(hours) <= MOST_TIMES:
        return _("At %s") % _and([f"{hour:02}:{minute:02}" for hour in sorted(hours) for minute in sorted(minutes)])
    step = _step(minutes, 60)
    if step:
        often = _("Every %s minutes") % step
    elif set(minutes) == {0}:
        every = _step(hours, 24)
        if every:
            return _("Every %s hours, on the hour") % every
        often = pgettext("on the hour", "every hour") if len(hours) == 24 else _("in %s") % _hours(hours)
        return _("On the hour, %s") % often
    else:
        text = ngettext("At minute %(minutes)s past the hour", "At minutes %(minutes)s past the hour", len(minutes))
        often = text % {"minutes": _and(_parts(minutes, str))}
    return often if len(hours) == 24 else _parted(often, _("in %s") % _hours(hours))


def _hours(hours: Collection[int]) -> str:
    text = ngettext("hour %(hours)s", "hours %(hours)s", len(hours))
    return text % {"hours": _and(_parts(hours, lambda hour: f"{hour:02}"))}


def _weekday(day: int) -> str:
    return _inside(str(WEEKDAYS[(day - 1) % 7]))  # Django counts from Monday


def _month(month: int) -> str:
    return _inside(str(MONTHS[month]))


def _inside(name: str) -> str:
    """Return the name of a day or a month as it stands in a sentence."""
    return name.lower() if (get_language() or "").startswith(_SMALL) else name


def _step(numbers: Collection[int], count: int) -> int:
    """Return 15 for 0, 15, 30 and 45 of 60 numbers; 0 if they are no such row, or each is among them."""
    least = min((number for number in numbers if number), default=count)
    return least if 1 < least < count and set(numbers) == set(range(0, count, least)) else 0


def _parts(numbers: Collection[int], name: Callable[[int], str]) -> list[str]:
    """Return numbers by their names, three or more in a row as a range."""
    parts: list[str] = []
    ordered = sorted(numbers)
    while ordered:
        length = next((i for i in range(1, len(ordered)) if ordered[i] != ordered[0] + i), len(ordered))
        if length > 2:
            names = {"first": name(ordered[0]), "last": name(ordered[length - 1])}
            parts.append(pgettext("a range", "%(first)s to %(last)s") % names)
        else:
            parts += [name(number) for number in ordered[:length]]
        ordered = ordered[length:]
    return parts


def _parted(*parts: str) -> str:
    return pgettext("between parts of a schedule", ", ").join(parts)


def _listed(parts: Sequence[str]) -> str:
    return pgettext("between things of a list", ", ").join(parts)


def _and(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return _("%(some)s and %(last)s") % {"some": _listed(parts[:-1]), "last": parts[-1]}


def _or(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    return _("%(some)s or %(last)s") % {"some": _listed(parts[:-1]), "last": parts[-1]}
