"""Fields of crontabs and moments, for Hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

#: 32 zones whose clocks are changed by half an hour, an hour or two, at midnight, twice around Ramadan, in winter, or
#: for good, between 2020 and 2030.
ZONES = [
    *("Africa/Cairo", "Africa/Casablanca", "Africa/El_Aaiun", "Africa/Juba"),
    *("America/Asuncion", "America/Havana", "America/Los_Angeles", "America/Mexico_City", "America/New_York"),
    *("America/Nuuk", "America/Santiago", "America/Scoresbysund", "America/St_Johns", "Antarctica/Troll"),
    *("Asia/Amman", "Asia/Beirut", "Asia/Gaza", "Asia/Jerusalem", "Asia/Tehran"),
    *("Atlantic/Azores", "Australia/Adelaide", "Australia/Lord_Howe", "Australia/Sydney"),
    *("Europe/Berlin", "Europe/Dublin", "Europe/London", "Europe/Volgograd"),
    *("Pacific/Auckland", "Pacific/Chatham", "Pacific/Easter", "Pacific/Fiji", "Pacific/Norfolk"),
]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
#: Name, numbers, names of the numbers.
FIELDS: dict[str, tuple[range, list[str]]] = {
    "minute": (range(60), []),
    "hour": (range(24), []),
    "day_of_week": (range(7), DAYS),
    "day_of_month": (range(1, 32), []),
    "month_of_year": (range(1, 13), MONTHS),
}


def texts(numbers: range, names: list[str]) -> st.SearchStrategy[str]:
    """Give a field as text: stars, numbers, names, ranges that may go round the end, steps, lists."""
    written = [*map(str, numbers), *names, *(name.upper() for name in names)]
    number = st.sampled_from(written)
    span = st.builds("{}-{}".format, number, number)
    stepped = st.builds("{}/{}".format, st.just("*") | span, st.integers(1, 40))
    return st.lists(st.just("*") | number | span | stepped, min_size=1, max_size=3).map(",".join)


def fields(name: str) -> st.SearchStrategy[Any]:
    """Give a field as Celery's ``crontab`` takes it; most are stars, so that something fits."""
    numbers, names = FIELDS[name]
    number = st.sampled_from(numbers)
    return st.one_of(
        st.just("*"),
        st.just("*"),
        number,
        st.lists(number, min_size=1),
        st.sets(number, min_size=1),
        texts(numbers, names),
    )


#: Arguments of a ``crontab``; some of them never happen.
crontabs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({name: fields(name) for name in FIELDS})
moments = st.datetimes(datetime(1990, 1, 1), datetime(2110, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from(ZONES).map(ZoneInfo)
