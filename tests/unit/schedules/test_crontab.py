from __future__ import annotations

import copy
import gc
import pickle
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil import tz as dateutil_zones
from django.test import override_settings
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from django_tasks.schedules import ParseException, crontab, crontab_parser

from .specs import FIELDS, moments, texts


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type, misc]


def runs_of(each: crontab, after: datetime, count: int) -> list[str]:
    """Return the dates of the next runs."""
    found = []
    moment: datetime | None = after
    for _ in range(count):
        assert moment is not None
        moment = each.next_after(moment)
        assert moment is not None
        found.append(moment.date().isoformat())
    return found


@settings(max_examples=200, deadline=None)
@given(
    minute=texts(*FIELDS["minute"]),
    hour=texts(*FIELDS["hour"]),
    day_of_week=st.just("*") | texts(*FIELDS["day_of_week"]),
    last=moments,
)
def test_the_next_run_is_the_first_minute_that_fits(minute: str, hour: str, day_of_week: str, last: datetime) -> None:
    each = crontab(minute, hour, day_of_week)
    run = each.next_after(last)
    assert run is not None
    moment = last.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while not (
        moment.minute in each.minute and moment.hour in each.hour and moment.isoweekday() % 7 in each.day_of_week
    ):
        # Whole hours are skipped only where the hour or the day does not fit.
        fits = moment.hour in each.hour and moment.isoweekday() % 7 in each.day_of_week
        moment += timedelta(minutes=1 if fits else 60 - moment.minute)
    assert run == moment
    assert run.tzinfo is UTC


@pytest.mark.parametrize("moment", [utc(2026, 5, 4, 4, 30), utc(2026, 5, 4, 4, 29, 59), utc(2026, 5, 4, 4, 30, 59)])
def test_the_next_run_is_strictly_after_the_moment(moment: datetime) -> None:
    wanted = utc(2026, 5, 4, 4, 30) if moment < utc(2026, 5, 4, 4, 30) else utc(2026, 5, 5, 4, 30)
    assert crontab(30, 4).next_after(moment) == wanted


def test_a_day_must_fit_the_month_and_the_week() -> None:
    friday_13 = crontab(0, 0, day_of_week="fri", day_of_month=13)
    assert runs_of(friday_13, utc(2026, 1, 1), 4) == ["2026-02-13", "2026-03-13", "2026-11-13", "2027-08-13"]


def test_leap_days_come_when_there_are_some() -> None:
    leap_day = crontab(0, 0, day_of_month=29, month_of_year=2)
    wanted = ["2088-02-29", "2092-02-29", "2096-02-29", "2104-02-29", "2108-02-29"]
    assert runs_of(leap_day, utc(2087, 1, 1), 5) == wanted
    sunday = crontab(0, 0, "sun", 29, 2)
    assert runs_of(sunday, utc(2050, 1, 1), 4) == ["2060-02-29", "2088-02-29", "2128-02-29", "2156-02-29"]


def test_the_ends_of_months_come_where_there_are_some() -> None:
    assert runs_of(crontab(0, 0, day_of_month=31), utc(2026, 1, 1), 5) == [
        *("2026-01-31", "2026-03-31", "2026-05-31", "2026-07-31", "2026-08-31"),
    ]
    assert runs_of(crontab(0, 0, day_of_month="29-31", month_of_year="2,4"), utc(2027, 2, 1), 4) == [
        *("2027-04-29", "2027-04-30", "2028-02-29", "2028-04-29"),
    ]


def test_the_calendar_of_python_ends_and_with_it_the_runs() -> None:
    assert crontab().next_after(datetime(9999, 12, 31, 23, 58, tzinfo=UTC)) == utc(9999, 12, 31, 23, 59)
    assert crontab().next_after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) is None
    assert crontab(0, 0, day_of_month=29, month_of_year=2).next_after(utc(9998, 1, 1)) is None
    assert crontab(tz="Asia/Tokyo").next_after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) is None
    with pytest.raises(OverflowError, match=r"does not run between .* and the year 10,000"):
        crontab().remaining_delta(datetime(9999, 12, 31, 23, 59, tzinfo=UTC))


