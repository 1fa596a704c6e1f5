"""``PeriodicTask``, and django-celery-beat's ``PeriodicTasks``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import Case, ExpressionWrapper, F, Max, Value, When
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .. import schedules
from ..conf import PRIORITIES, settings
from ..fields import NameField, UTCDateTimeField
from ..querysets import DatabaseNow
from ..routing import validate_queue
from . import planning
from .batches import MOMENT, TEXT, TOLD, BatchUpdate, line_of
from .keys import KeyOf
from .runs import PeriodicRun
from .timetables import (
    ClockedSchedule,
    CronSchedule,
    CrontabSchedule,
    IntervalSchedule,
    SolarSchedule,
    TaskDatabaseManager,
    Timetable,
)

__all__ = ["PeriodicTask", "PeriodicTasks"]

#: The columns that name a schedule: exactly one is set.
TIMETABLES = ("interval", "crontab", "solar", "clocked", "cron")
#: By which class a schedule is stored in which column.
STORED_AS: tuple[tuple[type[schedules.BaseSchedule], str, type[Any]], ...] = (
    (schedules.crontab, "crontab", CrontabSchedule),
    (schedules.cron, "cron", CronSchedule),
    (schedules.solar, "solar", SolarSchedule),
    (schedules.clocked, "clocked", ClockedSchedule),
    (schedules.schedule, "interval", IntervalSchedule),
)
#: What each kind of schedule is made of.
_MADE_OF = {
    "interval": ("every", "period"),
    "crontab": ("minute", "hour", "day_of_month", "month_of_year", "day_of_week", "timezone"),
    "cron": ("line", "timezone"),
    "solar": ("event", "latitude", "longitude"),
    "clocked": ("clocked_time",),
}
#: What the next run depends on. The columns of kinds that a row is not of are not looked at, which halves the time.
_KEY = KeyOf(
    *(F(name) for name in ("enabled", "start_time", "end_time", "expires", "max_runs", "relative")),
    *(
        Case(
            When(**{f"{kind}__isnull": False}, then=KeyOf(*(F(f"{kind}__{name}") for name in names))),
            default=Value(""),
            output_field=models.TextField(),
        )
        for kind, names in _MADE_OF.items()
    ),
)
#: Stands for a key that no row has: whatever it was, plan it anew.
ANEW = "-"
#: Columns that the beat writes. ``save()`` leaves them alone unless they were assigned, or a row that was read before a
#: run would take that run back.
BEATS_OWN = ("next_run_at", "schedule_key", "last_run_at", "total_run_count", "last_error", "failed_at")
#: A run in the future by more than this tells that the database's clock was set back.
CLOCK_WAS_AHEAD = timedelta(seconds=2)
#: Rows planned at a time.
BATCH = 500
#: Gives rows their next runs, unless somebody has done so meanwhile.
_PLAN = BatchUpdate(
    "schedule_key",
    TEXT,
    f"schedule_key = m.made_of, next_run_at = m.next_at, {TOLD}",
    {"made_of": TEXT, "next_at": MOMENT, "told": TEXT, "moment": MOMENT},
)


class PeriodicTaskQuerySet(models.QuerySet["PeriodicTask"]):
    """Periodic tasks."""

    def enabled(self) -> Self:
        """Those that are switched on, with their schedules."""
        return self.filter(enabled=True).select_related(*TIMETABLES)

    def due(self, now: datetime) -> Self:
        """Those to run at ``now`` or before."""
        return self.filter(enabled=True, next_run_at__lte=now)

    def with_key(self) -> Self:
        """Add ``current_key``, what the schedule is made of now."""
        return self.annotate(current_key=_KEY)

    def changed(self) -> Self:
        """Those of which the schedule is not what ``next_run_at`` was reckoned from."""
        return self.with_key().exclude(schedule_key=F("current_key"))

    def run_in_the_future(self, now: datetime) -> Self:
        """Intervals whose last run lies ahead of ``now``: the clock was set back, and they would pause for so long."""
        return self.filter(enabled=True, interval__isnull=False, last_run_at__gt=now + CLOCK_WAS_AHEAD)

    def plan(self, now: Callable[[], datetime] | None = None) -> int:
        """Reckon the next run of those that changed; return how many that were.

        ``now`` tells the time, asked after rows were read; unless given, it is the database that tells. Any number of
        callers is safe, and so are changes meanwhile.
        """
        return self.plan_changed(now)[0]

    def plan_changed(self, now: Callable[[], datetime] | None = None) -> tuple[int, int]:
        """As :meth:`plan`; return also how many were left as they are, because somebody holds or changed them."""
        count, left, passed = 0, 0, 0
        rows = self.changed().select_related(*TIMETABLES).order_by("pk")
        if now is None:
            rows = rows.annotate(read_at=ExpressionWrapper(DatabaseNow(), UTCDateTimeField()))
        while batch := list(rows.filter(pk__gt=passed)[:BATCH]):
            moment = now() if now is not None else None
            planned = {row.pk: row._planned(moment or cast(Any, row).read_at) for row in batch}
            done = len(_PLAN.apply(self.db, planned))
            count, left = count + done, left + len(batch) - done
            passed = batch[-1].pk
        return count, left

    def update(self, **changes: Any) -> int:
        """As Django's. Rows that this switches on or off are planned anew, whoever looks when."""
        enabled = changes.get("enabled")
        if isinstance(enabled, bool) and not {"schedule_key", "next_run_at"} & changes.keys():
            switched = When(enabled=not enabled, then=Value(ANEW, models.TextField()))
            stopped = When(enabled=not enabled, then=Value(None, UTCDateTimeField()))
            changes = {  # before the change of enabled: MySQL reads columns as they are by then
                "schedule_key": Case(switched, default=F("schedule_key")),
                "next_run_at": Case(stopped, default=F("next_run_at")),
                **changes,
            }
        return super().update(**changes)

    update.alters_data = True  # type: ignore[attr-defined]


