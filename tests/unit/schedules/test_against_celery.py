"""Celery's own schedules are asked what they would have answered."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery import schedules as celerys
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from django_tasks import schedules
from django_tasks.schedules import crontab, crontab_parser, schedule
from django_tasks.schedules.zones import instants_of, wall_of

from .specs import FIELDS, crontabs, moments, texts, zones

APP = Celery("oracle", set_as_current=False)
many = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
some = settings(many, max_examples=400)


def of_celery(kind: str, *args: Any, zone: tzinfo = UTC, now: datetime | None = None, **options: Any) -> Any:
    """Return a schedule of Celery's in that zone; for it, it is ``now``."""
    clock: Callable[[], datetime] | None = None if now is None else lambda: now
    found = getattr(celerys, kind)(*args, nowfun=clock, app=APP, **options)
    found.tz = zone  # as django-celery-beat does
    return found


def next_of_celery(found: Any, last: datetime) -> datetime:
    """Return the next run after ``last`` by Celery's arithmetic; its ``nowfun`` tells ``last``."""
    run: datetime = last + found.remaining_estimate(last)
    return run


@many
@given(given_fields=crontabs, last=moments)
@example(
    {"minute": 0, "hour": 0, "day_of_week": "mon", "day_of_month": 29, "month_of_year": 2},
    datetime(2072, 3, 1, tzinfo=UTC),
)
@example({"minute": 0, "hour": 0, "day_of_month": 29, "month_of_year": 2}, datetime(2096, 2, 29, tzinfo=UTC))
@example({"minute": "55-5/3", "hour": "22-2"}, datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC))
def test_a_crontab_runs_when_celerys_does(given_fields: dict[str, Any], last: datetime) -> None:
    try:
        theirs = of_celery("crontab", now=last, **given_fields)
    except ValueError:
        with pytest.raises(ValueError, match="never run"):
            crontab(**given_fields)
        return
    ours = crontab(**given_fields)
    assert ours.next_after(last) == next_of_celery(theirs, last)


@many
@given(given_fields=crontabs, last=moments, zone=zones)
def test_in_a_zone_a_crontab_runs_when_celerys_does_unless_clocks_jump(
    given_fields: dict[str, Any], last: datetime, zone: ZoneInfo
) -> None:
    try:
        ours = crontab(**given_fields, tz=zone)
    except ValueError:
        assume(False)
    run = ours.next_after(last)
    assert run is not None
    assume(len(instants_of(wall_of(last, zone), zone)) == 1)  # in a repeated hour they differ
    theirs = of_celery("crontab", now=last, zone=zone, **given_fields)
    wanted = next_of_celery(theirs, last)
    assume(not (run < wanted and not exists(run, ours)))  # and after a gap
    assert run == wanted


def exists(run: datetime, ours: crontab) -> bool:
    """Tell whether the run is at a time that was asked for, and not at the end of a gap that swallowed one."""
    wall = wall_of(run, ours.tz)
    return wall.minute in ours.minute and wall.hour in ours.hour


@many
@given(given_fields=crontabs, last=moments, later=st.timedeltas(timedelta(0), timedelta(days=40)))
def test_a_crontab_is_due_when_celerys_is(given_fields: dict[str, Any], last: datetime, later: timedelta) -> None:
    now = last + later
    try:
        ours = crontab(**given_fields, nowfun=lambda: now)
    except ValueError:
        assume(False)
    theirs = of_celery("crontab", now=now, **given_fields)
    assert ours.is_due(last) == tuple(theirs.is_due(last))
    assert ours.remaining_estimate(last) == theirs.remaining_estimate(last)
    local, delta, present = theirs.remaining_delta(last)
    ours_local, ours_delta, ours_present = ours.remaining_delta(last, tz="UTC")
    assert (ours_local, ours_local + ours_delta, ours_present) == (local, local + delta, present)


@some
@given(every=st.floats(0.001, 1e7), last=moments, later=st.timedeltas(timedelta(0), timedelta(days=40)))
def test_an_interval_is_due_when_celerys_is(every: float, last: datetime, later: timedelta) -> None:
    ours = schedule(every, nowfun=lambda: last + later)
    theirs = of_celery("schedule", every, now=last + later)
    assert ours.is_due(last) == tuple(theirs.is_due(last))
    assert ours.remaining_estimate(last) == theirs.remaining_estimate(last)