@pytest.mark.parametrize("zone", [UTC, "UTC", ZoneInfo("UTC"), dateutil_zones.UTC, dateutil_zones.gettz("UTC")])
def test_a_zone_may_be_given_in_any_way(zone: Any) -> None:
    assert crontab(0, 12, tz=zone).next_after(utc(2026, 1, 1)) == utc(2026, 1, 1, 12)


def test_the_moment_may_be_of_any_zone() -> None:
    each = crontab(0, 12, tz="Europe/Berlin")
    for zone in ("Asia/Tokyo", "America/New_York", "Europe/Berlin"):
        assert each.next_after(utc(2026, 1, 1, 10, 59).astimezone(ZoneInfo(zone))) == utc(2026, 1, 1, 11)


def test_without_a_zone_djangos_current_one_counts() -> None:
    each = crontab(0, 12)
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        assert each.next_after(utc(2026, 1, 1)) == utc(2026, 1, 1, 3)
        with timezone.override("America/New_York"):
            assert each.next_after(utc(2026, 1, 1)) == utc(2026, 1, 1, 17)
            assert crontab(0, 12, tz="Asia/Tokyo").next_after(utc(2026, 1, 1)) == utc(2026, 1, 1, 3)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: crontab(60), ParseException, r"minute is 60: 60 is not between 0 and 59; allowed: 0 to 59, \*, ranges"),
    (lambda: crontab("60"), ParseException, "minute is '60': 60 is not between 0 and 59; allowed: 0 to 59"),
    (lambda: crontab(-1), ParseException, "minute is -1: -1 is not between 0 and 59"),
    (lambda: crontab(hour=24), ParseException, "hour is 24: 24 is not between 0 and 23"),
    (lambda: crontab(hour="0-24"), ParseException, "hour is '0-24': 24 is not between 0 and 23"),
    (lambda: crontab(day_of_month=0), ParseException, "day_of_month is 0: 0 is not between 1 and 31"),
    (lambda: crontab(month_of_year=[1, 13]), ParseException, r"month_of_year is \[1, 13\]: 13 is not between 1 and 12"),
    (lambda: crontab(day_of_week=7), ParseException, "day_of_week is 7: .* allowed: 0 to 6 or sun to sat"),
    (lambda: crontab(day_of_week="funday"), ParseException, "'funday': 'funday' is no number and no name; allowed: 0"),
    (lambda: crontab(month_of_year="mon"), ParseException, "month_of_year is 'mon': .* allowed: 1 to 12 or jan to dec"),
    (lambda: crontab(hour="mon"), ParseException, "hour is 'mon': 'mon' is no number; allowed: 0 to 23, "),
    (lambda: crontab("*/0"), ParseException, r"minute is '\*/0': the step of '\*/0' is no whole number above 0"),
    (lambda: crontab("*/"), ParseException, r"the step of '\*/' is no whole number above 0"),
    (lambda: crontab("5/15"), ParseException, r"before the step of '5/15' stands neither \* nor a range"),
    (lambda: crontab("1,,2"), ParseException, "minute is '1,,2': a part is empty"),
    (lambda: crontab(""), ParseException, "minute is '': a part is empty"),
    (lambda: crontab("0," * 999 + "0"), ParseException, r"minute is '0,0,.*…: it has more than 1024 characters"),
    (lambda: crontab([]), ParseException, r"minute is \[\]: it is empty, so this would never run"),
    (lambda: crontab(["5"]), TypeError, r"minute is \['5'\]; allowed in an iterable: numbers from 0 to 59"),  # type: ignore[list-item]
    (lambda: crontab(None), TypeError, r"minute is None; allowed: a number, a text such as '\*/5', or an iterable"),  # type: ignore[arg-type]
    (lambda: crontab(True), TypeError, "minute is True; allowed: a number"),
    (lambda: crontab(1.5), TypeError, "minute is 1.5; allowed: a number"),  # type: ignore[arg-type]
    (lambda: crontab(day_of_month=31, month_of_year=2), ParseException,
     "day_of_month is 31 and month_of_year 2: there is no such day, so this would never run"),
    (lambda: crontab(day_of_month="30,31", month_of_year="feb"), ParseException, "there is no such day"),
    (lambda: crontab(day_of_month=[31], month_of_year={4, 6, 9, 11}), ParseException, "there is no such day"),
    (lambda: crontab(tz="Europe/Berln"), ValueError, "tz is 'Europe/Berln'; .*Did you mean 'Europe/Berlin'?"),
    (lambda: crontab(tz="../../etc/passwd"), ValueError, "tz is '../../etc/passwd'; allowed: None, the name"),
    (lambda: crontab(tz="Europe"), ValueError, "tz is 'Europe'; allowed"),
    (lambda: crontab(tz=""), ValueError, "tz is ''; allowed"),
    (lambda: crontab(tz=3), TypeError, "tz is 3; allowed: None, the name of an IANA time zone"),  # type: ignore[arg-type]
    (lambda: crontab(nowfun=3), TypeError, "nowfun is 3; allowed: None or a function"),  # type: ignore[arg-type]
    (lambda: crontab.from_string("0 4 * *"), ParseException, r"crontab is '0 4 \* \*': fields in it: 4; allowed: five"),
    (lambda: crontab.from_string("0 4 * * * *"), ParseException, "fields in it: 6"),
    (lambda: crontab.from_string(3), TypeError, "crontab is 3; allowed: a text of five fields"),  # type: ignore[arg-type]
    (lambda: crontab.from_string("0 4 * * mon,tux"), ParseException, "day_of_week is 'mon,tux': 'tux' is no number"),
    (lambda: crontab().next_after(datetime(2026, 1, 1)), ValueError, "which has no time zone; allowed: an aware"),
    (lambda: crontab().next_after("now"), TypeError, "moment is 'now'; allowed: an aware datetime"),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "told"), BAD)
