"""The list of periodic tasks and the page of each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten, quote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.timezone import localtime, now
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, display, schedules, task_names
from ..audit import Audited
from ..beat import history, sync
from ..beat.engine import run_now
from ..cockpit import words
from ..cockpit.showing import FORMS, ShowingAdmin
from ..dashboard import database_now
from ..models import Beat, PeriodicRun, PeriodicTask
from ..periodic.rows import TIMETABLES
from ..redaction import hides_some, is_secret
from ..registry import tasks
from .form import PeriodicTaskForm, shown_call
from .preview import preview_of_row, unchecked

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[PeriodicTask]
else:
    ModelAdmin = admin.ModelAdmin

#: Runs that the page of a row has, and that a line of the list has.
SHOWN, IN_LIST = 20, 10
#: Most lost beats that the list tells of.
LOST: Final = 5
#: Columns that are shown to those only who may read payloads.
PAYLOAD: Final = ("args", "kwargs", "headers")
#: How an outcome is drawn; what is none of these is not done yet.
GLYPHS: Final = {"SUCCESS": "✔", "FAILURE": "✖", "REVOKED": "⊘", "": "–"}


class PeriodicTaskAdmin(ShowingAdmin, Audited, ModelAdmin):
    """Periodic tasks: to make, to check, to run by hand, and what became of their runs."""

    never_behind = FORMS
    form = PeriodicTaskForm
    change_form_template = "admin/django_tasks/periodictask/change_form.html"
    change_list_template = "admin/django_tasks/periodictask/change_list.html"
    list_display = ("name", "enabled", "words", "next_run", "last_run", "outcomes", "shown_task", "label")
    list_filter = ("enabled", "origin")
    list_per_page = 50
    list_select_related = TIMETABLES
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    search_fields = ("name", "task", "description")
    actions = ("enable_selected", "disable_selected", "run_selected", "duplicate_selected")
    fieldsets = (
        (None, {"fields": ("name", "enabled", "description")}),
        (gettext_lazy("Task"), {"fields": ("task", "other_task")}),
        (gettext_lazy("Arguments"), {"fields": ("args", "kwargs")}),
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
            },
        ),
        (
            gettext_lazy("Bounds"),
            {"fields": ("start_time", "end_time", ("one_off", "max_runs")), "classes": ("collapse",)},
        ),
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

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None and not self.has_change_permission(request, obj):
            payload = ("shown_args", "shown_kwargs") if request.user.has_perm("django_tasks.view_payload") else ()
            names = ("name", "task", *payload, "words", "enabled", "description", "start_time", "end_time", "one_off")
            return [(None, {"fields": (*names, "max_runs", "missed", "overlap", "queue", "priority")})]
        return [(name, _open_if_used(options, obj)) for name, options in super().get_fieldsets(request, obj)]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and not access.is_read_only(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and not access.is_read_only(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not access.is_read_only(request)

    def has_run_permission(self, request: HttpRequest) -> bool:
        """May this person run a periodic task now?"""
        return request.user.has_perm("django_tasks.run_periodictask") and not access.is_read_only(request)

    def sees_payload(self, request: HttpRequest, obj: Any = None) -> bool:
        """May this person read arguments and headers?"""
        return self.has_change_permission(request, obj) or request.user.has_perm("django_tasks.view_payload")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in {"enabled__exact", "origin__exact"}

    # The list

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found = super().get_changelist_instance(request)
        rows = list(found.result_list)
        latest = history.latest([row.pk for row in rows], IN_LIST)
        full = self.sees_payload(request)
        known = task_names.of_workers() if any(row.task not in tasks for row in rows) else None
        for row in rows:
            row.outcomes = latest.get(row.pk, [])
            row.shown_error = _error_of(row, full)
            row.elsewhere = _elsewhere(row.task, known)
        found.result_list = rows
        return found

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {**beat_context(), **(extra_context or {})})

    @admin.display(description=gettext_lazy("task"), ordering="task")
    def shown_task(self, row: Any) -> SafeString | str:
        sign, told = row.elsewhere
        if not told:
            return display.short(row.task)
        return format_html("{}{} <em>{}</em>", sign, display.short(row.task), told)

    @admin.display(description=gettext_lazy("schedule"))
    def words(self, row: PeriodicTask) -> str:
        return str(row.scheduler.human_readable) if row.scheduler is not None else "–"

    @admin.display(description=gettext_lazy("last run"), ordering="last_run_at")
    def last_run(self, row: PeriodicTask) -> Any:
        if row.last_run_at is None:
            return ""
        ago = timesince(row.last_run_at, depth=1)
        return format_html('<span title="{}">{}</span>', _exact(row.last_run_at), _("%s ago") % ago)

    @admin.display(description=gettext_lazy("next run"), ordering="next_run_at")
    def next_run(self, row: Any) -> Any:
        if row.last_error:
            return format_html('<span class="djt-state djt-failure" title="{}">{}</span>', row.shown_error, _("error"))
        if row.next_run_at is None:
            return ""
        seconds = (row.next_run_at - now()).total_seconds()
        ahead = words.ahead(seconds) if seconds > 0 else _("due")
        return format_html('<span title="{}">{}</span>', _exact(row.next_run_at), ahead)

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
        kind = outcome.run.skipped or outcome.state
        text = kind or _("forgotten")
        sign = GLYPHS.get(outcome.state, "…")
        look = (kind or "forgotten").lower()
        shown = format_html('<span class="djt-run djt-run-{}" title="{}">{}</span>', look, text, sign)
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
        if told := unchecked(obj.task):
            self.message_user(request, told, messages.WARNING)

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
        context["asked"], context["is_kept"] = getattr(form, "asked", ""), getattr(form, "is_kept", False)
        context["may_run"] = self.has_run_permission(request)
        if obj is not None:
            full = self.sees_payload(request, obj)
            if context["preview"] is None and not form.is_bound:
                context["preview"] = preview_of_row(obj, full=full)
            context["last_error"] = _error_of(obj, full)
            context["drift"] = _drift_of(obj, full)
            context["gone_at"] = obj.gone_at
            found = history.outcomes(obj.recent_runs(SHOWN))
            context["runs"] = [
                (display.moment(one.run.scheduled_for), self.glyph(one), self.what_became(one), one.run.by_hand)
                for one in found
            ]
        return super().render_change_form(request, context, add, change, form_url, obj)

    @admin.display(description=gettext_lazy("Arguments"))
    def shown_args(self, row: PeriodicTask) -> str:
        return shown_call(row).get("args", row.args)

    @admin.display(description=gettext_lazy("Keyword arguments"))
    def shown_kwargs(self, row: PeriodicTask) -> str:
        return shown_call(row).get("kwargs", row.kwargs)

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
                # What the error says may quote arguments.
                told = error if self.sees_payload(request, row) else type(error).__name__
                text = _("%(name)s cannot be sent: %(error)s") % {"name": row.name, "error": told}
                self.message_user(request, text, messages.ERROR)
                continue
            self.log_change(request, row, _("Run now as %s") % task_id)
            [outcome] = history.outcomes(PeriodicRun.objects.filter(task_id=task_id, periodic_task=row)[:1])
            text = _("%s is sent:") % row.name
            self.message_user(request, format_html("{} {}", text, self.link(outcome, task_id)), messages.SUCCESS)


def _elsewhere(name: str, known: task_names.Known | None) -> tuple[str, str]:
    """Return what is said of a name that this process does not know, and the sign before it."""
    if name in tasks or known is None:
        return "", ""
    if name in known.workers:
        return "", _("known to workers only")
    return "⚠ ", _("unknown to this site and its workers") if known.certain else _("unknown to this site")


def _error_of(row: PeriodicTask, full: bool) -> str:
    """Return why a row could not be sent; the message may quote arguments, so ``full=False`` leaves it out."""
    return row.last_error if full else row.last_error.partition(":")[0]


def _drift_of(row: PeriodicTask, full: bool) -> dict[str, tuple[Any, Any]]:
    """Return where a row is not what the code declares; ``full=False`` hides the values of what holds payloads, and so
    does what may be secret in them."""

    def shown(name: str, values: tuple[Any, Any]) -> tuple[Any, Any]:
        is_open = name not in PAYLOAD or (full and not hides_some(row.task) and not is_secret(str(values)))
        return values if is_open else (display.HIDDEN, display.HIDDEN)

    return {name: shown(name, values) for name, values in sync.drift(row).items()}


def _exact(moment: datetime) -> str:
    return date_format(localtime(moment), "DATETIME_FORMAT")


def _open_if_used(options: Any, row: PeriodicTask | None) -> Any:
    """Return a fieldset, not folded away if a row says something there."""
    if row is None or "collapse" not in options.get("classes", ()):
        return options
    untouched = PeriodicTask()
    names = flatten(options["fields"])
    used = any(getattr(row, name) not in (None, "", getattr(untouched, name)) for name in names)
    return {**options, "classes": ()} if used else options


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
    moment = database_now()
    beats = history.beats(moment)
    online = [beat for beat, status in beats if status == "online"]
    lost = [beat for beat, status in beats if status == "lost"][:LOST]
    enabled = PeriodicTask.objects.filter(enabled=True)

    def seen(beat: Beat) -> tuple[str, int]:
        return beat.name, round((moment - beat.seen_at).total_seconds())

    return {
        "beats": [seen(beat) for beat in online],
        "lost": [seen(beat) for beat in lost],
        "waiting": 0 if online else enabled.count(),
        "overdue": enabled.filter(next_run_at__lt=moment - timedelta(seconds=60)).count(),
    }