class PeriodicTaskManager(TaskDatabaseManager.from_queryset(PeriodicTaskQuerySet)):  # type: ignore[misc]
    """``PeriodicTask.objects``."""


class PeriodicTask(models.Model):
    """A task that runs by a schedule. django-celery-beat's columns, and what it lacks."""

    ALLOW, SKIP, QUEUE = planning.ALLOW, planning.SKIP, planning.QUEUE
    ONCE, ALL = planning.ONCE, planning.ALL
    OVERLAP_CHOICES = (
        (ALLOW, _("Start beside it")),
        (SKIP, _("Skip this run")),
        (QUEUE, _("Let one wait behind it")),
    )
    MISSED_CHOICES = (
        (ONCE, _("Run once")),
        (SKIP, _("Skip")),
        (ALL, _("Run the last few")),
    )
    ADMIN, CODE = "admin", "code"
    ORIGIN_CHOICES = ((ADMIN, _("admin")), (CODE, _("code")))

    #: What people call it.
    name = NameField(_("name"), max_length=200, unique=True)
    #: The registered name of the task.
    task = models.CharField(_("task"), max_length=200)
    interval = models.ForeignKey(
        IntervalSchedule, models.CASCADE, null=True, blank=True, verbose_name=_("interval schedule")
    )
    crontab = models.ForeignKey(
        CrontabSchedule, models.CASCADE, null=True, blank=True, verbose_name=_("crontab schedule")
    )
    solar = models.ForeignKey(SolarSchedule, models.CASCADE, null=True, blank=True, verbose_name=_("solar schedule"))
    clocked = models.ForeignKey(
        ClockedSchedule, models.CASCADE, null=True, blank=True, verbose_name=_("clocked schedule")
    )
    #: A line of cron; ours.
    cron = models.ForeignKey(CronSchedule, models.CASCADE, null=True, blank=True, verbose_name=_("line of cron"))
    #: Of an interval: run at full days, hours, minutes or seconds; Celery's ``relative``.
    relative = models.BooleanField(_("by the clock"), default=False)
    #: Positional arguments, a JSON list.
    args = models.TextField(_("positional arguments"), blank=True, default="[]")
    #: Named arguments, a JSON object.
    kwargs = models.TextField(_("keyword arguments"), blank=True, default="{}")
    #: Empty: where the task, or a route, says.
    queue = models.CharField(_("queue"), max_length=200, blank=True, null=True, default=None)  # noqa: DJ001 - dcb's
    #: Names the queue if ``queue`` and ``routing_key`` do not; for the sake of old rows.
    exchange = models.CharField(_("exchange"), max_length=200, blank=True, null=True, default=None)  # noqa: DJ001
    #: Names the queue if ``queue`` does not; for the sake of old rows.
    routing_key = models.CharField(_("routing key"), max_length=200, blank=True, null=True, default=None)  # noqa: DJ001
    #: Headers of the message, a JSON object.
    headers = models.TextField(_("headers"), blank=True, null=True, default="{}")  # noqa: DJ001
    #: −100 to 100; higher runs first. Empty: as the task says.
    priority = models.SmallIntegerField(
        _("priority"),
        null=True,
        blank=True,
        default=None,
        validators=[MinValueValidator(PRIORITIES[0]), MaxValueValidator(PRIORITIES[-1])],
    )
    #: No run is sent after this moment, and none that was sent starts after it.
    expires = UTCDateTimeField(_("expires"), null=True, blank=True)
    #: A run that did not start within so many seconds never does.
    expire_seconds = models.PositiveIntegerField(_("expires after seconds"), null=True, blank=True)
    #: Seconds after which a run is ended from outside; empty: as the task says.
    time_limit = models.FloatField(_("time limit"), null=True, blank=True)
    #: Seconds after which ``SoftTimeLimitExceeded`` is raised in a run; empty: as the task says.
    soft_time_limit = models.FloatField(_("soft time limit"), null=True, blank=True)
    #: Switched off after one run.
    one_off = models.BooleanField(_("one-off"), default=False)
    #: No run before this moment; an interval has its first one then.
    start_time = UTCDateTimeField(_("start"), null=True, blank=True)
    #: No run is sent after this moment; what was sent may start later.
    end_time = UTCDateTimeField(_("end"), null=True, blank=True)
    #: Switched off once it has run so often.
    max_runs = models.PositiveIntegerField(_("most runs"), null=True, blank=True)
    #: While an earlier run is not done: ``allow``, ``skip`` or ``queue`` (one waits behind it).
    overlap = models.CharField(_("overlap"), max_length=8, choices=OVERLAP_CHOICES, default=ALLOW)
    #: Runs that came while no beat ran: ``once``, ``skip`` or ``all`` (the last ``missed_limit``).
    missed = models.CharField(_("missed runs"), max_length=8, choices=MISSED_CHOICES, default=ONCE)
    #: Most missed runs that ``all`` makes up for.
    missed_limit = models.PositiveSmallIntegerField(
        _("most missed runs"), default=10, validators=[MinValueValidator(1), MaxValueValidator(1_000)]
    )
    #: A run later than so many seconds is not made any more. Empty: 60 with ``skip``, else however late.
    grace_seconds = models.PositiveIntegerField(_("latest after seconds"), null=True, blank=True)
    #: A run starts up to so many seconds after its time, at random.
    jitter = models.PositiveIntegerField(_("jitter"), default=0)
    #: Does it run?
    enabled = models.BooleanField(_("enabled"), default=True)
    #: What it is for.
    description = models.TextField(_("description"), blank=True, default="")
    date_changed = models.DateTimeField(_("last modified"), auto_now=True)

    #: ``admin``: people made it; ``code``: it is declared in ``BEAT_SCHEDULE`` or by a task.
    origin = models.CharField(_("origin"), max_length=8, choices=ORIGIN_CHOICES, default=ADMIN, editable=False)
    #: What the code declares, as JSON; empty if it declares nothing.
    declared = models.TextField(_("declared"), blank=True, default="", editable=False)
    #: Since when the code does not declare it any more; it was switched off then.
    gone_at = UTCDateTimeField(_("gone from the code"), null=True, blank=True, editable=False)

    #: The beat's: when it runs next; NULL: never, as it stands.
    next_run_at = UTCDateTimeField(_("next run"), null=True, blank=True, editable=False)
    #: The beat's: what the schedule was made of when that was reckoned.
    schedule_key = models.TextField(_("schedule key"), blank=True, default="", editable=False)
    #: The beat's: when it was sent last.
    last_run_at = UTCDateTimeField(_("last run"), null=True, blank=True, editable=False)
    #: The beat's: how often it was sent by the schedule.
    total_run_count = models.PositiveIntegerField(_("total run count"), default=0, editable=False)
    #: The beat's: why the last run could not be sent, or the next one not be reckoned; empty: it could.
    last_error = models.TextField(_("error"), blank=True, default="", editable=False)
    failed_at = UTCDateTimeField(_("failed"), null=True, blank=True, editable=False)

    objects = PeriodicTaskManager()

    class Meta:
        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")
        ordering = ("name",)
        permissions = (("run_periodictask", "Can run a periodic task now"),)
        indexes = (
            # What is due, and what is next.
            models.Index(fields=["enabled", "next_run_at"], name="djt_periodic_due"),
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.scheduler or '{no schedule}'}"

    def save(self, **options: Any) -> None:
        """Store it, and reckon its next run. Raises ``ValidationError``, and stores nothing, for what cannot be kept.

        What the beat writes is left alone, unless it was assigned here.
        """
        self.queue, self.exchange, self.routing_key = (
            self.queue or None,
            self.exchange or None,
            self.routing_key or None,
        )
        self.headers = self.headers or None
        if self.enabled:
            self._clean_call(options.get("update_fields"))
        self.clean()
        self.validate_unique()
        using = options["using"] = options.get("using") or self._state.db or settings.DATABASE
        if not self._state.adding and options.get("update_fields") is None and not options.get("force_insert"):
            known = self._read
            kept = {
                name for name in BEATS_OWN if name not in self.__dict__ or known.get(name, ...) == getattr(self, name)
            }
            deferred = self.get_deferred_fields()
            options["update_fields"] = [
                field.name
                for field in self._meta.concrete_fields
                if not field.primary_key and field.name not in kept and field.attname not in deferred
            ]
        with transaction.atomic(using=using):
            super().save(**options)
            rows = type(self).objects.using(using).filter(pk=self.pk)
            rows.plan()
            self.__dict__.update(rows.values(*BEATS_OWN).get())
        self._remember()

    @classmethod
    def from_db(cls, db: str | None, field_names: Any, values: Any, **options: Any) -> Self:
        row = super().from_db(db, field_names, values, **options)  # Django 6.1 passes fetch_mode
        row._remember()
        return row

    def refresh_from_db(self, *args: Any, **options: Any) -> None:
        super().refresh_from_db(*args, **options)
        self._remember()

    # The schedule

    @property
    def scheduler(self) -> Timetable | None:
        """The row of its schedule."""
        return next((found for name in TIMETABLES if (found := getattr(self, name)) is not None), None)

    @property
    def schedule(self) -> schedules.BaseSchedule:
        """Its schedule. Raises ``ValueError`` or ``TypeError`` when there is none, or what stands there makes none."""
        timetable = self.scheduler
        if timetable is None:
            raise ValueError(f"{self.name} has no schedule; allowed: exactly one of {', '.join(TIMETABLES)}")
        made = timetable.schedule
        if self.relative and isinstance(made, schedules.schedule):
            return schedules.schedule(made.run_every, relative=True)
        return made

    def set_schedule(self, schedule: Any) -> None:
        """Let it run by a schedule, a number of seconds or a ``timedelta``; the row of that is saved if it is new.

        Raises ``TypeError`` for what no row can hold, ``ValidationError`` for what it could not keep.
        """
        wanted = schedules.maybe_schedule(schedule)
        for cls, name, timetable in STORED_AS:
            if type(wanted) is cls:
                found = timetable.for_schedule(wanted)
                if found.pk is None:
                    found.save(using=self._state.db)
                for other in TIMETABLES:
                    setattr(self, other, found if other == name else None)
                self.relative = bool(getattr(wanted, "relative", False))
                if name == "clocked":
                    self.one_off = True
                return
        allowed = "seconds, a timedelta, or a schedule, crontab, cron, solar or clocked"
        raise TypeError(f"schedule is {schedule!r}, which no row can hold; allowed: {allowed}")

    @property
    def expires_(self) -> datetime | int | None:
        """What a run is given as ``expires``: a moment or seconds."""
        return self.expires or self.expire_seconds

    @property
    def starts_at(self) -> datetime | None:
        """No run is sent before this moment."""
        return None if self.start_time is None else _aware(self.start_time)

    @property
    def ends_at(self) -> datetime | None:
        """No run is sent after this moment."""
        ends: list[datetime] = [_aware(one) for one in (self.end_time, self.expires) if one is not None]
        return min(ends) if ends else None

    def due_start_time(self, tz: Any) -> datetime | None:
        """Return the first run from ``start_time`` on, in the zone ``tz``. django-celery-beat's."""
        if self.crontab is not None and self.start_time is not None:
            return self.crontab.due_start_time(self.start_time, tz)
        return self.starts_at

    # Checks

    def validate_unique(self, exclude: Any = None) -> None:
        """Raises ``ValidationError`` also when there is not exactly one schedule, as django-celery-beat does."""
        super().validate_unique(exclude=exclude)
        chosen = [name for name in TIMETABLES if getattr(self, name) is not None]
        names = "interval, crontab, solar, clocked or cron"
        if not chosen:
            raise ValidationError(_("One of %s must be set.") % names)
        if len(chosen) > 1:
            raise ValidationError({name: [_("Only one of %s must be set.") % names] for name in chosen})
        if self.clocked is not None and not self.one_off:
            raise ValidationError(_("A clocked schedule runs once: set one_off."))

    def clean(self) -> None:
        """Raises ``ValidationError`` for what could not be kept."""
        super().clean()
        if self.expire_seconds is not None and self.expires:
            raise ValidationError(_("Only one can be set, in expires and expire_seconds."))
        if self.scheduler is not None:
            try:
                self.schedule  # noqa: B018 - to make it is the test
            except (TypeError, ValueError, ImproperlyConfigured) as error:
                raise ValidationError(str(error), code="invalid") from error

    def _clean_call(self, names: Iterable[str] | None) -> None:
        """Raises ``ValidationError`` for what could never be sent, among these columns or all."""
        looked_at = set(self.__dict__) if names is None else set(names)
        skipped = {f.name for f in self._meta.concrete_fields if f.is_relation or f.name not in looked_at}
        self.clean_fields(exclude=skipped)
        for name, kind in (("args", list), ("kwargs", dict), ("headers", dict)):
            if name in looked_at:
                try:
                    json_of(name, getattr(self, name), kind)
                except ValueError as error:
                    raise ValidationError({name: [str(error)]}) from error
        for name in ("queue", "exchange", "routing_key"):
            value = getattr(self, name) if name in looked_at else None
            try:
                validate_queue(value or "default")
            except ValueError as error:
                raise ValidationError({name: [str(error)]}) from error

    # What it tells

    def recent_runs(self, count: int = 20) -> list[PeriodicRun]:
        """Return the last runs, newest first."""
        return list(PeriodicRun.objects.using(self._state.db).filter(periodic_task=self).order_by("-pk")[:count])

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return ``args`` and ``kwargs`` as Python values. Raises ``ValueError`` for what is no list, or no object."""
        return json_of("args", self.args, list), json_of("kwargs", self.kwargs, dict)

    def _planned(self, now: datetime) -> dict[str, Any]:
        """Return what :data:`_PLAN` changes: its next run, since the schedule is not what it was."""
        next_at, told = None, "" if self.enabled else None  # one that is switched off goes on telling why it failed
        try:
            given = self.next_run_at if self.enabled and not self.schedule_key else None
            next_at = given or planning.first_run(self, now)
        except Exception as error:  # whatever stands in the row, the others go on
            told = line_of(error)
        made_of = cast(Any, self).current_key
        return {"was": self.schedule_key, "made_of": made_of, "next_at": next_at, "told": told, "moment": now}

    def _remember(self) -> None:
        self._read = {name: self.__dict__[name] for name in BEATS_OWN if name in self.__dict__}

    _read: dict[str, Any] = {}


class PeriodicTasks:
    """django-celery-beat's name for telling the beat of changes. Here every change is seen within five seconds."""

    @classmethod
    def changed(cls, instance: PeriodicTask, **kwargs: Any) -> None:
        """Reckon the next run of one row now, if its schedule has changed."""
        PeriodicTask.objects.filter(pk=instance.pk).plan()

    @classmethod
    def update_changed(cls, **kwargs: Any) -> None:
        """Reckon the next runs of all rows whose schedules have changed, now instead of within five seconds."""
        PeriodicTask.objects.all().plan()

    @classmethod
    def last_change(cls) -> datetime | None:
        """Return when a row was last saved; ``None`` if there is none."""
        latest: datetime | None = PeriodicTask.objects.aggregate(latest=Max("date_changed"))["latest"]
        return latest


def json_of(name: str, text: str | None, kind: type[Any]) -> Any:
    """Return what a column of JSON holds; nothing in it is an empty list or object.

    Raises ``ValueError`` that names the column, and the line and the place of a slip.
    """
    allowed = f"allowed: a JSON {'list' if kind is list else 'object'}"
    if text is None or not text.strip():
        return kind()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f", line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{name} is no JSON{where}: {getattr(error, 'msg', error)}; {allowed}") from None
    if not isinstance(found, kind):
        raise ValueError(f"{name} is {text.strip()[:100]}; {allowed}")
    return found


def _aware(moment: datetime) -> datetime:
    return (timezone.make_aware(moment) if timezone.is_naive(moment) else moment).astimezone(UTC)
