"""Every so many seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from .base import BaseSchedule
from .zones import as_instant, instants_of, wall_of

__all__ = ["maybe_schedule", "schedule"]

DAY: Final = timedelta(days=1)
#: What ``relative`` rounds to: the longest of these that fits into the interval.
RESOLUTIONS: Final = (DAY, timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))
_MIDNIGHT: Final = datetime(1, 1, 1)


class schedule(BaseSchedule):
    """Every ``run_every``: seconds or a ``timedelta``, counted in real time whatever the clocks do.

    With ``relative`` a run is rounded down to a whole day, hour, minute or second of the local clock, the longest that
    fits into the interval: ``schedule(timedelta(hours=2), relative=True)`` runs at full hours. Intervals from a day on
    then count days of the calendar, and run at midnight.

    Celery's ``celery.schedules.schedule``. It refuses an interval that is not longer than nothing, which Celery takes
    as "always due", and one below a second is not rounded.

    Raises ``TypeError`` or ``ValueError`` for a bad interval.
    """

    def __init__(
        self,
        run_every: float | timedelta,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        tz: str | tzinfo | None = None,
        *,
        app: Any = None,
    ) -> None:
        self.run_every = _validate_interval(run_every)
        if not isinstance(relative, bool):
            raise TypeError(f"relative is {relative!r}; allowed: True or False")
        self.relative = relative
        super().__init__(nowfun, tz)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return ``moment`` and one interval, in UTC, rounded if ``relative``; ``None`` after the year 9999."""
        start = as_instant(moment)
        try:
            return self._boundary_after(start) if self.relative else start + self.run_every
        except OverflowError:
            return None

    def _boundary_after(self, start: datetime) -> datetime:
        zone = self.tz
        unit = next((unit for unit in RESOLUTIONS if unit <= self.run_every), None)
        if unit is None:
            return start + self.run_every
        if unit == DAY:
            wall = _floor(wall_of(start, zone) + self.run_every, DAY)
        else:
            latest = start + self.run_every
            wall = _floor(wall_of(latest, zone), unit)
            # An hour that occurs twice has two beginnings: real time counts.
            for instant in reversed(instants_of(wall, zone)):
                if start < instant <= latest:
                    return instant
        # Where clocks are set back across a boundary, its first pass may be over: then the next boundary.
        while (instant := instants_of(wall, zone)[0]) <= start:
            wall += unit
        return instant

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return self.run_every.total_seconds()

    @property
    def human_seconds(self) -> str:
        """The interval in its largest unit, as Celery shows it: ``"1.50 minutes"``, ``"now"`` below a second."""
        seconds = round(self.seconds, 2)
        for name, length in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
            if seconds >= length:
                number = seconds / length
                return f"{number:.2f} {name}{'' if number == 1 else 's'}"
        return "now"

    def __eq__(self, other: object) -> bool:
        """Tell whether the interval is the same; a ``timedelta`` is compared to it, too, as by Celery."""
        return self.run_every == (other.run_every if isinstance(other, schedule) else other)

    def __hash__(self) -> int:
        return hash(self.run_every)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.run_every, self.relative, self.nowfun, self._tz)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __str__(self) -> str:
        every = f"every {self.seconds} seconds" if self.seconds % 1 else f"every {_in_words(int(self.seconds))}"
        return f"{every}, by the clock" if self.relative else every


def maybe_schedule(s: float | timedelta | BaseSchedule | None, relative: bool = False) -> BaseSchedule | None:
    """Return a number of seconds, or a ``timedelta``, as a :class:`schedule`; a schedule and ``None`` as they are.

    Celery's ``maybe_schedule``. Raises ``TypeError`` for anything else.
    """
    if s is None or isinstance(s, BaseSchedule):
        return s
    if isinstance(s, int | float | timedelta):
        return schedule(s, relative)
    raise TypeError(f"schedule is {s!r}; allowed: a number of seconds, a timedelta, a schedule, or None")


def _validate_interval(value: Any) -> timedelta:
    allowed = "allowed: seconds above 0 (a millionth at least), or a timedelta above 0"
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"run_every is {value!r}; {allowed}")
    try:
        interval = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (OverflowError, ValueError):  # more than Python's timedelta holds; not a number
        interval = timedelta(0)
    if interval <= timedelta(0):
        raise ValueError(f"run_every is {value!r}; {allowed}")
    return interval


def _floor(wall: datetime, unit: timedelta) -> datetime:
    return wall - (wall - _MIDNIGHT) % unit


def _in_words(seconds: int) -> str:
    units = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}
    name = next(name for name, length in units.items() if seconds % length == 0)
    number = seconds // units[name]
    return name if number == 1 else f"{number} {name}s"
