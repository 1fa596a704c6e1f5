"""The models of schedules, named, shaped and chosen from as in django-celery-beat."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, ClassVar, Self

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from .. import schedules
from ..conf import settings
from ..fields import UTCDateTimeField
from ..replica import reads_from
from .fields import ZoneField, default_zone_name
from .words import in_words

__all__ = [
    "DAYS",
    "HOURS",
    "MICROSECONDS",
    "MINUTES",
    "PERIOD_CHOICES",
    "SECONDS",
    "SOLAR_SCHEDULES",
    "ClockedSchedule",
    "CronSchedule",
    "CrontabSchedule",
    "IntervalSchedule",
    "SolarSchedule",
    "Timetable",
]

DAYS = "days"
HOURS = "hours"
MINUTES = "minutes"
SECONDS = "seconds"
MICROSECONDS = "microseconds"

PERIOD_CHOICES = (
    (DAYS, _("Days")),
    (HOURS, _("Hours")),
    (MINUTES, _("Minutes")),
    (SECONDS, _("Seconds")),
    (MICROSECONDS, _("Microseconds")),
)
SOLAR_SCHEDULES = [
    ("dawn_astronomical", _("Astronomical dawn")),
    ("dawn_civil", _("Civil dawn")),
    ("dawn_nautical", _("Nautical dawn")),
    ("dusk_astronomical", _("Astronomical dusk")),
    ("dusk_civil", _("Civil dusk")),
    ("dusk_nautical", _("Nautical dusk")),
    ("solar_noon", _("Solar noon")),
    ("sunrise", _("Sunrise")),
    ("sunset", _("Sunset")),
]

_EVERY = {
    DAYS: ngettext_lazy("every day", "every %(count)d days", "count"),
    HOURS: ngettext_lazy("every hour", "every %(count)d hours", "count"),
    MINUTES: ngettext_lazy("every minute", "every %(count)d minutes", "count"),
    SECONDS: ngettext_lazy("every second", "every %(count)d seconds", "count"),
    MICROSECONDS: ngettext_lazy("every microsecond", "every %(count)d microseconds", "count"),
}
_UNITS = {
    DAYS: timedelta(days=1),
    HOURS: timedelta(hours=1),
    MINUTES: timedelta(minutes=1),
    SECONDS: timedelta(seconds=1),
    MICROSECONDS: timedelta(microseconds=1),
}


class TaskDatabaseManager(models.Manager[Any]):
    """Looks into the database from which tasks are read, unless told otherwise."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().using(self._db or reads_from())


class Timetable(models.Model):
    """When something recurs. Several periodic tasks may have the same; a change takes effect within five seconds."""

    objects = TaskDatabaseManager()

    class Meta:
        abstract = True

    def save(self, **options: Any) -> None:
        """Store it. Raises ``ValidationError``, and stores nothing, for a schedule that cannot be kept."""
        for field in self._meta.concrete_fields:
            value = getattr(self, field.attname)
            if isinstance(value, str) and not isinstance(field, models.CharField):  # a number, say: Django takes it
                try:
                    setattr(self, field.attname, field.to_python(value))
                except ValidationError as error:
                    raise ValidationError({field.name: error.messages}) from error
        self.clean()
        super().save(**{**options, "using": options.get("using") or self._state.db or settings.DATABASE})

    @property
    def schedule(self) -> schedules.BaseSchedule:
        """The schedule by which runs are planned. Raises ``ValueError`` or ``TypeError`` when the row makes none."""
        raise NotImplementedError

    @property
    def human_readable(self) -> str:
        """When it runs, in words."""
        return str(self)

    def clean(self) -> None:
        """Raises ``ValidationError`` for what never runs, or cannot be read."""
        super().clean()
        try:
            self.schedule  # noqa: B018 - to make it is the test
        except (TypeError, ValueError, ImproperlyConfigured) as error:
            raise ValidationError(str(error), code="invalid") from error

    @classmethod
    def for_schedule(cls, schedule: Any) -> Self:
        """Return the row of a schedule as people would write it, a new one that is not saved if there is none."""
        found: Self = cls.from_schedule(schedule)  # type: ignore[attr-defined] # each kind has one
        return found

    @classmethod
    def _found_or_made(cls, **spec: Any) -> Self:
        return cls.objects.filter(**spec).first() or cls(**spec)


