"""The admin of periodic tasks: one page on which a task, its arguments and its schedule are set, checked and shown."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from . import display, schedules, typed_json
from .beat import history, sync
from .beat.engine import run_now
from .conf import settings
from .dashboard import database_now
from .models import PERIOD_CHOICES, SOLAR_SCHEDULES, CrontabSchedule, PeriodicRun, PeriodicTask
from .periodic import planning
from .periodic.changes import clock_changes
from .periodic.fields import default_zone_name
from .periodic.rows import TIMETABLES, json_of
from .registry import tasks
from .routing import validate_queue
from .time_limits import validate_limits

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[PeriodicTask]
    ModelForm = forms.ModelForm[PeriodicTask]
else:
    ModelAdmin, ModelForm = admin.ModelAdmin, forms.ModelForm

#: Runs that the preview tells of, that the page of a row has, and that a line of the list has.
PREVIEWED, SHOWN, IN_LIST = 10, 20, 10
#: How an outcome is drawn; what is none of these is not done yet.
GLYPHS: Final = {"SUCCESS": "✔", "FAILURE": "✖", "REVOKED": "⊘", "": "–"}
KINDS: Final = (
    ("interval", gettext_lazy("Every so often")),
    ("crontab", gettext_lazy("Crontab: the day must fit both fields of the day")),
    ("cron", gettext_lazy("A line of cron: the day may fit either")),
    ("clocked", gettext_lazy("Once, at a moment")),
    ("solar", gettext_lazy("By the sun")),
)
FIELDS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "interval": ("every", "period"),
    "crontab": ("minute", "hour", "day_of_month", "month_of_year", "day_of_week"),
    "cron": ("line",),
    "clocked": ("clocked_time",),
    "solar": ("event", "latitude", "longitude"),
}


class Preview(NamedTuple):
    """What a row would do."""

    words: str
    #: Of each run: by the clock of the schedule, of the reader, and UTC.
    runs: list[tuple[str, str, str]]
    warnings: list[str]
    #: What the task takes, and what it says of itself.
    signature: str
    doc: str


class PeriodicTaskForm(ModelForm):
    """A row and its schedule together. ``Preview`` checks everything and stores nothing."""

    kind = forms.ChoiceField(label=gettext_lazy("Runs"), choices=KINDS, widget=forms.RadioSelect, initial="interval")
    every = forms.IntegerField(label=gettext_lazy("Every"), required=False)
    period = forms.ChoiceField(label=gettext_lazy("Period"), choices=PERIOD_CHOICES, required=False)
    minute = forms.CharField(label=gettext_lazy("Minute"), required=False, initial="*")
    hour = forms.CharField(label=gettext_lazy("Hour"), required=False, initial="*")
    day_of_month = forms.CharField(label=gettext_lazy("Day of the month"), required=False, initial="*")
    month_of_year = forms.CharField(label=gettext_lazy("Month"), required=False, initial="*")
    day_of_week = forms.CharField(label=gettext_lazy("Day of the week"), required=False, initial="*")
    line = forms.CharField(
        label=gettext_lazy("Line of cron"),
        required=False,
        help_text=gettext_lazy(
            "Such as */5 9-17 * * MON-FRI, 0 0 L * *, @daily; a sixth field in front is the second."
        ),
    )
    zone = forms.ChoiceField(label=gettext_lazy("Time zone"), required=False)
    clocked_time = forms.SplitDateTimeField(label=gettext_lazy("Moment"), required=False, widget=AdminSplitDateTime())
    event = forms.ChoiceField(label=gettext_lazy("Event"), choices=SOLAR_SCHEDULES, required=False)
    latitude = forms.DecimalField(
        label=gettext_lazy("Latitude"),
        required=False,
        decimal_places=6,
        help_text=gettext_lazy("Degrees, north positive."),
    )
    longitude = forms.DecimalField(
        label=gettext_lazy("Longitude"),
        required=False,
        decimal_places=6,
        help_text=gettext_lazy("Degrees, east positive."),
    )

    class Meta:
        model = PeriodicTask
        fields = (
            *("name", "task", "enabled", "description", "args", "kwargs", "relative"),
            *("start_time", "end_time", "one_off", "max_runs", "missed", "missed_limit", "grace_seconds", "overlap"),
            *("jitter", "queue", "exchange", "routing_key", "priority", "headers", "expires", "expire_seconds"),
            *("time_limit", "soft_time_limit"),
        )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.preview: Preview | None = None
        self.timetable: schedules.BaseSchedule | None = None
        known = self.instance.task if self.instance.pk else ""
        self.fields["task"] = forms.ChoiceField(
            label=_("Task"),
            choices=_task_choices(known),
            error_messages={"invalid_choice": _("%(value)s is no task that this site knows.")},
        )
        zones = [(name, name) for name in sorted(available_timezones())]
        self.fields["zone"].choices = zones  # type: ignore[attr-defined]
        self.fields["zone"].initial = default_zone_name()
        for name in ("args", "kwargs", "headers"):
            self.fields[name].widget.attrs |= {"rows": 3, "class": "vLargeTextField djt-json"}
        if self.instance.pk:
            self.initial.update(_values_of(self.instance))

    def is_valid(self) -> bool:
        """A preview is checked like anything else, and never stored."""
        valid = super().is_valid()
        if valid and "_preview" in self.data:
            self.preview = self.make_preview()
            return False
        return valid

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or self.cleaned_data
        self._check_call(values)
        self._check_schedule(values)
        return values

    def validate_unique(self) -> None:
        # That there is exactly one schedule is for this form to see to; its row may not be stored yet.
        try:
            models.Model.validate_unique(self.instance, exclude=TIMETABLES)
        except ValidationError as error:
            self._update_errors(error)  # type: ignore[attr-defined] # as Django's own does

    def _check_call(self, values: dict[str, Any]) -> None:
        parsed: dict[str, Any] = {}
        for name, kind in (("args", list), ("kwargs", dict), ("headers", dict)):
            if name in values:
                try:
                    parsed[name] = typed_json.untag(json_of(name, values[name], kind))
                    values[name] = values[name] or json.dumps(kind())
                except (TypeError, ValueError) as error:
                    self.add_error(name, str(error))
        task = tasks.get(values.get("task") or "")
        if task is not None and {"args", "kwargs"} <= parsed.keys():
            try:
                task._checked(parsed["args"], parsed["kwargs"])
            except (TypeError, ValueError) as error:
                self.add_error("kwargs" if parsed["kwargs"] else "args", str(error))
        for name in ("queue", "exchange", "routing_key"):
            if values.get(name):
                try:
                    validate_queue(values[name])
                except (TypeError, ValueError) as error:
                    self.add_error(name, str(error))
        try:
            validate_limits(values.get("time_limit"), values.get("soft_time_limit"))
        except (TypeError, ValueError) as error:
            self.add_error("soft_time_limit" if "soft_time_limit" in str(error) else "time_limit", str(error))

    def _check_schedule(self, values: dict[str, Any]) -> None:
        kind = values.get("kind")
        if kind is None or any(name in self.errors for name in FIELDS_OF[kind]):
            return
        missing = [name for name in FIELDS_OF[kind] if values.get(name) in (None, "") and kind != "crontab"]
        for name in missing:
            self.add_error(name, _("This field is required."))
        if missing:
            return
        try:
            self.timetable = _schedule_of(kind, values)
        except (TypeError, ValueError, ImproperlyConfigured) as error:
            self.add_error(_field_of(kind, str(error)), str(error))
            return
        if kind == "clocked":
            values["one_off"] = True

    def make_preview(self) -> Preview | None:
        """Return what the row would do as it stands in the form; ``None`` if it has no schedule that can be kept."""
        if self.timetable is None:
            return None
        row = self.instance
        plan = _Plan(row, self.timetable)
        task = tasks.get(row.task)
        return preview_of(plan, self.timetable, words_of(self.timetable), task)


class _Plan:
    """A row as it would be with another schedule, not planned yet."""

    schedule_key = ""
    next_run_at = None

    def __init__(self, row: PeriodicTask, timetable: schedules.BaseSchedule) -> None:
        self._row = row
        self.schedule = timetable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


class PeriodicTaskAdmin(ModelAdmin):
    """Periodic tasks: to make, to check, to run by hand, and what became of their runs."""

    form = PeriodicTaskForm
    change_form_template = "admin/django_tasks/periodictask/change_form.html"
    change_list_template = "admin/django_tasks/periodictask/change_list.html"
    list_display = ("name", "shown_task", "words", "last_run", "next_run", "outcomes", "enabled", "label")
    list_filter = ("enabled", "origin")
    list_per_page = 50
    list_select_related = TIMETABLES
    show_full_result_count = False
    search_fields = ("name", "task", "description")
    actions = ("enable_selected", "disable_selected", "run_selected", "duplicate_selected")
    fieldsets = (
        (None, {"fields": ("name", "enabled", "description")}),
        (gettext_lazy("Task"), {"fields": ("task", "args", "kwargs")}),
        (
            gettext_lazy("Schedule"),
            {
                "fields": (
                    "kind",
                    ("every", "period", "relative"),
                    ("minute", "hour", "day_of_month", "month_of_year", "day_of_week"),
                    "line",
                    "zone",
                    "clocked_time",
                    ("event", "latitude", "longitude"),
                ),
                "description": gettext_lazy(
                    "Only the fields of the chosen kind count; the zone is for crontabs and cron."
                ),
            },
        ),
        (gettext_lazy("Bounds"), {"fields": ("start_time", "end_time", ("one_off", "max_runs"))}),
        (
            gettext_lazy("If it is late, or still runs"),
            {"fields": (("missed", "missed_limit", "grace_seconds"), "overlap", "jitter")},
        ),
        (
            gettext_lazy("Delivery"),
            {
                "fields": (
                    ("queue", "priority"),
                    ("expires", "expire_seconds"),
                    ("time_limit", "soft_time_limit"),
                    "headers",
                    ("exchange", "routing_key"),
                ),
                "classes": ("collapse",),
            },
        ),
    )

    class Media:
        css: ClassVar = {"all": ("django_tasks/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[PeriodicTask]:
        return super().get_queryset(request).using(settings.DATABASE)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None and not self.has_change_permission(request, obj):
            payload = ("args", "kwargs") if request.user.has_perm("django_tasks.view_payload") else ()
            names = ("name", "task", *payload, "words", "enabled", "description", "start_time", "end_time", "one_off")
            return [(None, {"fields": (*names, "max_runs", "missed", "overlap", "queue", "priority")})]
        return super().get_fieldsets(request, obj)

    def has_run_permission(self, request: HttpRequest) -> bool:
        """May this person run a periodic task now?"""
        return request.user.has_perm("django_tasks.run_periodictask")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in {"enabled__exact", "origin__exact"}

    # The list

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found = super().get_changelist_instance(request)
        rows = list(found.result_list)
        latest = history.latest([row.pk for row in rows], IN_LIST)
        for row in rows:
            row.outcomes = latest.get(row.pk, [])
        found.result_list = rows
        return found

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {**beat_context(), **(extra_context or {})})

    @admin.display(description=gettext_lazy("task"), ordering="task")
    def shown_task(self, row: PeriodicTask) -> SafeString | str:
        if row.task in tasks:
            return display.short(row.task)
        return format_html("⚠ {} <em>{}</em>", display.short(row.task), _("unknown to this site"))

    @admin.display(description=gettext_lazy("schedule"))
    def words(self, row: PeriodicTask) -> str:
        return str(row.scheduler.human_readable) if row.scheduler is not None else "–"

    @admin.display(description=gettext_lazy("last run"), ordering="last_run_at")
    def last_run(self, row: PeriodicTask) -> Any:
        return display.moment(row.last_run_at)

    @admin.display(description=gettext_lazy("next run"), ordering="next_run_at")
    def next_run(self, row: PeriodicTask) -> Any:
        if row.last_error:
            return format_html('<span class="djt-state djt-failure" title="{}">{}</span>', row.last_error, _("error"))
        return display.moment(row.next_run_at)

    @admin.display(description=gettext_lazy("last runs"))
    def outcomes(self, row: Any) -> SafeString:
        # The newest at the end, as one reads.
        return format_html_join("", "{}", ((self.glyph(one),) for one in reversed(row.outcomes)))

    @admin.display(description=gettext_lazy("origin"), ordering="origin")
    def label(self, row: PeriodicTask) -> str:
        if row.gone_at is not None:
            return _("gone from the code")
        if row.origin == PeriodicTask.CODE:
            return _("code, changed") if sync.drift(row) else _("code")
        return _("admin")

    def glyph(self, outcome: history.Outcome) -> SafeString:
        """Return one run as a sign, with what it means for those who cannot see it, and a link to its task."""
        text = outcome.run.skipped or outcome.state or _("forgotten")
        sign = GLYPHS.get(outcome.state, "…")
        shown = format_html('<span class="djt-run djt-run-{}" title="{}">{}</span>', text.lower(), text, sign)
        return self.link(outcome, shown)

    def link(self, outcome: history.Outcome, text: Any) -> SafeString:
        """Return a link to the task of a run, if it is there."""
        if not outcome.place:
            return format_html("{}", text)
        url = reverse(
            f"admin:django_tasks_{outcome.place}_change",
            args=(quote(str(outcome.run.task_id)),),
            current_app=self.admin_site.name,
        )
        return format_html('<a href="{}">{}</a>', url, text)

    # The page

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: Any, change: bool) -> None:
        obj.set_schedule(form.timetable)
        if isinstance(form.timetable, schedules.schedule):
            obj.relative = bool(form.cleaned_data["relative"])
        obj.save()

    def response_post_save_add(self, request: HttpRequest, obj: PeriodicTask) -> Any:
        self._run_if_asked(request, obj)
        return super().response_post_save_add(request, obj)

    def response_post_save_change(self, request: HttpRequest, obj: PeriodicTask) -> Any:
        self._run_if_asked(request, obj)
        return super().response_post_save_change(request, obj)

    def _run_if_asked(self, request: HttpRequest, obj: PeriodicTask) -> None:
        if "_run" in request.POST and self.has_run_permission(request):
            self._run(request, [obj])

    def render_change_form(
        self,
        request: HttpRequest,
        context: Any,
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> Any:
        form = context["adminform"].form
        context["preview"] = getattr(form, "preview", None)
        context["may_run"] = self.has_run_permission(request)
        if obj is not None:
            if context["preview"] is None and not form.is_bound:
                context["preview"] = _preview_of_row(obj)
            context["last_error"] = obj.last_error
            context["drift"] = sync.drift(obj)
            context["gone_at"] = obj.gone_at
            found = history.outcomes(obj.recent_runs(SHOWN))
            context["runs"] = [
                (display.moment(one.run.scheduled_for), self.glyph(one), self.what_became(one), one.run.by_hand)
                for one in found
            ]
        return super().render_change_form(request, context, add, change, form_url, obj)

    def what_became(self, outcome: history.Outcome) -> SafeString | str:
        """Return what became of a run, in words, with a link to its task."""
        if outcome.run.skipped == PeriodicRun.OVERLAP:
            return _("skipped: an earlier run was not done")
        if outcome.run.skipped:
            return _("not sent: it was broken")
        return self.link(outcome, outcome.state or _("its result is forgotten"))

    # Actions

    @admin.action(permissions=["change"], description=gettext_lazy("Enable selected periodic tasks"))
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Let them run again, from their next time on."""
        self._switch(request, queryset, on=True)

    @admin.action(permissions=["change"], description=gettext_lazy("Disable selected periodic tasks"))
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Let them not run any more."""
        self._switch(request, queryset, on=False)

    @admin.action(permissions=["run"], description=gettext_lazy("Run selected periodic tasks now"))
    def run_selected(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Send each once; their schedules go on as if nothing had been."""
        self._run(request, queryset.select_related(*TIMETABLES))

    @admin.action(permissions=["add"], description=gettext_lazy("Duplicate selected periodic tasks"))
    def duplicate_selected(self, request: HttpRequest, queryset: QuerySet[PeriodicTask]) -> None:
        """Make copies that are switched off."""
        for row in queryset.select_related(*TIMETABLES):
            copy = duplicate_of(row)
            self.log_addition(request, copy, _("Copied from %s") % row.name)
            self.message_user(request, _("%s is a copy, switched off.") % copy.name, messages.SUCCESS)

    def _switch(self, request: HttpRequest, queryset: QuerySet[PeriodicTask], *, on: bool) -> None:
        rows = list(queryset.filter(enabled=not on))
        PeriodicTask.objects.filter(pk__in=[row.pk for row in rows]).update(enabled=on)
        PeriodicTask.objects.filter(pk__in=[row.pk for row in rows]).plan()
        for row in rows:
            self.log_change(request, row, _("Enabled") if on else _("Disabled"))
        text = _("Enabled: %s.") if on else _("Disabled: %s.")
        self.message_user(request, text % f"{len(rows):,}", messages.SUCCESS)

    def _run(self, request: HttpRequest, rows: Iterable[PeriodicTask]) -> None:
        for row in rows:
            try:
                task_id = run_now(row)
            except Exception as error:  # whatever is wrong with the row, it is told
                text = _("%(name)s cannot be sent: %(error)s") % {"name": row.name, "error": error}
                self.message_user(request, text, messages.ERROR)
                continue
            self.log_change(request, row, _("Run now as %s") % task_id)
            [outcome] = history.outcomes(PeriodicRun.objects.filter(task_id=task_id, periodic_task=row)[:1])
            text = _("%s is sent:") % row.name
            self.message_user(request, format_html("{} {}", text, self.link(outcome, task_id)), messages.SUCCESS)