@many
@given(
    every=st.integers(1, 90) | st.integers(1, 400_000) | st.sampled_from([3600, 7200, 86_400, 604_800]),
    last=moments,
    later=st.timedeltas(timedelta(0), timedelta(days=8)),
    zone=zones,
)
# Set back by half an hour in the second half of the hour: its beginning lies too far back, the next one counts.
@example(3600, datetime(2025, 4, 5, 14, 15, tzinfo=UTC), timedelta(0), ZoneInfo("Australia/Lord_Howe"))
# An hour that has two beginnings, of which only the first one has come.
@example(3600, datetime(2025, 11, 2, 4, 10, tzinfo=UTC), timedelta(0), ZoneInfo("America/New_York"))
# Both have come: the later one counts.
@example(7200, datetime(2025, 11, 2, 4, 30, tzinfo=UTC), timedelta(0), ZoneInfo("America/New_York"))
def test_a_rounded_interval_is_due_when_celerys_is(
    every: int, last: datetime, later: timedelta, zone: ZoneInfo
) -> None:
    now = (last + later).astimezone(zone)
    ours = schedule(every, relative=True, nowfun=lambda: now, tz=zone)
    theirs = of_celery("schedule", every, relative=True, now=now, zone=zone)
    assert ours.remaining_estimate(last) == theirs.remaining_estimate(last.astimezone(zone))
    assert ours.is_due(last) == tuple(theirs.is_due(last.astimezone(zone)))


@some
@given(data=st.data(), name=st.sampled_from(list(FIELDS)))
def test_a_field_is_read_as_by_celery(data: st.DataObject, name: str) -> None:
    numbers, names = FIELDS[name]
    text = data.draw(texts(numbers, names))
    bounds = (len(numbers), numbers[0])
    assert crontab_parser(*bounds).parse(text) == celerys.crontab_parser(*bounds).parse(text)


@many
@given(
    text=st.text("0123456789*/-,mondayfeb ", max_size=12) | st.text(max_size=6),
    bounds=st.sampled_from([(60, 0), (7, 0), (12, 1)]),
)
def test_no_field_is_read_otherwise_than_by_celery_though_some_are_refused(text: str, bounds: tuple[int, int]) -> None:
    try:
        numbers = crontab_parser(*bounds).parse(text)
    except schedules.ParseException:
        return
    bare = ",".join(part.strip() for part in text.split(","))  # spaces at commas are a matter of taste
    assert numbers == celerys.crontab_parser(*bounds).parse(bare)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [("", (60, 0)), ("1,,2", (60, 0)), ("*/", (60, 0)), ("-20", (60, 0)), ("0", (60, 1)), ("1", (1, 0)),
     ("*/0", (60, 0)), ("2-9/", (60, 0)), ("60", (60, 0)), ("7", (7, 0)), ("xyz", (7, 0)), ("0-60", (60, 0)),
     ("5/2", (60, 0)), ("*/x", (60, 0))],
)  # fmt: skip
def test_what_celery_refuses_is_refused(text: str, bounds: tuple[int, int]) -> None:
    with pytest.raises((ValueError, celerys.ParseException)):
        celerys.crontab_parser(*bounds).parse(text)
    with pytest.raises(schedules.ParseException):
        crontab_parser(*bounds).parse(text)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [("1-5-7", (60, 0)), ("mon", (60, 0)), ("feb", (7, 0)), ("monkey", (7, 0)), ("+5", (60, 0)), ("1_0", (60, 0)),
     ("٣", (60, 0)), ("*/1_0", (60, 0))],
)  # fmt: skip
def test_what_celery_reads_by_accident_is_refused(text: str, bounds: tuple[int, int]) -> None:
    assert celerys.crontab_parser(*bounds).parse(text)
    with pytest.raises(schedules.ParseException):
        crontab_parser(*bounds).parse(text)


@many
@given(given_fields=crontabs, others=crontabs)
def test_crontabs_are_equal_and_shown_as_celerys(given_fields: dict[str, Any], others: dict[str, Any]) -> None:
    try:
        ours, other = crontab(**given_fields), crontab(**others)
    except ValueError:
        assume(False)
    theirs = of_celery("crontab", **given_fields)
    assert (ours == other) is (theirs == of_celery("crontab", **others))
    if not any(isinstance(value, set) for value in given_fields.values()):  # their order is anybody's guess
        assert repr(ours) == repr(theirs)
    assert (ours.minute, ours.hour, ours.day_of_week) == (theirs.minute, theirs.hour, theirs.day_of_week)
    assert (ours.day_of_month, ours.month_of_year) == (theirs.day_of_month, theirs.month_of_year)
    again = pickle.loads(pickle.dumps(ours))  # noqa: S301 - our own
    assert again == ours
    assert again.fields == ours.fields
    assert hash(again) == hash(ours)
    assert crontab.from_string(" ".join(ours.fields)) == ours


@some
@given(every=st.integers(1, 10**7) | st.floats(0.001, 1e9))
def test_intervals_are_shown_as_celerys(every: float) -> None:
    assert repr(schedule(every)) == repr(of_celery("schedule", every))
    assert schedule(every).seconds == of_celery("schedule", every).seconds


