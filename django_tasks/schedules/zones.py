"""Local clocks: which instant a time on a wall is, and what happens where clocks jump.

A *wall* is a naive ``datetime``, what a clock of the zone shows. An *instant* is an aware ``datetime`` in UTC: values
of one local zone compare by the wall alone, so that two passes of one hour could not be told apart.

Nothing here relies on the offset that a zone tells of a time which does not exist, or occurs twice: zoneinfo and
dateutil differ in the first, and dateutil errs in the second where summer time counts as standard time (Dublin). What
either makes of an instant is right.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

__all__ = ["as_instant", "end_of_first_pass", "instants_of", "validate_zone", "wall_of"]

SECOND: Final = timedelta(seconds=1)
#: No clock has ever jumped further: Samoa left out a whole day.
LONGEST_JUMP: Final = timedelta(days=1)


def validate_zone(value: Any, *, name: str = "tz") -> tzinfo | None:
    """Return a zone given by its IANA name or as itself; ``None`` stays ``None``.

    Raises ``TypeError`` or ``ValueError`` that says what was given and what is allowed.
    """
    if value is None or isinstance(value, tzinfo):
        return value
    allowed = "allowed: None, the name of an IANA time zone such as 'Europe/Berlin', or a tzinfo"
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; {allowed}")
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name is that of a directory, as 'Europe'
        close = difflib.get_close_matches(value[:64], available_timezones(), n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name} is {value[:64]!r}; {allowed}{hint}") from None


def as_instant(moment: datetime) -> datetime:
    """Return an aware moment in UTC. Raises ``TypeError`` or ``ValueError`` for anything else."""
    if not isinstance(moment, datetime):
        raise TypeError(f"moment is {moment!r}; allowed: an aware datetime")
    if moment.utcoffset() is None:
        raise ValueError(f"moment is {moment!r}, which has no time zone; allowed: an aware datetime")
    return moment.astimezone(UTC)


def wall_of(instant: datetime, zone: tzinfo) -> datetime:
    """Return what the zone's clocks show then."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def instants_of(wall: datetime, zone: tzinfo) -> tuple[datetime, ...]:
    """Return when the zone's clocks show that: one instant, two where they are set back, earlier first.

    Where they skip it, the first instant after the gap.
    """
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_of(first, zone) != wall:
        return (_end_of_gap(wall, first, zone),)
    second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if second > first and wall_of(second, zone) == wall:
        return (first, second)
    return (first,)


def end_of_first_pass(first: datetime, moment: datetime, zone: tzinfo) -> datetime:
    """Return what the clocks were about to show when they were set back.

    ``first`` lies in the first pass of the repeated time, ``moment`` in the second one.
    """
    begin = wall_of(first, zone)
    seconds = range(int((moment - first).total_seconds()) + 1)
    passed = bisect_left(seconds, True, key=lambda s: wall_of(first + s * SECOND, zone) != begin + s * SECOND)
    return begin + passed * SECOND


def _end_of_gap(wall: datetime, near: datetime, zone: tzinfo) -> datetime:
    low = near - LONGEST_JUMP
    seconds = range(2 * int(LONGEST_JUMP.total_seconds()))
    return low + bisect_left(seconds, True, key=lambda s: wall_of(low + s * SECOND, zone) >= wall) * SECOND
