from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from dateutil import tz as dateutil_zones
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.schedules import NEVER_CHECK_TIMEOUT, clocked, crontab, maybe_schedule, schedstate, schedule

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@given(
    every=st.timedeltas(timedelta(microseconds=1), timedelta(days=400)),
    moment=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.timezones()),
)
def test_an_interval_runs_that_much_real_time_later(every: timedelta, moment: datetime) -> None:
    assert schedule(every).next_after(moment) == moment.astimezone(UTC) + every


@pytest.mark.parametrize(
    ("every", "wanted"),
    [
        (timedelta(days=1), "2026-05-05T00:00:00"),
        (timedelta(days=3, hours=5), "2026-05-07T00:00:00"),
        (timedelta(hours=36), "2026-05-06T00:00:00"),
        (timedelta(hours=2), "2026-05-04T14:00:00"),
        (timedelta(minutes=90), "2026-05-04T14:00:00"),
        (timedelta(minutes=5), "2026-05-04T12:38:00"),
        (timedelta(seconds=5), "2026-05-04T12:33:50"),
        (timedelta(seconds=0.5), "2026-05-04T12:33:46.250000"),
    ],
)
def test_a_relative_interval_ends_on_a_whole_unit_of_the_local_clock(every: timedelta, wanted: str) -> None:
    zone = ZoneInfo("Asia/Kolkata")
    moment = datetime(2026, 5, 4, 12, 33, 45, 750_000, zone)
    assert schedule(every, relative=True, tz=zone).next_after(moment) == datetime.fromisoformat(wanted).replace(
        tzinfo=zone
    )


@given(
    every=st.timedeltas(timedelta(microseconds=1), timedelta(days=400)),
    moment=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.timezones()),
)
def test_a_relative_interval_always_moves_on(every: timedelta, moment: datetime) -> None:
    for zone in (moment.tzinfo, "Australia/Lord_Howe", dateutil_zones.gettz("Europe/Dublin")):
        run = schedule(every, relative=True, tz=zone).next_after(moment)
        assert run is not None
        assert moment.astimezone(UTC) < run


def test_an_interval_that_python_cannot_add_never_ends() -> None:
    assert schedule(timedelta.max).next_after(NOON) is None
    assert schedule(timedelta.max, relative=True).next_after(NOON) is None
    assert schedule(timedelta.max, nowfun=lambda: NOON).is_due(NOON) == (False, NEVER_CHECK_TIMEOUT)


def test_is_due_tells_whether_and_when_to_ask_again() -> None:
    each = schedule(30, nowfun=lambda: NOON)
    assert each.is_due(NOON - timedelta(seconds=30)) == schedstate(is_due=True, next=30)
    assert each.is_due(NOON - timedelta(seconds=12)) == schedstate(is_due=False, next=18)
    due, seconds = each.is_due(NOON - timedelta(days=3))
    assert (due, seconds) == (True, 30)
    assert each.remaining_estimate(NOON - timedelta(seconds=45)) == timedelta(seconds=-15)


def test_without_a_clock_of_its_own_it_takes_the_systems() -> None:
    with time_machine.travel(NOON, tick=False):
        assert schedule(30).now() == NOON
        assert schedule(30).is_due(NOON - timedelta(seconds=20)) == (False, 10)
        assert schedule(30, tz="Asia/Tokyo").now().utcoffset() == timedelta(hours=9)


