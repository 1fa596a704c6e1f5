"""``cron``: a line with cron's meaning; cronsim, which follows Debian's, is asked what it would have answered."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_tasks.schedules import ParseException, cron, crontab, crontab_parser

from .specs import DAYS, MONTHS, moments


def runs_of(line: str, after: str, count: int = 4) -> list[str]:
    """Return the next runs, in UTC, to the minute."""
    found = []
    moment: datetime | None = datetime.fromisoformat(after).replace(tzinfo=UTC)
    for _ in range(count):
        assert moment is not None
        moment = cron(line, tz="UTC").next_after(moment)
        assert moment is not None
        found.append(moment.strftime("%Y-%m-%d %H:%M"))
    return found


def fields(numbers: range, names: list[str], special: list[str], first: int = 0) -> st.SearchStrategy[str]:
    """Give a field as cronsim reads it, too: ranges do not go round the end."""
    written = [*map(str, numbers), *(name.upper() for name in names)]
    number = st.sampled_from(written)
    bounds = st.tuples(st.sampled_from(numbers), st.sampled_from(numbers)).map(sorted)
    span = bounds.map(lambda pair: f"{pair[0]}-{pair[1]}").filter(lambda text: len(set(text.split("-"))) == 2)
    stepped = st.builds(
        "{}/{}".format, st.just("*") | span | st.sampled_from([str(n) for n in numbers]), st.integers(1, 40)
    )
    one = number | span | stepped | (st.sampled_from(special) if special else st.nothing())
    return st.just("*") | st.lists(one, min_size=1, max_size=3).map(",".join)


minutes = fields(range(60), [], [])
hours = fields(range(24), [], [])
days = fields(range(1, 32), [], ["L"])
months = fields(range(1, 13), MONTHS, [])
weekdays = fields(range(8), DAYS, [f"{day}#{n}" for day in (0, 3, "FRI", 7) for n in range(1, 6)] + ["5L", "0L"])
lines = st.tuples(minutes, hours, days, months, weekdays).map(" ".join)


@settings(max_examples=600, deadline=None)
@given(line=lines | st.builds("{} {}".format, minutes, lines), moment=moments)
def test_a_line_runs_when_cronsim_says(line: str, moment: datetime) -> None:
    try:
        wanted = next(CronSim(line, moment))
    except (CronSimError, StopIteration):  # it refuses some fields that never fit, and gives up after some years
        assume(False)
    assert cron(line, tz="UTC").next_after(moment) == wanted


@pytest.mark.parametrize("line", ["30 2 * * *", "0,30 1-3 * * *", "15 */2 * * *", "59 1 * * *", "0 3 * * SUN"])
@pytest.mark.parametrize("day", ["2024-03-30T12:00", "2024-10-26T12:00"])
def test_fixed_times_of_day_meet_changes_of_clocks_as_with_cronsim(line: str, day: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime.fromisoformat(day).replace(tzinfo=zone)
    if "/" in line:
        line = line.replace("*/2", "0-23/2")  # what begins with * runs by real time there
    theirs = CronSim(line, begin)
    moment: datetime | None = begin
    for _ in range(8):
        wanted = next(theirs).astimezone(UTC)
        assert moment is not None
        moment = cron(line, tz=zone).next_after(moment)
        assert moment == wanted


def test_a_line_of_stars_pauses_in_the_second_pass_of_a_repeated_hour_where_cronsim_goes_on() -> None:
    zone = ZoneInfo("Europe/Berlin")
    before = datetime.fromisoformat("2024-10-27T02:59+02:00").astimezone(zone)
    assert next(CronSim("*/5 * * * *", before)).astimezone(UTC) == datetime(2024, 10, 27, 1, tzinfo=UTC)
    assert cron("*/5 * * * *", tz=zone).next_after(before) == datetime(2024, 10, 27, 2, tzinfo=UTC)


def test_if_both_days_are_restricted_a_day_need_fit_only_one_of_them() -> None:
    either = ["2026-02-06 00:00", "2026-02-13 00:00", "2026-02-20 00:00", "2026-02-27 00:00", "2026-03-06 00:00"]
    assert runs_of("0 0 13 * FRI", "2026-02-01", 5) == either
    assert runs_of("0 0 14 * FRI", "2026-02-01", 3) == ["2026-02-06 00:00", "2026-02-13 00:00", "2026-02-14 00:00"]
    assert runs_of("0 0 14 * *", "2026-02-01", 2) == ["2026-02-14 00:00", "2026-03-14 00:00"]
    # What begins with a star is not restricted, so both count: even days that are Fridays.
    assert runs_of("0 0 */2 * FRI", "2026-02-01", 2) == ["2026-02-13 00:00", "2026-02-27 00:00"]
    both = crontab(0, 0, day_of_month=14, day_of_week="fri", tz="UTC")
    assert both.next_after(datetime(2026, 2, 1, tzinfo=UTC)) == datetime(2026, 8, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("*/5 9-17 * * MON-FRI", ["2026-01-01 12:05", "2026-01-01 12:10", "2026-01-01 12:15"]),
        ("*/30 17,9 * * MON-WED", ["2026-01-05 09:00", "2026-01-05 09:30", "2026-01-05 17:00"]),
        ("0 0 L * *", ["2026-01-31 00:00", "2026-02-28 00:00", "2026-03-31 00:00"]),
        ("0 0 15,L * *", ["2026-01-15 00:00", "2026-01-31 00:00", "2026-02-15 00:00"]),
        ("0 0 L 2 *", ["2026-02-28 00:00", "2027-02-28 00:00", "2028-02-29 00:00"]),
        ("0 9 * * FRI#2", ["2026-01-09 09:00", "2026-02-13 09:00", "2026-03-13 09:00"]),
        ("0 9 * * mon#1,Fri#3", ["2026-01-05 09:00", "2026-01-16 09:00", "2026-02-02 09:00"]),
        ("0 9 * * 0#5", ["2026-03-29 09:00", "2026-05-31 09:00", "2026-08-30 09:00"]),
        ("0 9 * * FRIL", ["2026-01-30 09:00", "2026-02-27 09:00", "2026-03-27 09:00"]),
        ("0 9 * * 7l", ["2026-01-25 09:00", "2026-02-22 09:00", "2026-03-29 09:00"]),
        ("0 0 * * 7", ["2026-01-04 00:00", "2026-01-11 00:00", "2026-01-18 00:00"]),
        ("0 0 * * FRI-MON", ["2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00"]),
        ("0 0 * * 5-7", ["2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00"]),
        ("0 22-1 * * *", ["2026-01-01 22:00", "2026-01-01 23:00", "2026-01-02 00:00"]),
        ("20/15 * * * *", ["2026-01-01 12:20", "2026-01-01 12:35", "2026-01-01 12:50"]),
        ("0 0 1 NOV-Jan/2 *", ["2026-11-01 00:00", "2027-01-01 00:00", "2027-11-01 00:00"]),
        ("@hourly", ["2026-01-01 13:00", "2026-01-01 14:00", "2026-01-01 15:00"]),
        ("@daily", ["2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00"]),
        ("@Midnight", ["2026-01-02 00:00", "2026-01-03 00:00", "2026-01-04 00:00"]),
        ("@weekly", ["2026-01-04 00:00", "2026-01-11 00:00", "2026-01-18 00:00"]),
        ("@monthly", ["2026-02-01 00:00", "2026-03-01 00:00", "2026-04-01 00:00"]),
        ("@yearly", ["2027-01-01 00:00", "2028-01-01 00:00", "2029-01-01 00:00"]),
        ("@annually", ["2027-01-01 00:00", "2028-01-01 00:00", "2029-01-01 00:00"]),
    ],
)
def test_a_line_means_what_people_know(line: str, wanted: list[str]) -> None:
    assert runs_of(line, "2026-01-01 12:04", 3) == wanted


def test_a_sixth_field_stands_first_and_is_the_second() -> None:
    each = cron("*/20 30 4 * * *", tz="UTC")
    moment: datetime | None = datetime(2026, 1, 1, tzinfo=UTC)
    seconds = []
    for _ in range(4):
        assert moment is not None
        moment = each.next_after(moment)
        assert moment is not None
        seconds.append(moment - datetime(2026, 1, 1, 4, 30, tzinfo=UTC))
    assert seconds == [timedelta(seconds=n) for n in (0, 20, 40)] + [timedelta(days=1)]
    assert each.next_after(datetime(2026, 1, 1, 4, 30, 0, 1, UTC)) == datetime(2026, 1, 1, 4, 30, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("61 * * * *", "minute is '61': 61 is not between 0 and 59; allowed: 0 to 59, "),
        ("61 * * * * *", "second is '61': 61 is not between 0 and 59"),
        ("* 24 * * *", "hour is '24'"),
        ("* * 32 * *", r"day of month is '32': .*, L \(the last day\)"),
        ("* * * 13 *", "month is '13': .* or jan to dec"),
        ("* * * * 8", "day of week is '8': 8 is not between 0 and 7; allowed: 0 to 7 or sun to sat"),
        ("* * * * FUN", r"day of week is 'FUN': .* FRI#2 \(the second\), FRIL \(the last\)"),
        ("* * * * FRI#6", "day of week is 'FRI#6': '6' stands after #; allowed: 1 to 5"),
        ("* * * * FRI#", "day of week is 'FRI#': '' stands after #"),
        ("* * * * MON-FRI#2", "day of week is 'MON-FRI#2': what stands before # or L is not one day"),
        ("* * * * L", "day of week is 'L': what stands before # or L is not one day; allowed: such as FRI#2"),
        ("* * * * #2", "day of week is '#2': what stands before # or L is not one day"),
        ("* * L-3 * *", "day of month is 'L-3'"),
        ("*/0 * * * *", r"the step of '\*/0' is no whole number above 0"),
        ("* * * *", r"line is '\* \* \* \*': fields in it: 4; allowed: minute, hour, day of month, month, day of week"),
        ("* * * * * * *", "fields in it: 7"),
        ("", "line is '': fields in it: 1"),
        ("@dayly", "line is '@dayly': there is no such alias; allowed: @yearly, @annually"),
        ("@reboot", "line is '@reboot': there is no such alias"),
        ("0 0 31 2 *", r"line is '0 0 31 2 \*': there is no such day, so this would never run"),
        ("0 0 30,31 FEB */1", "there is no such day"),
        ("0 0 " + "1," * 999 + "1 * *", "day of month is '1,1,.*…: it has more than 1024 characters"),
    ],
)
def test_a_line_that_cannot_be_is_refused_by_its_field(line: str, told: str) -> None:
    with pytest.raises(ParseException, match=told):
        cron(line)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"line is 5; allowed: a text such as '\*/5 9-17 \* \* MON-FRI'"):
        cron(5)  # type: ignore[arg-type]


def test_a_31_february_may_stand_beside_a_day_of_the_week() -> None:
    assert runs_of("0 0 31 2 MON", "2026-01-01", 2) == ["2026-02-02 00:00", "2026-02-09 00:00"]


def test_lines_are_equal_when_they_mean_the_same() -> None:
    assert cron("0 0 * * 7") == cron("0 0  * * SUN") == cron("@weekly")
    assert len({cron("0 0 * * 7"), cron("@weekly"), cron("@daily")}) == 2
    different: list[Any] = [cron("@daily"), cron("@weekly", tz="UTC"), crontab(0, 0, 0), "@weekly"]
    assert cron("@weekly") not in different
    assert cron("0 0 13 * FRI") != cron("0 0 13 * *")


def test_a_line_is_shown_as_it_was_written_and_can_be_copied() -> None:
    each = cron(" */5  9-17 * * MON-FRI ", tz="Europe/Berlin")
    assert str(each) == "*/5 9-17 * * MON-FRI (Europe/Berlin)"
    assert repr(each) == "<cron: */5 9-17 * * MON-FRI (Europe/Berlin)>"
    assert str(cron("@daily")) == "@daily"
    for again in (pickle.loads(pickle.dumps(each)), copy.deepcopy(each)):  # noqa: S301 - our own
        assert again == each
        assert repr(again) == repr(each)


def test_celerys_parser_knows_no_seventh_day_and_no_step_after_a_number() -> None:
    for text in ("7", "5/2"):
        with pytest.raises(ParseException):
            crontab_parser(7).parse(text)
