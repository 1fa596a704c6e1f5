from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery
from celery import schedules as celerys
from django.core.exceptions import ImproperlyConfigured
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_tasks.schedules import solar

EVENTS = [
    *("dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon"),
    *("sunset", "dusk_civil", "dusk_nautical", "dusk_astronomical"),
]
APP = Celery("oracle", set_as_current=False)
HOUR = timedelta(hours=1)
events = st.sampled_from(EVENTS)
longitudes = st.floats(-180, 180).map(lambda lon: round(lon, 3))
moments = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type, misc]


def celerys_next(event: str, lat: float, lon: float, moment: datetime) -> datetime:
    theirs = celerys.solar(event, lat, lon, nowfun=lambda: moment, app=APP)
    theirs.tz = UTC
    run: datetime = moment + theirs.remaining_estimate(moment)
    return run


@settings(max_examples=300, deadline=None)
@given(event=events, lat=st.floats(-48, 48).map(lambda lat: round(lat, 3)), lon=longitudes, moment=moments)
def test_where_every_event_happens_daily_it_is_when_celery_says(
    event: str, lat: float, lon: float, moment: datetime
) -> None:
    run = solar(event, lat, lon).next_after(moment)
    assert run is not None
    assert moment < run
    wanted = celerys_next(event, lat, lon, moment)
    if abs(wanted - moment) > timedelta(seconds=2):  # within these, the rounded event may be over, or not yet
        assert abs(run - wanted) < timedelta(seconds=1)


@settings(max_examples=40, deadline=None)
@given(event=events, lat=st.floats(-90, 90).map(lambda lat: round(lat, 2)), lon=longitudes, moment=moments)
@example("sunrise", 90, 0, utc(2026, 1, 1))
@example("dusk_astronomical", -90, 0, utc(2026, 1, 1))
@example("sunset", 66.6, 25, utc(2026, 6, 10))
def test_the_event_after_the_last_one_is_another_one(event: str, lat: float, lon: float, moment: datetime) -> None:
    each = solar(event, lat, lon)
    for _ in range(4):
        run = each.next_after(moment)
        assert run is not None
        # Events of a kind are a day apart, near the poles some hours less: never seconds.
        assert run > moment
        following = each.next_after(run)
        assert following is not None
        assert following - run > 6 * HOUR
        moment = run


@settings(max_examples=60, deadline=None)
@given(event=events, lat=st.floats(-60, 60).map(lambda lat: round(lat, 2)), lon=longitudes, moment=moments)
def test_an_event_is_the_same_from_wherever_one_looks(event: str, lat: float, lon: float, moment: datetime) -> None:
    each = solar(event, lat, lon)
    run = each.next_after(moment)
    assert run is not None
    for hours in (20, 13.3, 7, 1, 0.1, 1e-3, 1e-4, 1e-5, 1e-6):
        assert each.next_after(run - hours * HOUR) == run


def test_each_day_has_one_sunset_through_the_years() -> None:
    each = solar("sunset", 52.52, 13.405)
    run: datetime | None = utc(2024, 1, 1)
    days = []
    for _ in range(731):
        assert run is not None
        run = each.next_after(run)
        assert run is not None
        days.append(run.date())
    assert days == [datetime(2024, 1, 1).date() + timedelta(days=n) for n in range(731)]


