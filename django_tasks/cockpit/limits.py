"""The pages of limits: what may start, what they let through and hold back, and pause and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, dashboard, limits, paging, rates
from ..audit import Audited
from ..conf import settings
from ..display import moment
from ..replica import reads_from
from . import overview, words
from .pausing import PauseForm
from .showing import FORMS, ShowingAdmin

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

#: Seconds for which a page waits until all is counted that limits let through and hold back.
PATIENCE: Final = 0.5


class LimitAdmin(ShowingAdmin, Audited, ModelAdmin):
    """What may start: rows are people's to change, and workers obey within about a second."""

    never_behind = FORMS
    change_list_template = "admin/django_tasks/change_list.html"
    change_form_template = "admin/django_tasks/change_form.html"
    list_display = (
        *("name", "kind", "rate", "effective", "concurrency", "per_key", "fair", "overridden"),
        *("let_through", "held_back", "next_start", "paused", "paused_until", "pause_reason"),
    )
    list_filter = ("kind",)
    search_fields = ("name",)
    actions = ("pause_selected", "resume_selected")
    fields = (
        ("kind", "name"),
        ("rate", "per_worker"),
        "concurrency",
        ("per_key", "fair"),
        "overridden",
        "declared",
        ("paused_at", "paused_until"),
        ("paused_by", "pause_reason"),
    )
    #: What the page of one says of the moment, beside its fields.
    at_present: ClassVar = ("let_through", "held_back", "next_start", "effective")
    readonly_fields = (
        *("overridden", "declared", "paused_at", "paused_until", "paused_by", "pause_reason"),
        *at_present,
    )

    class Media:
        css: ClassVar = {"all": ("django_tasks/admin.css",)}

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if obj is None else (*self.fields, self.at_present)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Another name would be another limit, and the first one stay declared.
        return self.readonly_fields if obj is None else (*self.readonly_fields, "kind", "name")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and not access.is_read_only(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and not access.is_read_only(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # What the code declares comes back with the next worker that starts.
        stays = access.is_read_only(request) or (obj is not None and obj.declared)
        return super().has_delete_permission(request, obj) and not stays

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """May this person pause and resume?"""
        return request.user.has_perm("django_tasks.pause_limit") and not access.is_read_only(request)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        values = {name: getattr(obj, name) for name in limits.NOTHING}
        saved = limits.change(obj.kind, obj.name, **values)
        obj.pk, obj._state.db = saved.pk, settings.DATABASE

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        obj.delete(using=settings.DATABASE)

    # What they do at the moment

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found = super().get_changelist_instance(request)
        found.result_list = _looked_at(list(found.result_list))
        return found

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        found = super().get_object(request, object_id, from_field)
        return found if found is None else _looked_at([found])[0]

    @admin.display(description=gettext_lazy("effective rate"))
    def effective(self, row: Any) -> str:
        try:
            per_second = rates.parse(row.rate) or 0.0
        except ValueError:  # written into the table by hand; workers take it for none
            return ""
        unit = row.rate.partition("/")[2].strip() or "s"
        number = per_second * rates.UNITS[unit] * (max(1, row.workers) if row.per_worker else 1)
        return f"{number:g}/{unit}" if number else ""

    @admin.display(description=gettext_lazy("let through"))
    def let_through(self, row: Any) -> str:
        return _("too slow") if row.use is None else words.amount(row.use.running)

    @admin.display(description=gettext_lazy("held back"))
    def held_back(self, row: Any) -> str:
        return _("too slow") if row.use is None else words.amount(row.use.waiting)

    @admin.display(description=gettext_lazy("next start"))
    def next_start(self, row: Any) -> Any:
        if not row.rate or row.per_key:
            return ""
        return moment(row.next_start) if row.next_start is not None else _("at once")

    @admin.display(description=gettext_lazy("paused"), boolean=True)
    def paused(self, row: Any) -> bool:
        return bool(row.is_paused(row.now))

    # Actions

    @admin.action(permissions=["pause"], description=gettext_lazy("Pause selected queues and tasks"))
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Ask why and for how long, and pause them."""
        rows = list(queryset)
        form = PauseForm(request.POST if request.POST.get("post") else None)
        if not form.is_valid():
            context = {
                **self.admin_site.each_context(request),
                "title": _("Pause selected queues and tasks"),
                "form": form,
                "chosen": rows,
                "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
                "opts": self.opts,
                "media": self.media,
            }
            request.current_app = self.admin_site.name
            return TemplateResponse(request, "admin/django_tasks/limit_confirm.html", context)
        for row in rows:
            self.log_change(request, row, form.pause(request, row.kind, row.name))
        self.message_user(request, _("%(count)s paused.") % {"count": len(rows)}, messages.SUCCESS)
        overview.forget()
        return None

    @admin.action(permissions=["pause"], description=gettext_lazy("Resume selected queues and tasks"))
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """End the pauses of those that have one."""
        resumed = [row for row in queryset if limits.resume(row.kind, row.name)]
        for row in resumed:
            self.log_change(request, row, _("Resumed."))
        self.message_user(request, _("%(count)s resumed.") % {"count": len(resumed)}, messages.SUCCESS)
        overview.forget()


def _looked_at(rows: list[Any]) -> list[Any]:
    """Return these limits with what they do at the moment; four queries."""
    now = dashboard.database_now()
    online = sum(worker.status(now) == "online" for worker in dashboard.current_workers())
    starts = {key: start for key, start in limits.next_starts().items() if start > now}
    try:
        with paging.time_limit(reads_from(), PATIENCE):
            uses = limits.uses()
    except paging.TooSlow:
        uses = None
    for row in rows:
        key = (row.kind, row.name)
        row.now, row.workers, row.next_start = now, online, starts.get(key)
        row.use = None if uses is None else uses.get(key, limits.Use(0, 0))
    return rows