def duplicate_of(row: PeriodicTask) -> PeriodicTask:
    """Store and return a copy of a row that is switched off, under a name that is free."""
    names = {
        field.attname: getattr(row, field.attname)
        for field in PeriodicTask._meta.concrete_fields
        if field.editable and not field.primary_key and field.attname not in ("name", "enabled", "date_changed")
    }
    number, stem = 2, row.name[:190]
    while PeriodicTask.objects.filter(name=f"{stem} ({number})").exists():
        number += 1
    copy = PeriodicTask(**names, name=f"{stem} ({number})", enabled=False)
    copy.save()
    return copy


def beat_context() -> dict[str, Any]:
    """Return what the list says of the beats, and of rows that wait for one."""
    now = database_now()
    found = history.beats(now)
    online = [beat for beat in found if beat.status(now) == "online"]
    enabled = PeriodicTask.objects.filter(enabled=True)
    return {
        "beats": [(beat.name, round((now - beat.seen_at).total_seconds()), beat.late) for beat in online],
        "waiting": 0 if online else enabled.count(),
        "overdue": enabled.filter(next_run_at__lt=now - timedelta(seconds=60)).count(),
    }


def words_of(timetable: schedules.BaseSchedule) -> str:
    """Return when a schedule runs, in words."""
    if isinstance(timetable, schedules.crontab):
        return CrontabSchedule.from_schedule(timetable).human_readable
    return str(timetable)


