"""The pages of the to-do list."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import actions, changelists, dashboard, display
from ..display import moment
from ..models import Task
from .acting import as_admin_action
from .base import Row, badge
from .calls import CallAdmin


class TaskAdmin(CallAdmin):
    """The to-do list."""

    list_display = ("task_name", "shown_id", "shown_state", "queue", "priority", "created", "due", "attempt", "worker")
    list_filter = (changelists.TaskStateFilter, changelists.QueueFilter, changelists.NameFilter)
    filters = frozenset({"state", "queue", "name"})
    changelist_class = changelists.TaskChangeList
    actions = tuple(as_admin_action(one) for one in actions.ACTIONS if one.model is Task)

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, row: Task) -> SafeString:
        return badge(row)

    @admin.display(description=gettext_lazy("due"))
    def due(self, row: Task) -> Any:
        return moment(row.due_at)

    @admin.display(description=gettext_lazy("worker"))
    def worker(self, row: Any) -> str:
        return display.short(row.worker_name)

    def detail(self, request: HttpRequest, obj: Task) -> dict[str, Any]:
        context = super().detail(request, obj)
        name = dashboard.worker_names([obj.worker_id]).get(obj.worker_id, "") if obj.worker_id else ""
        times: list[Row] = [
            (_("Created"), moment(obj.created_at)),
            (_("Due"), moment(obj.due_at)),
            (_("Expires"), moment(obj.expires_at)),
            (_("Started"), moment(obj.started_at)),
            (_("Asked to stop"), moment(obj.revoked_at)),
        ]
        delivery: list[Row] = [
            (_("Worker"), self.link("worker", obj.worker_id, name or obj.worker_id) if obj.worker_id else ""),
            (_("Attempt"), obj.attempt),
            (_("Retries"), obj.retries),
            (_("Workers lost"), obj.losses),
            (_("At most once"), _("yes") if obj.at_most_once else ""),
        ]
        return {
            **context,
            "sections": [(_("Call"), self.identity(obj)), (_("Times"), times), (_("Delivery"), delivery)],
            "progress": display.progress(obj, full=context["full"]),
        }