def test_intervals_are_equal_as_celerys_are() -> None:
    for build in (schedule, celerys.schedule):
        assert build(10) == build(timedelta(seconds=10), relative=True)
        assert build(10) == timedelta(seconds=10)
        assert build(10) != build(11)
        assert build(10) != object()
        assert build(10) != 10
        rebuilt, args = build(10, relative=True).__reduce__()[:2]
        assert (rebuilt(*args), rebuilt(*args).relative) == (build(10), True)


def test_maybe_schedule_takes_what_celerys_takes() -> None:
    for maybe in (schedules.maybe_schedule, celerys.maybe_schedule):
        assert maybe(None) is None
        assert repr(maybe(90)) == "<freq: 1.50 minutes>"
        assert maybe(timedelta(hours=1), relative=True).relative is True  # type: ignore[union-attr]
    mine = crontab()
    assert schedules.maybe_schedule(mine) is mine


def test_crontabs_with_other_clocks_differ_as_celerys_do() -> None:
    def clock() -> datetime:
        return datetime.now(UTC)

    for build in (crontab, celerys.crontab):
        assert build("5", nowfun=clock) == build(5, nowfun=clock)
        assert build("5", nowfun=clock) != build("5")
        assert build() != schedule(60)


# Where clocks jump: what Celery does, and what is done here instead.


def test_a_skipped_time_runs_after_the_gap_and_with_celery_as_much_later_as_the_gap_is_long() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    last = datetime(2025, 3, 29, 12, tzinfo=UTC)
    theirs = of_celery("crontab", minute=30, hour=2, zone=berlin, now=last)
    assert next_of_celery(theirs, last).astimezone(berlin).isoformat() == "2025-03-30T03:30:00+02:00"
    ours = crontab(minute=30, hour=2, tz=berlin).next_after(last)
    assert ours is not None
    assert ours.astimezone(berlin).isoformat() == "2025-03-30T03:00:00+02:00"


def test_in_the_second_pass_of_a_repeated_hour_nothing_runs_and_with_celery_it_runs_again() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    last = datetime(2025, 10, 26, 1, 10, tzinfo=UTC)  # 2:10 for the second time
    theirs = of_celery("crontab", minute=30, hour=2, zone=berlin, now=last)
    assert theirs.is_due(last).is_due  # as if it had missed the first pass, whether it ran then or not
    ours = crontab(minute=30, hour=2, tz=berlin, nowfun=lambda: last)
    assert not ours.is_due(last).is_due
    assert ours.next_after(last) == datetime(2025, 10, 27, 1, 30, tzinfo=UTC)


def test_a_relative_interval_below_a_second_is_not_rounded_and_celerys_is_due_again_at_once() -> None:
    last = datetime(2026, 1, 1, 0, 0, 0, 250_000, UTC)
    assert of_celery("schedule", 0.5, relative=True, now=last).is_due(last).is_due
    assert schedule(0.5, relative=True, nowfun=lambda: last).is_due(last) == (False, 0.5)


def test_an_interval_of_nothing_is_refused_and_celerys_is_always_due() -> None:
    last = datetime(2026, 1, 1, tzinfo=UTC)
    assert of_celery("schedule", 0, now=last).is_due(last) == (True, 0)
    with pytest.raises(ValueError, match="run_every is 0; allowed: seconds above 0"):
        schedule(0)


def test_the_sunrise_at_the_pole_is_found_and_celery_says_a_year_later() -> None:
    last = datetime(2026, 4, 1, tzinfo=UTC)
    assert next_of_celery(of_celery("solar", "sunrise", 90, 0, now=last), last).date() == date(2027, 4, 1)
    run = schedules.solar("sunrise", 90, 0).next_after(last)
    assert run is not None
    assert run.date() == date(2027, 3, 18)


def test_an_empty_field_is_refused_and_celery_fails_when_it_is_asked() -> None:
    with pytest.raises(ValueError, match="empty"):
        of_celery("crontab", minute=[], now=datetime(2026, 1, 1, tzinfo=UTC)).is_due(datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match=r"minute is \[\]: it is empty, so this would never run"):
        crontab(minute=[])


def test_schedules_can_be_hashed_and_celerys_can_not() -> None:
    with pytest.raises(TypeError):
        hash(celerys.crontab())
    assert len({crontab("*/30"), crontab([0, 30]), crontab({30, 0}, tz="UTC")}) == 2
    assert {schedule(10): "ten"}[timedelta(seconds=10)] == "ten"  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("crontab", (0, 2)),
        ("schedule", (30.0,)),
        ("solar", ("sunset", 52.5, 13.4)),
        ("clocked", (datetime(2030, 1, 1, tzinfo=UTC),)),
    ],
)
def test_an_app_may_stay_in_the_call(kind: str, args: tuple[Any, ...]) -> None:
    make = getattr(schedules, kind)
    with_app = make(*args, app=APP)
    assert with_app == make(*args)
    assert pickle.loads(pickle.dumps(with_app)) == with_app  # noqa: S301 - of our own