def preview_of(plan: Any, timetable: schedules.BaseSchedule, words: str, task: Any) -> Preview:
    """Return what would become of a row."""
    now = database_now()
    zone = timetable.tz
    runs = planning.preview(plan, now, PREVIEWED)
    own = timezone.get_current_timezone()
    shown = [(_clock(run, zone), _clock(run, own), f"{run:%Y-%m-%d %H:%M:%S}") for run in runs]
    warnings = list(clock_changes(timetable, now))
    if not runs:
        warnings.append(_("It never runs again as it stands."))
    if not plan.enabled:
        warnings.append(_("It is switched off: none of these runs is sent."))
    doc = (inspect.getdoc(getattr(task, "run", None)) or "").partition("\n")[0] if task is not None else ""
    signature = f"{task.name}{task._arguments.signature}" if task is not None else ""
    return Preview(words, shown, warnings, signature, doc)


def _preview_of_row(row: PeriodicTask) -> Preview | None:
    try:
        timetable = row.schedule
    except (TypeError, ValueError, ImproperlyConfigured):
        return None
    words = row.scheduler.human_readable if row.scheduler is not None else ""
    return preview_of(row, timetable, words, tasks.get(row.task))


def _clock(run: datetime, zone: tzinfo) -> str:
    return f"{run.astimezone(zone):%a %Y-%m-%d %H:%M:%S}"