class IntervalSchedule(Timetable):
    """Every so many days, hours, minutes, seconds or microseconds, counted in real time."""

    DAYS: ClassVar = DAYS
    HOURS: ClassVar = HOURS
    MINUTES: ClassVar = MINUTES
    SECONDS: ClassVar = SECONDS
    MICROSECONDS: ClassVar = MICROSECONDS
    PERIOD_CHOICES: ClassVar = PERIOD_CHOICES

    #: How many periods lie between two runs.
    every = models.IntegerField(_("number of periods"), validators=[MinValueValidator(1)])
    #: ``days``, ``hours``, ``minutes``, ``seconds`` or ``microseconds``.
    period = models.CharField(_("interval period"), max_length=24, choices=PERIOD_CHOICES)

    class Meta:
        verbose_name = _("interval")
        verbose_name_plural = _("intervals")
        ordering = ("period", "every")

    def __str__(self) -> str:
        words = _EVERY.get(self.period)
        return f"every {self.every} {self.period}" if words is None else words % {"count": self.every}

    @property
    def schedule(self) -> schedules.schedule:
        if self.period not in _UNITS:
            raise ValueError(f"period is {self.period!r}; allowed: {', '.join(_UNITS)}")
        every: Any = self.every
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {self.every!r}; allowed: a whole number from 1")
        try:
            return schedules.schedule(self.every * _UNITS[self.period])
        except OverflowError:
            raise ValueError(
                f"every is {self.every!r} {self.period}; allowed: up to {timedelta.max.days} days"
            ) from None

    @property
    def period_singular(self) -> str:
        """The period's name for one: ``day``."""
        return self.period[:-1]

    @classmethod
    def from_schedule(cls, schedule: schedules.schedule, period: str = SECONDS) -> IntervalSchedule:
        """Return the row of this interval, a new one that is not saved if there is none.

        Raises ``ValueError`` for an interval that is no multiple of a microsecond.
        """
        unit = _UNITS[period]
        if schedule.run_every % unit:  # it would not run as often as it says
            period, unit = MICROSECONDS, _UNITS[MICROSECONDS]
        return cls._found_or_made(every=schedule.run_every // unit, period=period)

    @classmethod
    def for_schedule(cls, schedule: schedules.schedule) -> IntervalSchedule:
        """Return the row of this interval in its largest unit: an hour, and not 3,600 seconds."""
        period = next(name for name, unit in _UNITS.items() if not schedule.run_every % unit)
        return cls.from_schedule(schedule, period)


class CrontabSchedule(Timetable):
    """At the minutes that fit every field, by the clocks of a zone, as Celery's ``crontab``."""

    #: Minutes, 0 to 59.
    minute = models.CharField(_("minute(s)"), max_length=240, default="*")
    #: Hours, 0 to 23.
    hour = models.CharField(_("hour(s)"), max_length=96, default="*")
    #: Days of the month, 1 to 31.
    day_of_month = models.CharField(_("day(s) of the month"), max_length=124, default="*")
    #: Months, 1 to 12 or ``jan`` to ``dec``.
    month_of_year = models.CharField(_("month(s) of the year"), max_length=64, default="*")
    #: Days of the week, 0 (Sunday) to 6 or ``sun`` to ``sat``; a day must fit this field *and* the month's.
    day_of_week = models.CharField(_("day(s) of the week"), max_length=64, default="*")
    #: By whose clocks; Django's ``TIME_ZONE`` unless given.
    timezone = ZoneField(_("time zone"), default=default_zone_name)

    class Meta:
        verbose_name = _("crontab")
        verbose_name_plural = _("crontabs")
        ordering = ("month_of_year", "day_of_month", "day_of_week", "hour", "minute", "timezone")

    def __str__(self) -> str:
        return f"{' '.join(self._fields())} (m/h/dM/MY/d) {self.timezone}"

    @property
    def schedule(self) -> schedules.crontab:
        return schedules.crontab(
            minute=self.minute,
            hour=self.hour,
            day_of_week=self.day_of_week,
            day_of_month=self.day_of_month,
            month_of_year=self.month_of_year,
            tz=_zone(self.timezone),
        )

    @property
    def human_readable(self) -> str:
        try:
            return f"{in_words(self.schedule)} ({self.timezone})"
        except (TypeError, ValueError):
            return str(self)

    @classmethod
    def from_schedule(cls, schedule: schedules.crontab) -> CrontabSchedule:
        """Return the row of this crontab, a new one that is not saved if there is none."""
        minute, hour, day_of_month, month_of_year, day_of_week = schedule.fields
        return cls._found_or_made(
            minute=minute,
            hour=hour,
            day_of_month=day_of_month,
            month_of_year=month_of_year,
            day_of_week=day_of_week,
            timezone=zone_of(schedule),
        )

    def due_start_time(self, initial_start_time: datetime, tz: tzinfo) -> datetime:
        """Return the first run after ``initial_start_time``, in the zone ``tz``. django-celery-beat's."""
        run = self.schedule.next_after(initial_start_time)
        assert run is not None  # noqa: S101 - one that never runs again cannot be made
        return run.astimezone(tz)

    def _fields(self) -> Iterable[str]:
        names = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        return ("".join(str(getattr(self, name)).split()) or "*" for name in names)


class CronSchedule(Timetable):
    """At the times of a line of cron, with cron's own meaning: five fields, or six with the second in front."""

    #: The line: ``*/5 9-17 * * MON-FRI``, ``0 0 L * *``, ``@daily``.
    line = models.CharField(_("line"), max_length=255)
    #: By whose clocks; Django's ``TIME_ZONE`` unless given.
    timezone = ZoneField(_("time zone"), default=default_zone_name)

    class Meta:
        verbose_name = _("line of cron")
        verbose_name_plural = _("lines of cron")
        ordering = ("line", "timezone")

    def __str__(self) -> str:
        return f"{self.line} ({self.timezone})"

    @property
    def schedule(self) -> schedules.cron:
        return schedules.cron(self.line, tz=_zone(self.timezone))

    @classmethod
    def from_schedule(cls, schedule: schedules.cron) -> CronSchedule:
        """Return the row of this line, a new one that is not saved if there is none."""
        return cls._found_or_made(line=schedule.line, timezone=zone_of(schedule))


class SolarSchedule(Timetable):
    """When the sun rises, sets, stands highest, or is so far below the horizon."""

    #: What the sun does.
    event = models.CharField(_("solar event"), max_length=24, choices=SOLAR_SCHEDULES)
    #: Degrees, north positive.
    latitude = models.DecimalField(
        _("latitude"), max_digits=9, decimal_places=6, validators=[MinValueValidator(-90), MaxValueValidator(90)]
    )
    #: Degrees, east positive.
    longitude = models.DecimalField(
        _("longitude"), max_digits=9, decimal_places=6, validators=[MinValueValidator(-180), MaxValueValidator(180)]
    )

    class Meta:
        verbose_name = _("solar event")
        verbose_name_plural = _("solar events")
        ordering = ("event", "latitude", "longitude")
        constraints = (models.UniqueConstraint(fields=["event", "latitude", "longitude"], name="djt_solar"),)

    def __str__(self) -> str:
        return f"{self.get_event_display()} ({self.latitude}, {self.longitude})"

    @property
    def schedule(self) -> schedules.solar:
        return schedules.solar(self.event, self.latitude, self.longitude)

    @classmethod
    def from_schedule(cls, schedule: schedules.solar) -> SolarSchedule:
        """Return the row of this event, a new one that is not saved if there is none."""
        latitude, longitude = (
            Decimal(str(degrees)).quantize(Decimal("1.000000")) for degrees in (schedule.lat, schedule.lon)
        )
        return cls._found_or_made(event=schedule.event, latitude=latitude, longitude=longitude)


class ClockedSchedule(Timetable):
    """Once, at a given moment."""

    #: The moment.
    clocked_time = UTCDateTimeField(_("clock time"))

    class Meta:
        verbose_name = _("clocked")
        verbose_name_plural = _("clocked")
        ordering = ("clocked_time",)

    def __str__(self) -> str:
        return f"{_aware(self.clocked_time)}"

    @property
    def schedule(self) -> schedules.clocked:
        return schedules.clocked(_aware(self.clocked_time))

    @classmethod
    def from_schedule(cls, schedule: schedules.clocked) -> ClockedSchedule:
        """Return the row of this moment, a new one that is not saved if there is none."""
        return cls._found_or_made(clocked_time=schedule.clocked_time)


def zone_of(schedule: schedules.BaseSchedule) -> tzinfo:
    """Return the zone a schedule was given; ``TIME_ZONE`` if none, whoever looks."""
    return schedule._tz or timezone.get_default_timezone()


def _zone(zone: Any) -> Any:
    return zone or default_zone_name()


def _aware(moment: datetime) -> datetime:
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
