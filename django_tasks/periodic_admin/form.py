"""The form of a periodic task: the row and its schedule on one page, checked together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final
from zoneinfo import available_timezones

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import client, schedules, task_names, typed_json
from ..models import PERIOD_CHOICES, SOLAR_SCHEDULES, PeriodicTask
from ..periodic.fields import default_zone_name
from ..periodic.rows import TIMETABLES, json_of
from ..redaction import HIDDEN, hidden_call, hide, revealed
from ..registry import tasks
from ..routing import validate_queue
from ..time_limits import validate_limits
from .preview import Plan, Preview, preview_of

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[PeriodicTask]
else:
    ModelForm = forms.ModelForm

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


class PeriodicTaskForm(ModelForm):
    """A row and its schedule together. ``Preview`` checks everything and stores nothing."""

    other_task = forms.CharField(
        label=gettext_lazy("Another name"),
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text=gettext_lazy("Of a task that is not in the list. If one stands here, it counts."),
    )
    kind = forms.ChoiceField(label=gettext_lazy("Runs"), choices=KINDS, widget=forms.RadioSelect, initial="interval")
    every = forms.IntegerField(label=gettext_lazy("Every"), required=False)
    period = forms.ChoiceField(label=gettext_lazy("Period"), choices=PERIOD_CHOICES, required=False, initial="minutes")
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
        help_texts: ClassVar = {
            "args": gettext_lazy("A JSON list."),
            "kwargs": gettext_lazy("A JSON object."),
            "relative": gettext_lazy("At full days, hours, minutes or seconds."),
            "start_time": gettext_lazy("No run before this moment; an interval begins then."),
            "end_time": gettext_lazy("No run after this moment."),
            "one_off": gettext_lazy("Switched off after one run."),
            "max_runs": gettext_lazy("Switched off after so many."),
            "missed": gettext_lazy("What becomes of runs that came while no beat ran."),
            "missed_limit": gettext_lazy("Of the last few: so many."),
            "grace_seconds": gettext_lazy("A run later than this is not made. Empty: 60 to skip, else however late."),
            "overlap": gettext_lazy("What becomes of a run while an earlier one is not done."),
            "jitter": gettext_lazy("A run starts up to so many seconds later, at random."),
            "queue": gettext_lazy("Empty: where the task, or a route, says."),
            "priority": gettext_lazy("−100 to 100; higher runs first. Empty: as the task says."),
            "expires": gettext_lazy("None that was sent starts after this moment."),
            "expire_seconds": gettext_lazy("A run that did not start within so long never does."),
            "time_limit": gettext_lazy("Seconds. Empty: as the task says."),
            "soft_time_limit": gettext_lazy("Seconds. Empty: as the task says."),
            "headers": gettext_lazy("A JSON object."),
            "exchange": gettext_lazy("Names the queue if nothing else does; for the sake of old rows."),
            "routing_key": gettext_lazy("Names the queue if that field does not; for the sake of old rows."),
        }
        widgets: ClassVar = {"description": forms.Textarea(attrs={"rows": 2, "class": "vLargeTextField"})}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.preview: Preview | None = None
        self.timetable: schedules.BaseSchedule | None = None
        zones = [(name, name) for name in sorted(available_timezones())]
        self.fields["zone"].choices = zones  # type: ignore[attr-defined]
        self.fields["zone"].initial = default_zone_name()
        #: The name that nobody knows, of which it is asked whether to keep it; empty: nothing is asked.
        self.asked = ""
        if "task" in self.fields:  # those who may only look have a form without fields of the row
            self._known = task_names.of_workers()
            chosen = {self.instance.task, self.data.get(self.add_prefix("task"), "")}
            names = forms.Select(choices=_task_choices(chosen, self._known))
            # As it stands in the row, blanks and all; whether anybody knows it is checked later.
            self.fields["task"] = forms.CharField(label=_("Task"), strip=False, required=False, widget=names)
            for name in ("args", "kwargs", "headers"):
                self.fields[name].widget.attrs |= {"rows": 3, "class": "vLargeTextField djt-json"}
        #: What is shown of columns in which something is hidden, and what stands there.
        self._hidden: dict[str, tuple[str, str]] = {}
        if self.instance.pk:
            self.initial.update(_values_of(self.instance))
            shown = shown_call(self.instance)
            self._hidden = {name: (text, self.initial[name]) for name, text in shown.items() if name in self.initial}
            self.initial.update(shown)

    def is_valid(self) -> bool:
        """A preview is checked like anything else, and never stored."""
        valid = super().is_valid()
        if valid and "_preview" in self.data:
            self.preview = self.make_preview()
            return False
        return valid

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or self.cleaned_data
        self._check_name(values)
        self._check_call(values)
        self._check_schedule(values)
        return values

    @cached_property
    def changed_data(self) -> list[str]:
        """As the history tells them: it is the task that changes, whichever field names it."""
        return list(dict.fromkeys("task" if name == "other_task" else name for name in super().changed_data))

    def validate_unique(self) -> None:
        # That there is exactly one schedule is for this form to see to; its row may not be stored yet.
        try:
            models.Model.validate_unique(self.instance, exclude=TIMETABLES)
        except ValidationError as error:
            self._update_errors(error)  # type: ignore[attr-defined] # as Django's own does

    def _check_name(self, values: dict[str, Any]) -> None:
        """Take the name that was chosen or written. One that nobody knows is kept if somebody says so, or if it was
        there before."""
        field = "other_task" if values.get("other_task") else "task"
        name = values.get(field) or ""
        if self.errors.keys() & {"task", "other_task"}:
            return
        if not name:
            self.add_error("task", _("This field is required."))
            return
        values["task"] = name
        if name in tasks or name in self._known.workers or name == self.initial.get("task"):
            return
        self.asked = name
        if not self.is_kept:
            told = [_("Neither this site nor a running worker says that it knows %s.") % name]
            if close := task_names.close_to(name, self._known):
                told.append(_("Did you mean %s?") % close)
            self.add_error(field, told)

    @property
    def is_kept(self) -> bool:
        """Was the question answered with yes? It was put for one name only."""
        return bool(self.asked) and self.data.get("keep_unknown") == self.asked

    def _check_call(self, values: dict[str, Any]) -> None:
        parsed: dict[str, Any] = {}
        for name, kind in (("args", list), ("kwargs", dict), ("headers", dict)):
            if name in values:
                given, values[name] = values[name], self._revealed(name, values[name])
                if name != "headers" and values[name] != given and HIDDEN in given and self._is_of_another(values):
                    self.add_error(name, _("What is hidden stays with its task: write it anew for another one."))
                    continue
                try:
                    parsed[name] = typed_json.untag(json_of(name, values[name], kind))
                    values[name] = values[name] or json.dumps(kind())
                except (TypeError, ValueError) as error:
                    self.add_error(name, str(error))
        name = values.get("task") or ""
        task = tasks.get(name)
        if {"args", "kwargs"} <= parsed.keys():
            try:
                if task is not None:
                    task._checked(parsed["args"], parsed["kwargs"])
                client.encode(parsed["args"], parsed["kwargs"], None, None, task, name)
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

    def _is_of_another(self, values: Mapping[str, Any]) -> bool:
        """Is the row to be of another task, which may not hide what the one before does?"""
        before = self.initial.get("task")
        return bool(values.get("task", before) != before)

    def _revealed(self, name: str, text: str | None) -> str | None:
        """Return the text of a column with the stored values where it was left hidden."""
        shown, stored = self._hidden.get(name, ("", ""))
        if not shown or not text:
            return text
        if text.replace("\r\n", "\n") == shown:
            return stored
        try:
            given, before, hidden = json.loads(text), json.loads(stored), json.loads(shown)
        except (ValueError, RecursionError):
            return text  # what is wrong with it is told later
        found = revealed(given, before)
        if type(found) is type(before):
            for at, each in list(enumerate(found) if isinstance(found, list) else found.items()):
                was_there = at < len(hidden) if isinstance(hidden, list) else at in hidden
                if each == HIDDEN and was_there and hidden[at] == HIDDEN:
                    found[at] = before[at]
        return json.dumps(found)

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
        return preview_of(Plan(self.instance, self.timetable), self.timetable)


def shown_call(row: PeriodicTask) -> dict[str, str]:
    """Return the columns of a row in which something is hidden, as they may be shown."""
    try:
        args, kwargs = json_of("args", row.args, list), json_of("kwargs", row.kwargs, dict)
        headers = json_of("headers", row.headers, dict)
    except ValueError:
        return {}
    hidden = hidden_call(row.task, args, kwargs)
    columns = {"args": (args, hidden[0]), "kwargs": (kwargs, hidden[1]), "headers": (headers, hide(headers))}
    return {name: json.dumps(shown) for name, (stored, shown) in columns.items() if shown != stored}


def _task_choices(chosen: Iterable[str], known: task_names.Known) -> list[Any]:
    """Return the registered tasks, by module; what only workers know, by these; and what is chosen already, whoever
    knows it."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(tasks):
        groups.setdefault(name.rpartition(".")[0] or _("others"), []).append((name, name))
    for name in sorted(known.workers.keys() - tasks.keys()):
        label = _("known to workers only: %s") % task_names.shown(known.workers[name])
        groups.setdefault(label, []).append((name, name))
    choices: list[Any] = [("", "---------"), *groups.items()]
    for name in sorted({*chosen} - {"", *tasks, *known.workers}):
        close = task_names.close_to(name, known)
        hint = _("unknown to this site, close to %s") % close if close else _("unknown to this site")
        choices.append((name, f"{name} ({hint})"))
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
