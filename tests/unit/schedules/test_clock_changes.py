"""Where local clocks jump: every change of 32 zones from 2020 to 2030, against clocks watched minute by minute.

The rule: a time that is skipped runs once, at the first moment after the gap; one that occurs twice, the first time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache, partial
from zoneinfo import ZoneInfo

import pytest
import time_machine
from dateutil import tz as dateutil_zones
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from django_tasks.schedules import BaseSchedule, crontab, schedule
from django_tasks.schedules.zones import instants_of

from .specs import ZONES

MINUTE = timedelta(minutes=1)
#: How long the clocks are watched before and after a change.
AROUND = timedelta(hours=4)


def offset(moment: datetime, zone: tzinfo) -> timedelta:
    found = moment.astimezone(zone).utcoffset()
    assert found is not None
    return found


@cache
def changes(name: str) -> list[datetime]:
    """Return the instants at which the clocks of a zone are changed."""
    zone = ZoneInfo(name)
    found = []
    day = datetime(2020, 1, 1, tzinfo=UTC)
    while day < datetime(2031, 1, 1, tzinfo=UTC):
        before = offset(day, zone)
        if offset(day + timedelta(days=1), zone) != before:
            seconds = bisect_left(range(86_400), True, key=lambda s: offset(day + timedelta(seconds=s), zone) != before)
            found.append(day + timedelta(seconds=seconds))
        day += timedelta(days=1)
    return found


@dataclass(frozen=True)
class Watched:
    """What the clocks showed around a change: an instant for each minute, and the walls that came up then."""

    change: datetime
    minutes: list[tuple[datetime, list[datetime]]]

    def runs(self, fits: crontab) -> list[datetime]:
        """Return when that crontab runs."""
        return [instant for instant, walls in self.minutes if any(matches(fits, wall) for wall in walls)]


def watch(change: datetime, zone: tzinfo) -> Watched:
    minutes = []
    before = (change - AROUND - MINUTE).astimezone(zone).replace(tzinfo=None)
    instant = change - AROUND
    while instant < change + AROUND:
        wall = instant.astimezone(zone).replace(tzinfo=None)
        new = []
        while before < wall:  # what was never shown before: usually one, after a gap many, in a second pass none
            before += MINUTE
            new.append(before)
        minutes.append((instant, new))
        instant += MINUTE
    return Watched(change, minutes)


def matches(fits: crontab, wall: datetime) -> bool:
    return wall.minute in fits.minute and wall.hour in fits.hour


def crontabs_near(watched: Watched, zone: tzinfo | None = None) -> Iterator[crontab]:
    """Yield crontabs that run at all times, and some for the hours that are skipped or repeated."""
    yield crontab(tz=zone)
    yield crontab("*/15", tz=zone)
    yield crontab(30, tz=zone)
    for _, walls in watched.minutes[::20]:
        for wall in walls[::25]:
            yield crontab(wall.minute, wall.hour, tz=zone)


@pytest.mark.parametrize("name", ZONES)
def test_there_are_changes_to_look_at(name: str) -> None:
    assert changes(name)


@pytest.mark.parametrize("use_tz", [True, False], ids=["USE_TZ", "local time"])
@pytest.mark.parametrize("name", ZONES)
def test_at_every_change_each_time_runs_once_from_wherever_one_starts(name: str, use_tz: bool) -> None:
    zone = ZoneInfo(name)
    with override_settings(USE_TZ=use_tz, TIME_ZONE=name):
        for change in changes(name):
            watched = watch(change, zone)
            for fits in crontabs_near(watched):
                runs = watched.runs(fits)
                # A worker may be restarted at any of these.
                restarts = [instant + timedelta(seconds=17) for instant, _ in watched.minutes[::47]]
                for moment in sorted([watched.minutes[0][0], *runs[::7], *runs[-1:], *restarts]):
                    later = bisect_right(runs, moment)
                    if later < len(runs):
                        assert fits.next_after(moment) == runs[later], (fits, moment.isoformat())


@pytest.mark.parametrize("use_tz", [True, False], ids=["USE_TZ", "local time"])
@pytest.mark.parametrize("name", ZONES)
def test_at_every_change_is_due_tells_the_same_by_the_system_clock(name: str, use_tz: bool) -> None:
    zone = ZoneInfo(name)
    with override_settings(USE_TZ=use_tz, TIME_ZONE=name):
        fits = crontab("*/20")
        for change in changes(name)[-4:]:
            runs = watch(change, zone).runs(fits)
            last = runs[0]
            for now in (change - MINUTE, change, change + 25 * MINUTE, change + 85 * MINUTE):
                with time_machine.travel(now, tick=False):
                    state = fits.is_due(last)
                due = [run for run in runs if last < run <= now]
                ahead = next(run for run in runs if run > now)
                assert state == (bool(due), (ahead - now).total_seconds())
                last = due[-1] if due else last


@pytest.mark.parametrize("name", ZONES)
def test_without_use_tz_naive_times_are_local_and_never_meet_aware_ones(name: str) -> None:
    zone = ZoneInfo(name)
    with override_settings(USE_TZ=False, TIME_ZONE=name):
        for change in changes(name)[-4:]:
            for minutes in range(-90, 90, 30):
                now = change + minutes * MINUTE
                wall = now.astimezone(zone).replace(tzinfo=None, fold=0)
                first = instants_of(wall, zone)[0]  # a naive time that occurs twice is taken as the first
                nowfun = partial(datetime.combine, wall.date(), wall.time())
                for each in (crontab(nowfun=nowfun), schedule(60, nowfun=nowfun)):
                    assert each.now().astimezone(UTC) == first
                    run = each.next_after(first)
                    assert run is not None
                    assert each.is_due(wall) == (False, (run - first).total_seconds())


# By hand: what a person would expect. zone, crontab(minute, hour), after, the runs that follow; all local, with offset.
BY_HAND = [
    # An hour is skipped: what lies in it runs at its end.
    ("Europe/Berlin", (30, 2), "2024-03-30T12:00+01:00", ["2024-03-31T03:00+02:00", "2024-04-01T02:30+02:00"]),
    ("America/New_York", (0, 2), "2024-03-09T12:00-05:00", ["2024-03-10T03:00-04:00", "2024-03-11T02:00-04:00"]),
    ("Europe/Berlin", ("0,30", "1-3"), "2024-03-31T01:00+01:00",
     ["2024-03-31T01:30+01:00", "2024-03-31T03:00+02:00", "2024-03-31T03:30+02:00", "2024-04-01T01:00+02:00"]),
    # An hour occurs twice: the first time counts.
    ("Europe/Berlin", (30, 2), "2024-10-26T12:00+02:00", ["2024-10-27T02:30+02:00", "2024-10-28T02:30+01:00"]),
    ("Europe/Berlin", (30, 2), "2024-10-27T02:45+02:00", ["2024-10-28T02:30+01:00"]),
    ("Europe/Berlin", (30, 2), "2024-10-27T02:15+01:00", ["2024-10-28T02:30+01:00"]),
    ("Europe/Berlin", (0, "*"), "2024-10-27T01:00+02:00", ["2024-10-27T02:00+02:00", "2024-10-27T03:00+01:00"]),
    # Half an hour, and two.
    ("Australia/Lord_Howe", (15, 2), "2024-10-05T12:00+10:30", ["2024-10-06T02:30+11:00", "2024-10-07T02:15+11:00"]),
    ("Australia/Lord_Howe", (45, 1), "2024-04-06T12:00+11:00", ["2024-04-07T01:45+11:00", "2024-04-08T01:45+10:30"]),
    ("Antarctica/Troll", (0, 2), "2024-03-30T12:00+00:00", ["2024-03-31T03:00+02:00", "2024-04-01T02:00+02:00"]),
    # A day that begins at one o'clock, and a midnight that occurs twice.
    ("Asia/Beirut", (0, 0), "2024-03-30T12:00+02:00", ["2024-03-31T01:00+03:00", "2024-04-01T00:00+03:00"]),
    ("America/Havana", (0, 0), "2024-11-02T12:00-04:00", ["2024-11-03T00:00-04:00", "2024-11-04T00:00-05:00"]),
    # Summer time ends for Ramadan; standard time is summer time in Ireland.
    ("Africa/Casablanca", (30, 2), "2024-03-09T12:00+01:00", ["2024-03-10T02:30+01:00", "2024-03-11T02:30+00:00"]),
    ("Africa/Casablanca", (30, 2), "2024-04-13T12:00+00:00", ["2024-04-14T03:00+01:00", "2024-04-15T02:30+01:00"]),
    ("Europe/Dublin", (30, 1), "2024-03-30T12:00+00:00", ["2024-03-31T02:00+01:00", "2024-04-01T01:30+01:00"]),
    # Samoa had no 30 December 2011: its runs came as one, at midnight.
    ("Pacific/Apia", (0, 12), "2011-12-29T12:00-10:00", ["2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"]),
    # Before there were time zones, clocks were changed by odd seconds: in Amsterdam by 4 minutes and 28 of them.
    ("Europe/Amsterdam", ("*", "*"), "1937-06-30T23:59:58+01:19:32",
     ["1937-07-01T00:00:28+01:20", "1937-07-01T00:01+01:20"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "name", "fields", "after", "wanted"),
    [
        *((ZoneInfo, *case) for case in BY_HAND),
        *((dateutil_zones.gettz, *case) for case in BY_HAND[:-1]),  # dateutil has offsets in whole minutes only
    ],
)
def test_the_runs_are_those_that_a_person_expects(
    make: Callable[[str], tzinfo], name: str, fields: tuple[int, int], after: str, wanted: list[str]
) -> None:
    zone = make(name)
    moment: datetime | None = datetime.fromisoformat(after)
    runs = []
    for _ in wanted:
        assert moment is not None
        moment = crontab(*fields, tz=zone).next_after(moment)
        runs.append(moment)
    assert runs == [datetime.fromisoformat(each).astimezone(UTC) for each in wanted]


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "Australia/Lord_Howe", "Asia/Beirut", "America/Santiago", "Europe/Dublin"]
)
def test_zones_of_dateutil_mean_the_same(name: str) -> None:
    for change in changes(name):
        watched = watch(change, ZoneInfo(name))
        for fits in crontabs_near(watched, dateutil_zones.gettz(name)):
            runs = watched.runs(fits)
            moments = [watched.minutes[0][0], *runs[::5], change - MINUTE, change, change + 20 * MINUTE]
            for moment in moments:
                later = bisect_right(runs, moment)
                if later < len(runs):
                    assert fits.next_after(moment) == runs[later]


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(ZONES),
    moment=st.datetimes(datetime(2019, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
    later=st.timedeltas(timedelta(0), timedelta(days=3)),
    minute=st.integers(0, 59),
    hour=st.integers(0, 23) | st.just("*"),
)
def test_a_later_moment_never_has_an_earlier_run(
    name: str, moment: datetime, later: timedelta, minute: int, hour: int | str
) -> None:
    fits = crontab(minute, hour, tz=name)
    first, second = fits.next_after(moment), fits.next_after(moment + later)
    assert first is not None
    assert second is not None
    assert moment < first <= second
    assert second == first or first <= moment + later


def test_an_interval_counts_real_time_while_clocks_jump() -> None:
    each: BaseSchedule = schedule(1800, tz="Europe/Berlin")
    run: datetime | None = datetime.fromisoformat("2024-10-27T02:30+02:00")
    runs = []
    for _ in range(4):
        assert run is not None
        run = each.next_after(run)
        assert run is not None
        runs.append(run.astimezone(ZoneInfo("Europe/Berlin")).isoformat(timespec="minutes"))
    assert runs == [
        *("2024-10-27T02:00+01:00", "2024-10-27T02:30+01:00"),
        *("2024-10-27T03:00+01:00", "2024-10-27T03:30+01:00"),
    ]


def test_a_rounded_day_lasts_as_long_as_it_does() -> None:
    each = schedule(timedelta(days=1), relative=True, tz="America/St_Johns")
    # There, in 2005, 0:01 was set back to 23:01: midnight occurred twice, and counts once.
    noon = datetime.fromisoformat("2005-10-29T12:00-02:30")
    midnight = each.next_after(noon)
    assert midnight == datetime.fromisoformat("2005-10-30T00:00-02:30")
    assert each.next_after(midnight) == datetime.fromisoformat("2005-10-31T00:00-03:30")
    second_pass = datetime.fromisoformat("2005-10-29T23:30-03:30")
    assert each.next_after(second_pass) == datetime.fromisoformat("2005-10-31T00:00-03:30")
