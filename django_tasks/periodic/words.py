"""A crontab in words. Celery's meaning of the days: they must fit the month's field *and* the week's."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from ..schedules import crontab

__all__ = ["in_words"]

DAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS: Final = (
    *("", "January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
#: Most times of a day that are listed one by one.
MOST_TIMES: Final = 6


def in_words(schedule: crontab) -> str:
    """Return when it runs: ``At 02:30, Monday to Friday``."""
    of_month, of_week = schedule.day_of_month, schedule.day_of_week
    parts = [_times(schedule.minute, schedule.hour)]
    if len(of_month) < 31:
        parts.append(f"on {_listed(of_month, str, 'day', 'days')} of the month")
    if len(of_week) < 7:
        week = _listed(of_week, lambda day: DAYS[day])
        parts.append(f"only if it is {week.replace(' and ', ' or ')}" if len(of_month) < 31 else week)
    if len(schedule.month_of_year) < 12:
        parts.append(f"in {_listed(schedule.month_of_year, lambda month: MONTHS[month])}")
    return ", ".join(parts)


def _times(minutes: Collection[int], hours: Collection[int]) -> str:
    if len(minutes) == 60:
        return "Every minute" if len(hours) == 24 else f"Every minute of {_hours(hours)}"
    if len(minutes) * len(hours) <= MOST_TIMES:
        return f"At {_joined([f'{hour:02}:{minute:02}' for hour in sorted(hours) for minute in sorted(minutes)])}"
    step = _step(minutes, 60)
    if step:
        often = f"Every {step} minutes"
    elif set(minutes) == {0}:
        every = _step(hours, 24)
        return f"Every {every} hours, on the hour" if every else f"On the hour, {_within(hours)}"
    else:
        often = f"At {_listed(minutes, str, 'minute', 'minutes')} past the hour"
    return often if len(hours) == 24 else f"{often}, {_within(hours)}"


def _within(hours: Collection[int]) -> str:
    return "every hour" if len(hours) == 24 else f"in {_hours(hours)}"


def _hours(hours: Collection[int]) -> str:
    return _listed(hours, lambda hour: f"{hour:02}", "hour", "hours")


def _step(numbers: Collection[int], count: int) -> int:
    """Return 15 for 0, 15, 30 and 45 of 60 numbers; 0 if they are no such row, or each is among them."""
    least = min((number for number in numbers if number), default=count)
    return least if 1 < least < count and set(numbers) == set(range(0, count, least)) else 0


def _listed(numbers: Collection[int], name: Callable[[int], str], one: str = "", many: str = "") -> str:
    """Return numbers by their names, three or more in a row as a range."""
    parts: list[str] = []
    ordered = sorted(numbers)
    while ordered:
        length = next((i for i in range(1, len(ordered)) if ordered[i] != ordered[0] + i), len(ordered))
        if length > 2:
            parts.append(f"{name(ordered[0])} to {name(ordered[length - 1])}")
        else:
            parts += [name(number) for number in ordered[:length]]
        ordered = ordered[length:]
    return f"{one if len(numbers) == 1 else many} {_joined(parts)}".strip()


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