def _task_choices(known: str) -> list[Any]:
    """Return the registered tasks, by module; and the one that a row has already, whoever knows it."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(tasks):
        groups.setdefault(name.rpartition(".")[0] or _("others"), []).append((name, name))
    choices: list[Any] = [("", "---------"), *groups.items()]
    if known and known not in tasks:
        close = difflib.get_close_matches(known, tasks, n=1)
        hint = _("unknown to this site, close to %s") % close[0] if close else _("unknown to this site")
        choices.append((known, f"{known} ({hint})"))
    return choices


def _schedule_of(kind: str, values: Mapping[str, Any]) -> schedules.BaseSchedule:
    zone = values.get("zone") or default_zone_name()
    if kind == "interval":
        unit = timedelta(**{values["period"]: 1})
        try:
            return schedules.schedule(values["every"] * unit, relative=bool(values.get("relative")))
        except (OverflowError, ValueError):
            raise ValueError(_("every is %s; allowed: a whole number from 1") % values["every"]) from None
    if kind == "crontab":
        fields: dict[str, Any] = {name: values.get(name) or "*" for name in FIELDS_OF["crontab"]}
        return schedules.crontab(**fields, tz=zone)
    if kind == "cron":
        return schedules.cron(values["line"], tz=zone)
    if kind == "clocked":
        return schedules.clocked(values["clocked_time"])
    return schedules.solar(values["event"], values["latitude"], values["longitude"])


def _field_of(kind: str, error: str) -> str:
    """Return the field of the form that a message is about."""
    names = {"run_every": "every", "lat": "latitude", "lon": "longitude", "tz": "zone", "timezone": "zone"}
    first = error.partition(" ")[0]
    first = names.get(first, first)
    return first if first in (*FIELDS_OF[kind], "zone") else FIELDS_OF[kind][0]


def _values_of(row: PeriodicTask) -> dict[str, Any]:
    """Return what the fields of the schedule show of a row."""
    kind = next((name for name in TIMETABLES if getattr(row, name) is not None), "interval")
    timetable = getattr(row, kind)
    found: dict[str, Any] = {"kind": kind}
    if timetable is not None:
        found |= {name: getattr(timetable, name) for name in FIELDS_OF[kind]}
        found["zone"] = str(getattr(timetable, "timezone", "") or default_zone_name())
    return found