@pytest.mark.parametrize(
    ("event", "lat", "lon", "after", "begin", "end"),
    [
        # Tromsø: the sun is away from the end of November until mid-January, and stays up from May to July.
        ("sunrise", 69.65, 18.96, utc(2025, 12, 5), utc(2026, 1, 14), utc(2026, 1, 17)),
        ("sunset", 69.65, 18.96, utc(2026, 6, 1), utc(2026, 7, 24), utc(2026, 7, 28)),
        # Berlin has no astronomical dusk around midsummer.
        ("dusk_astronomical", 52.52, 13.405, utc(2026, 6, 10), utc(2026, 7, 20), utc(2026, 7, 28)),
        # At the poles it rises and sets once a year, about the equinoxes.
        ("sunrise", 90, 0, utc(2026, 4, 1), utc(2027, 3, 16), utc(2027, 3, 21)),
        ("sunset", 90, 0, utc(2026, 4, 1), utc(2026, 9, 22), utc(2026, 9, 28)),
        ("sunrise", -90, 0, utc(2026, 4, 1), utc(2026, 9, 18), utc(2026, 9, 24)),
        ("dusk_astronomical", 90, 0, utc(2026, 4, 1), utc(2026, 11, 10), utc(2026, 11, 16)),
        ("sunrise", Decimal("89.99"), 0, utc(2026, 4, 1), utc(2027, 3, 16), utc(2027, 3, 21)),
        ("solar_noon", 90, 0, utc(2026, 4, 1), utc(2026, 4, 1), utc(2026, 4, 2)),
    ],
)
def test_where_an_event_does_not_happen_daily_it_is_on_the_day_when_it_does(
    event: str, lat: float, lon: float, after: datetime, begin: datetime, end: datetime
) -> None:
    run = solar(event, lat, lon).next_after(after)
    assert run is not None
    assert begin <= run <= end


def test_it_is_due_once_the_sun_has_set() -> None:
    sunset = solar("sunset", 52.52, 13.405).next_after(utc(2026, 5, 4, 12))
    assert sunset is not None
    before = solar("sunset", 52.52, 13.405, nowfun=lambda: sunset - timedelta(seconds=20))
    assert before.is_due(utc(2026, 5, 4, 12)) == (False, 20)
    after = solar("sunset", 52.52, 13.405, nowfun=lambda: sunset + timedelta(seconds=20))
    due, seconds = after.is_due(utc(2026, 5, 4, 12))
    assert due
    assert 86_400 - 600 < seconds < 86_400 + 600


def test_the_calendar_of_python_ends_and_with_it_the_sun() -> None:
    assert solar("sunset", 0, 0).next_after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) is None


def test_without_ephem_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ephem", None)  # what Python itself does for a module that must not be found
    with pytest.raises(ImproperlyConfigured, match=r'pip install "django-workbeat\[solar\]"'):
        solar("sunset", 0, 0)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: solar("noon", 0, 0), ValueError, "event is 'noon'; allowed: dawn_astronomical, .*, dusk_astronomical"),
    (lambda: solar("sunset", 90.1, 0), ValueError, r"lat is 90\.1; allowed: degrees from -90 to 90"),
    (lambda: solar("sunset", 0, -181), ValueError, "lon is -181; allowed: degrees from -180 to 180"),
    (lambda: solar("sunset", float("nan"), 0), ValueError, "lat is nan"),
    (lambda: solar("sunset", 0, Decimal("NaN")), ValueError, "lon is Decimal"),
    (lambda: solar("sunset", "52.5", 0), TypeError, "lat is '52.5'"),  # type: ignore[arg-type]
    (lambda: solar("sunset", 0, True), TypeError, "lon is True"),
    (lambda: solar("sunset", 0, 0, tz="Nowhere"), ValueError, "tz is 'Nowhere'"),
]


@pytest.mark.parametrize(("make", "kind", "told"), BAD)
def test_what_cannot_be_is_refused(make: Callable[[], Any], kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        make()


def test_they_are_shown_compared_and_copied_as_celerys() -> None:
    each = solar("dusk_civil", 52.5, 13, tz="Europe/Berlin")
    theirs = celerys.solar("dusk_civil", 52.5, 13, app=APP)
    assert repr(each) == repr(theirs)
    assert each.__reduce__()[1][:3] == theirs.__reduce__()[1]
    assert str(each) == "dusk civil at 52.5, 13"
    for again in (pickle.loads(pickle.dumps(each)), copy.deepcopy(each)):  # noqa: S301 - our own
        assert again == each
        assert hash(again) == hash(each)
        assert again.tz == each.tz
        assert again.next_after(utc(2026, 1, 1)) == each.next_after(utc(2026, 1, 1))
    others: list[Any] = [solar("dusk_civil", 52.5, 14), solar("dusk_civil", 52, 13), solar("sunset", 52.5, 13), "x"]
    assert each not in others
    assert solar("dusk_civil", Decimal("52.5"), 13) == each
