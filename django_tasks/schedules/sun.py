"""When the sun rises, sets, stands highest, or is so far below the horizon. Needs ephem (the extra ``solar``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from types import ModuleType
from typing import Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from .base import BaseSchedule
from .zones import as_instant

__all__ = ["solar"]

SECOND: Final = timedelta(seconds=1)
#: Where ephem finds nothing, half a day is looked at as a whole.
CELL: Final = timedelta(hours=12)
#: How often to look: a year has every event everywhere, at the poles once.
PROBES: Final = 2 * 367
#: From here ephem finds an event again, precisely.
NEAR: Final = timedelta(minutes=10)


class _Event(NamedTuple):
    method: str
    #: Degrees of the sun above the horizon; half a degree below it, refraction still shows the sun.
    horizon: str
    #: Does its centre count, instead of its upper edge?
    centre: bool


#: Celery's events and horizons.
EVENTS: Final = {
    "dawn_astronomical": _Event("next_rising", "-18", True),
    "dawn_nautical": _Event("next_rising", "-12", True),
    "dawn_civil": _Event("next_rising", "-6", True),
    "sunrise": _Event("next_rising", "-0:34", False),
    "solar_noon": _Event("next_transit", "0", False),
    "sunset": _Event("next_setting", "-0:34", False),
    "dusk_civil": _Event("next_setting", "-6", True),
    "dusk_nautical": _Event("next_setting", "-12", True),
    "dusk_astronomical": _Event("next_setting", "-18", True),
}


class solar(BaseSchedule):
    """When the sun does ``event`` at latitude ``lat`` and longitude ``lon``, in degrees, north and east positive.

    Events are ``dawn_astronomical``, ``dawn_nautical``, ``dawn_civil``, ``sunrise``, ``solar_noon``, ``sunset``,
    ``dusk_civil``, ``dusk_nautical`` and ``dusk_astronomical``. Where one does not happen every day, the next run is on
    the day when it does, be that months away.

    Celery's ``celery.schedules.solar``, with the same library; moments are rounded to whole seconds, so
    that the same sunset, looked for from another moment, is the same.

    Raises ``ImproperlyConfigured`` without ephem; ``TypeError`` or ``ValueError`` for bad arguments.
    """

    def __init__(
        self,
        event: str,
        lat: float | Decimal,
        lon: float | Decimal,
        nowfun: Callable[[], datetime] | None = None,
        tz: str | tzinfo | None = None,
        *,
        app: Any = None,
    ) -> None:
        super().__init__(nowfun, tz)
        _ephem()
        if event not in EVENTS:
            raise ValueError(f"event is {event!r}; allowed: {', '.join(EVENTS)}")
        self.event = event
        self.lat = _validate_degrees("lat", lat, 90)
        self.lon = _validate_degrees("lon", lon, 180)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the next event strictly after an aware ``moment``, in UTC; ``None`` after the year 9999."""
        start = as_instant(moment)
        try:
            return self._search(start)
        except (OverflowError, ValueError):  # ephem goes on counting years, datetime does not
            return None

    def _search(self, start: datetime) -> datetime | None:
        sky = _Sky(self.event, float(self.lat), float(self.lon))
        probe = start - SECOND  # what is rounded to after start may be before it
        for _ in range(PROBES):
            found = sky.next_event(probe)
            if found is None:
                probe = _end_of_cell(probe)
            elif found > start:
                return found
            else:
                probe = found + timedelta(hours=1)
        return None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, solar):
            return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.event, self.lat, self.lon))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.event, self.lat, self.lon, self.nowfun, self._tz)

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __str__(self) -> str:
        return f"{self.event.replace('_', ' ')} at {self.lat}, {self.lon}"


class _Sky:
    """The sun over one place. ephem's observers keep state, so each search has its own: threads do not meet."""

    def __init__(self, event: str, lat: float, lon: float) -> None:
        ephem = self._ephem = _ephem()
        self._event = EVENTS[event]
        self._sun = ephem.Sun()
        self._observer = ephem.Observer()
        self._observer.lat = math.radians(lat)
        self._observer.lon = math.radians(lon)
        self._observer.horizon = self._event.horizon
        self._observer.pressure = 0

    def next_event(self, start: datetime) -> datetime | None:
        """Return the next event, to the second; ``None`` when there is none in the rest of the cell of time."""
        try:
            # Where ephem begins to search changes its answer by parts of a second, the less the nearer it begins.
            found = self._find(self._find(start) - NEAR)
        except self._ephem.CircumpolarError:
            found = start - CELL
        return _rounded(found) if found >= start - SECOND else self._crossing(start)

    def _find(self, start: datetime) -> datetime:
        options = {"use_center": True} if self._event.centre else {}
        date = getattr(self._observer, self._event.method)(self._sun, start=self._date(start), **options)
        found: datetime = date.datetime()
        return found.replace(tzinfo=UTC)

    def _crossing(self, start: datetime) -> datetime | None:
        """Return when the sun crosses the horizon on the way asked for, if it does so once in the rest of the cell.

        ephem goes by the sun's daily round, and misses crossings near the poles, where the seasons move it.
        """
        rising = self._event.method == "next_rising"
        low, high = start, _end_of_cell(start)
        if (self._is_up(low), self._is_up(high)) != (not rising, rising):
            return None
        while high - low > timedelta(milliseconds=1):
            middle = low + (high - low) / 2
            if self._is_up(middle) is rising:
                high = middle
            else:
                low = middle
        return _rounded(high)

    def _is_up(self, moment: datetime) -> bool:
        self._observer.date = self._date(moment)
        self._sun.compute(self._observer)
        edge = 0.0 if self._event.centre else self._sun.radius
        return bool(self._sun.alt + edge >= self._observer.horizon)

    def _date(self, moment: datetime) -> Any:
        return self._ephem.Date(moment.replace(tzinfo=None))


def _end_of_cell(moment: datetime) -> datetime:
    return moment.replace(hour=moment.hour // 12 * 12, minute=0, second=0, microsecond=0) + CELL


def _rounded(moment: datetime) -> datetime:
    return (moment + SECOND / 2).replace(microsecond=0)


def _validate_degrees(name: str, value: Any, limit: int) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError(f"{name} is {value!r}; allowed: degrees from -{limit} to {limit}")
    if not -limit <= float(value) <= limit:
        raise ValueError(f"{name} is {value!r}; allowed: degrees from -{limit} to {limit}")
    return value


def _ephem() -> ModuleType:
    try:
        import ephem
    except ImportError:
        raise ImproperlyConfigured(
            'solar schedules need the package ephem: pip install "django-workbeat[solar]"'
        ) from None
    return ephem  # type: ignore[no-any-return]