def test_what_cannot_be_is_refused_in_one_line_that_names_it(
    make: Callable[[], Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told) as caught:
        make()
    assert type(caught.value) is kind
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_parse_exception_is_celerys_and_a_value_error() -> None:
    assert issubclass(crontab_parser.ParseException, ValueError)
    assert crontab_parser.ParseException is ParseException


def test_names_may_be_long_or_short_in_any_case() -> None:
    assert crontab_parser(7).parse("Monday,WED,thurs,sat-sun") == {1, 3, 4, 6, 0}
    assert crontab_parser(12, 1).parse("sept,nov-january,JUNE") == {9, 11, 12, 1, 6}


def test_iterables_of_numbers_are_read_once_and_kept() -> None:
    minutes = [0, 30]
    each = crontab(minutes, iter(range(9, 12)), day_of_week=(n for n in (1, 2)), day_of_month=range(1, 8))
    minutes.append(45)
    assert each.minute == {0, 30}
    assert str(each) == "0,30 9,10,11 1,2,3,4,5,6,7 * 1,2"
    assert pickle.loads(pickle.dumps(each)) == each  # noqa: S301 - our own


def test_a_crontab_is_written_as_a_line_with_its_zone() -> None:
    assert str(crontab(30, "4, 5", "mon-fri")) == "30 4,5 * * mon-fri"
    assert str(crontab(tz="Europe/Berlin")) == "* * * * * (Europe/Berlin)"
    assert repr(crontab(0, 4, tz="Europe/Berlin")) == "<crontab: 0 4 * * * (m/h/dM/MY/d), Europe/Berlin>"
    assert crontab.from_string(" 30  4 1 * mon ", tz="UTC") == crontab(30, 4, "mon", 1, tz="UTC")


def a_clock() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", dateutil_zones.gettz("Europe/Berlin"), UTC])
def test_a_copy_is_equal_and_runs_at_the_same_times(zone: Any) -> None:
    each = crontab("*/7", {3, 4}, day_of_week="mon-wed", nowfun=a_clock, tz=zone)
    copies = [pickle.loads(pickle.dumps(each, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]  # noqa: S301
    for again in [*copies, copy.copy(each), copy.deepcopy(each)]:
        assert again == each
        assert hash(again) == hash(each)
        assert again.nowfun is a_clock
        assert again.next_after(utc(2026, 1, 1)) == each.next_after(utc(2026, 1, 1))


def test_what_differs_in_a_field_the_zone_or_the_clock_is_not_equal() -> None:
    each = crontab(0, 4, tz="Europe/Berlin")
    others = [crontab(0, 5, tz="Europe/Berlin"), crontab(0, 4), crontab(0, 4, tz="Europe/Paris"), "0 4 * * *"]
    assert each not in [*others, crontab(0, 4, tz="Europe/Berlin", nowfun=a_clock)]

    class holidays(crontab):
        pass

    assert holidays(0, 4) == crontab(0, 4)
    assert crontab(0, 4) == holidays(0, 4)


def test_remaining_delta_leads_to_the_local_time_of_the_next_run() -> None:
    each = crontab(30, 2, tz="Europe/Berlin", nowfun=lambda: utc(2024, 3, 30, 15))
    last, delta, now = each.remaining_delta(utc(2024, 3, 30, 12))
    assert last.isoformat() == "2024-03-30T13:00:00+01:00"
    assert (last + delta).isoformat() == "2024-03-31T03:00:00+02:00"
    assert now.isoformat() == "2024-03-30T16:00:00+01:00"
    last, delta, now = each.remaining_delta(utc(2024, 3, 30, 12), tz="Asia/Tokyo")
    assert (last + delta).isoformat() == "2024-03-31T02:30:00+09:00"


def best_of(times: int, work: Callable[[], object]) -> float:
    """Return the least seconds of this thread's own time that the work took."""
    found = []
    gc.collect()
    for _ in range(times):
        begin = time.thread_time()
        work()
        found.append(time.thread_time() - begin)
    return min(found)


@pytest.mark.parametrize(
    "each",
    [crontab("*/5", tz="Europe/Berlin"), crontab(30, 4, tz="Europe/Berlin"), crontab(0, 0, "mon-fri"),
     crontab(0, 0, day_of_month=31, tz="Europe/Berlin"), crontab(0, 9, "mon", "1-7", tz="America/New_York")],
    ids=str,
)  # fmt: skip
def test_a_next_run_is_found_within_50_microseconds(each: crontab) -> None:
    moments = [utc(2026, 1, 1) + timedelta(hours=37 * n) for n in range(200)]
    seconds = best_of(7, lambda: [each.next_after(moment) for moment in moments])
    assert seconds / len(moments) < 50e-6


def test_ten_thousand_schedules_are_made_and_asked_within_a_second() -> None:
    def work() -> None:
        made = [crontab(n % 60, n // 60 % 24, "mon-fri", tz="Europe/Berlin") for n in range(10_000)]
        assert all(each.next_after(utc(2026, 1, 1)) for each in made)

    assert best_of(3, work) < 1


def test_what_is_decades_away_or_never_comes_is_told_within_a_millisecond() -> None:
    rare = crontab(0, 0, "sun", 29, 2)
    assert best_of(7, lambda: rare.next_after(utc(2080, 3, 1))) < 1e-3

    def never() -> None:
        with pytest.raises(ParseException):
            crontab(0, 0, day_of_month=31, month_of_year=2)

    assert best_of(7, never) < 1e-3