def test_a_naive_time_is_utc_with_use_tz_and_local_without() -> None:
    naive = NOON.replace(tzinfo=None)
    each = schedule(60, nowfun=lambda: naive)
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        assert each.now() == NOON
        assert each.is_due(NOON - timedelta(seconds=20)) == (False, 40)
        assert clocked(naive).next_after(NOON - timedelta(1)) == NOON
        with override_settings(USE_TZ=False):
            assert each.now() == NOON - timedelta(hours=9)
            assert each.is_due(naive - timedelta(seconds=20)) == (False, 40)
            assert clocked(naive).next_after(NOON - timedelta(1)) == NOON - timedelta(hours=9)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: schedule(0), ValueError, "run_every is 0; allowed: seconds above 0"),
    (lambda: schedule(-1.5), ValueError, r"run_every is -1\.5; allowed: seconds above 0"),
    (lambda: schedule(timedelta(seconds=-3)), ValueError, "run_every is datetime.timedelta"),
    (lambda: schedule(1e-9), ValueError, "run_every is 1e-09; allowed: .*a millionth at least"),
    (lambda: schedule(float("nan")), ValueError, "run_every is nan"),
    (lambda: schedule(float("inf")), ValueError, "run_every is inf"),
    (lambda: schedule(10**20), ValueError, "run_every is 1000"),
    (lambda: schedule("10"), TypeError, "run_every is '10'; allowed: seconds above 0"),  # type: ignore[arg-type]
    (lambda: schedule(None), TypeError, "run_every is None"),  # type: ignore[arg-type]
    (lambda: schedule(True), TypeError, "run_every is True"),
    (lambda: schedule(10, relative=1), TypeError, "relative is 1; allowed: True or False"),  # type: ignore[arg-type]
    (lambda: schedule(10, nowfun=NOON), TypeError, "nowfun is datetime.*; allowed: None or a function"),  # type: ignore[arg-type]
    (lambda: schedule(10, tz="Mars/Olympus"), ValueError, "tz is 'Mars/Olympus'; allowed: None, the name of an IANA"),
    (lambda: clocked("2026-05-04"), TypeError, "clocked_time is '2026-05-04'; allowed: a datetime"),  # type: ignore[arg-type]
    (lambda: maybe_schedule("10"), TypeError, "schedule is '10'; allowed: a number of seconds"),  # type: ignore[arg-type]
    (lambda: maybe_schedule(-10), ValueError, "run_every is -10"),
    (lambda: schedule(10).next_after(datetime(2026, 5, 4)), ValueError, "which has no time zone"),
]


@pytest.mark.parametrize(("make", "kind", "told"), BAD)
def test_what_cannot_be_is_refused(make: Callable[[], Any], kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        make()


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (1, "every second"),
        (90, "every 90 seconds"),
        (60, "every minute"),
        (7200, "every 2 hours"),
        (timedelta(days=1), "every day"),
        (timedelta(weeks=1), "every 7 days"),
        (1.5, "every 1.5 seconds"),
    ],
)
def test_an_interval_is_told_in_words(every: float, text: str) -> None:
    assert str(schedule(every)) == text
    assert str(schedule(every, relative=True)) == f"{text}, by the clock"


def test_an_interval_below_a_second_is_shown_as_celery_does() -> None:
    assert repr(schedule(0.25)) == "<freq: now>"


def test_copies_are_equal_and_complete() -> None:
    each = schedule(90, relative=True, nowfun=crontab.now, tz="Asia/Tokyo")  # type: ignore[arg-type]
    for again in (pickle.loads(pickle.dumps(each)), copy.deepcopy(each)):  # noqa: S301 - our own
        assert again == each
        assert hash(again) == hash(each)
        assert (again.relative, again.nowfun, again.tz) == (True, crontab.now, ZoneInfo("Asia/Tokyo"))
    once = clocked(NOON, tz="Asia/Tokyo")
    for again in (pickle.loads(pickle.dumps(once)), copy.deepcopy(once)):  # noqa: S301 - our own
        assert again == once
        assert hash(again) == hash(once)
        assert again.tz == ZoneInfo("Asia/Tokyo")


def test_once_is_once() -> None:
    once = clocked(NOON)
    assert once.next_after(NOON - timedelta(microseconds=1)) == NOON
    assert once.next_after(NOON) is None
    assert once.next_after(NOON + timedelta(days=1)) is None


def test_once_is_due_from_the_moment_on_as_with_django_celery_beat() -> None:
    before = clocked(NOON, nowfun=lambda: NOON - timedelta(seconds=5))
    assert before.is_due(None) == (False, 5)
    assert before.remaining_estimate(None) == timedelta(seconds=5)
    after = clocked(NOON, nowfun=lambda: NOON + timedelta(seconds=5))
    assert after.is_due(NOON) == (True, NEVER_CHECK_TIMEOUT)
    assert after.remaining_estimate(None) == timedelta(seconds=-5)


def test_moments_are_equal_whatever_their_zone_in_a_repeated_hour_too() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2024, 10, 27, 2, 30, tzinfo=berlin)
    second = first.replace(fold=1)
    assert clocked(first) == clocked(datetime(2024, 10, 27, 0, 30, tzinfo=UTC))
    assert clocked(first) != clocked(second)
    assert len({clocked(first), clocked(second), clocked(second.astimezone(UTC))}) == 2
    assert clocked(NOON) not in [NOON, schedule(30)]


def test_once_is_told_by_its_moment() -> None:
    assert repr(clocked(NOON)) == "<clocked: 2026-05-04 12:00:00+00:00>"
    assert str(clocked(NOON)) == "once, at 2026-05-04 12:00:00+00:00"
