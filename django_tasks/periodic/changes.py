"""What the coming changes of clocks do to a schedule that goes by the calendar."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from django.utils.translation import gettext as _

from ..schedules import BaseSchedule, cron, crontab
from ..schedules.zones import wall_of

__all__ = ["clock_changes"]

#: How far ahead is looked: each change that a year brings.
AHEAD: Final = timedelta(days=366)
HOUR: Final = timedelta(hours=1)
TICK: Final = timedelta(microseconds=1)


def clock_changes(timetable: BaseSchedule, now: datetime) -> Iterator[str]:
    """Yield a sentence for each change of clocks within a year that hits a run.

    What runs every hour or more often is hit each time, and nobody wants to know.
    """
    if not isinstance(timetable, crontab | cron):
        return
    zone = timetable.tz
    on_the_wall = copy(timetable)
    on_the_wall._tz = UTC  # by a clock that never changes: what the fields say
    for instant in _changes(zone, now, now + AHEAD):
        before, after = wall_of(instant - TICK, zone) + TICK, wall_of(instant, zone)
        first, last = sorted((before, after))
        hit = on_the_wall.next_after(first.replace(tzinfo=UTC) - TICK)
        if hit is None or hit >= last.replace(tzinfo=UTC):
            continue
        following = on_the_wall.next_after(hit)
        earlier = on_the_wall.next_after(hit - HOUR - TICK)
        if (following is not None and following - hit <= HOUR) or (earlier is not None and earlier < hit):
            continue
        wall = f"{hit:%Y-%m-%d %H:%M}"
        if after > before:
            yield _("%(wall)s does not exist in %(zone)s, where clocks change: it runs at %(valid)s.") % {
                "wall": wall,
                "zone": zone,
                "valid": f"{after:%H:%M}",
            }
        else:
            yield _("%(wall)s occurs twice in %(zone)s, where clocks change: it runs once, the first time.") % {
                "wall": wall,
                "zone": zone,
            }


def _changes(zone: tzinfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the instants at which a zone's clocks change, to the second."""
    day, moment = timedelta(days=1), start.astimezone(UTC).replace(microsecond=0)
    while moment < end:
        if _offset(zone, moment) != _offset(zone, moment + day):
            low, high = moment, moment + day
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
                if _offset(zone, middle) == _offset(zone, low):
                    low = middle
                else:
                    high = middle
            yield high
        moment += day


def _offset(zone: tzinfo, moment: datetime) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
