"""The admin of the to-do list, the ledger and the workers: to read, and to run again, cancel and delete.

Rows are the engine's: nothing here adds or changes one, but for limits, which are people's. Each action is defined once
and appears in the list and on the page of a row; both post to the list, where the permission is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from . import access, changelists, dashboard, display, limits
from .cockpit import site as cockpit
from .cockpit.workers import WorkerOrders
from .conf import settings
from .display import moment
from .models import BulkOperation, Limit, PeriodicTask, Task, TaskResult, Worker
from .periodic_admin import PeriodicTaskAdmin
from .task_admin.base import ReadOnlyAdmin, Row, seconds
from .task_admin.bulk import BulkOperationAdmin
from .task_admin.ledger import TaskResultAdmin
from .task_admin.todo import TaskAdmin

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


class WorkerAdmin(WorkerOrders, ReadOnlyAdmin):
    """Who is at work."""

    list_display = (
        *("name", "status", "hostname", "shown_pid", "pool", "concurrency", "queues", "processed", "heartbeat"),
    )
    list_filter = (changelists.WorkerFilter,)
    filters = frozenset({"status"})
    changelist_class = changelists.WorkerChangeList

    @admin.display(description=gettext_lazy("status"))
    def status(self, row: Any) -> SafeString:
        return format_html('<span class="djt-state djt-{0}">{0}</span>', row.shown_status)

    @admin.display(description=gettext_lazy("process id"))
    def shown_pid(self, row: Worker) -> str:
        return str(row.pid)  # no amount: in no language it has separators

    @admin.display(description=gettext_lazy("last heartbeat"))
    def heartbeat(self, row: Worker) -> Any:
        return moment(row.beat_at)

    def detail(self, request: HttpRequest, obj: Worker) -> dict[str, Any]:
        status = obj.status(dashboard.database_now())
        tasks = Task.objects.using(settings.DATABASE).of_worker(obj.pk).only("name", "custom_id")
        sees = request.user.has_perm("django_tasks.view_task")
        held = access.visible(request, tasks)[: self.list_per_page] if sees else []
        about: list[Row] = [
            (_("Name"), obj.name),
            (_("Host"), obj.hostname),
            (_("Process id"), str(obj.pid)),
            (_("Pool"), f"{obj.pool}, {obj.concurrency}"),
            (_("Queues"), obj.queues),
            (_("Version"), obj.version),
        ]
        times: list[Row] = [
            (_("Started"), moment(obj.started_at)),
            (_("Last heartbeat"), moment(obj.beat_at)),
            (_("Lease"), seconds(obj.lease)),
            (_("Stopped"), moment(obj.stopped_at)),
            (_("Lost"), moment(obj.lost_at)),
            (_("Tasks run"), f"{obj.processed:,}"),
        ]
        holds: list[Row] = [(display.short(task.name), self.link("task", task.pk, task.task_id)) for task in held]
        sections = [(_("Worker"), about), (_("Times"), times)]
        return {
            "state_badge": format_html('<span class="djt-state djt-{0}">{0}</span>', status),
            "buttons": self.order_buttons(request, obj, status),
            "sections": [*sections, (_("Has taken"), holds)] if holds else sections,
        }


class LimitAdmin(ModelAdmin):
    """What may start: rows are people's to change, and workers obey within about a second."""

    list_display = ("name", "kind", "rate", "concurrency", "per_key", "fair", "overridden", "paused", "pause_reason")
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
    readonly_fields = ("overridden", "declared", "paused_at", "paused_until", "paused_by", "pause_reason")

    class Media:
        css: ClassVar = {"all": ("django_tasks/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(settings.DATABASE)

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

    @admin.display(description=gettext_lazy("paused"), boolean=True)
    def paused(self, row: Any) -> bool:
        return bool(row.is_paused(timezone.now()))

    @admin.action(permissions=["pause"], description=gettext_lazy("Pause selected queues and tasks"))
    def pause_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        rows = list(queryset)
        for row in rows:
            limits.pause(row.kind, row.name, by=request.user.get_username())
            self.log_change(request, row, "Paused.")
        self.message_user(request, _("%(count)s paused.") % {"count": len(rows)}, messages.SUCCESS)

    @admin.action(permissions=["pause"], description=gettext_lazy("Resume selected queues and tasks"))
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        count = 0
        for row in list(queryset):
            if limits.resume(row.kind, row.name):
                count += 1
                self.log_change(request, row, "Resumed.")
        self.message_user(request, _("%(count)s resumed.") % {"count": count}, messages.SUCCESS)


def register_all(site: admin.AdminSite) -> None:
    """Register the models on ``site``; on the default site that is done already."""
    site.register(Task, TaskAdmin)
    site.register(TaskResult, TaskResultAdmin)
    site.register(Worker, WorkerAdmin)
    site.register(PeriodicTask, PeriodicTaskAdmin)
    site.register(Limit, LimitAdmin)
    site.register(BulkOperation, BulkOperationAdmin)
    cockpit.register(site)


register_all(admin.site)
