"""The pages of the to-do list."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, changelists, dashboard, display, ids, states
from ..cockpit.pages import live_answer, new_fragment, render_fragment
from ..display import moment
from ..models import Task, TaskResult
from ..replica import reads_from
from ..search import help_text
from . import logs, timeline
from .base import Row, badge, seconds
from .calls import STATE_HINTS
from .columns import ListedCallAdmin


class TaskAdmin(ListedCallAdmin):
    """The to-do list."""

    search_help_text = help_text(Task)
    list_display = (
        "task_name",
        "shown_state",
        "queue",
        "arguments",
        "created",
        "due",
        "wait",
        "run",
        "tries",
        "worker",
        "priority",
        "workflow",
        "shown_id",
    )
    list_filter = (
        changelists.TaskStateFilter,
        changelists.QueueFilter,
        changelists.NameFilter,
        *changelists.CALL_FILTERS,
    )
    filters = frozenset({"state", "queue", "name", "worker", "run", "retried", "is", "prio", "tag"})
    changelist_class = changelists.TaskChangeList

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.live_view)
        return [path("<path:object_id>/live/", view, name="django_tasks_task_live"), *super().get_urls()]

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, row: Task) -> SafeString:
        return badge(row)

    @admin.display(description=gettext_lazy("due"))
    def due(self, row: Task) -> Any:
        return moment(row.due_at)

    @admin.display(description=gettext_lazy("run time"))
    def run(self, row: Any) -> str:
        if row.state != states.STARTED or row.started_at is None:
            return ""
        return seconds(max(0.0, (row.seen_at - row.started_at).total_seconds()))

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
            "sections": [(_("Call"), self.identity(request, obj)), (_("Times"), times), (_("Delivery"), delivery)],
            "progress": display.progress(obj, full=context["full"]),
            "live_url": f"../live/?{request.GET.urlencode()}",
        }

    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the part of a page that changes while the task waits or runs; also when it is done meanwhile."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        row: Task | TaskResult | None = self.get_object(request, object_id)
        done_url = ""
        if row is None:
            ended: Any = TaskResult.objects.using(reads_from()).filter(pk=ids.key_of(object_id))
            row = access.visible(request, ended).first()
            if row is None:
                raise Http404
            if not request.user.has_perm("django_tasks.view_taskresult"):
                raise PermissionDenied  # as its page is to this person
            done_url = reverse("admin:django_tasks_taskresult_change", args=[row.pk], current_app=self.admin_site.name)
        full = self.sees_payload(request)
        spans = timeline.spans(row, timezone.now(), full=full)
        context = {
            "state_badge": badge(row),
            "state_hint": STATE_HINTS.get(row.state, ""),
            "done_url": done_url,
            "timeline": timeline.draw(spans),
            "timeline_rows": timeline.table(spans),
            "progress": display.progress(row, full=full) if isinstance(row, Task) else None,
            "log": logs.log_of(request, row, full=full),
            "live_url": request.get_full_path(),
        }
        html = render_fragment("detail_now.html", request, context, self.admin_site.name)
        return live_answer(request, new_fragment(html))
