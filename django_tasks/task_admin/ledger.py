"""The pages of the ledger."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import changelists, display, operations
from ..display import moment
from ..models import TaskResult
from ..search import help_text
from . import failing, tree
from .base import Row, badge, line, seconds
from .columns import ListedCallAdmin


class TaskResultAdmin(ListedCallAdmin):
    """The ledger."""

    search_help_text = help_text(TaskResult)
    list_display = (
        "task_name",
        "shown_state",
        "queue",
        "arguments",
        "finished",
        "wait",
        "run_time",
        "tries",
        "shown_worker",
        "workflow",
        "shown_id",
    )
    list_filter = (
        changelists.ResultStateFilter,
        changelists.FinishedFilter,
        changelists.QueueFilter,
        changelists.NameFilter,
        changelists.ExceptionFilter,
        *changelists.CALL_FILTERS,
    )
    filters = frozenset({"state", "queue", "name", "finished", "exc", "worker", "run", "retried", "is", "prio", "tag"})
    changelist_class = changelists.ResultChangeList

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.failures_view)
        return [path("failures/", view, name="django_tasks_taskresult_failures"), *super().get_urls()]

    def failures_view(self, request: HttpRequest) -> HttpResponse:
        """Show failures by task and exception."""
        return failing.failures_view(self, request)

    def all_columns(self, request: HttpRequest) -> Any:
        error = "error" if self.sees_payload(request) else "error_class"
        task, state, *others = super().all_columns(request)
        return (task, state, error, *others)

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, row: TaskResult) -> SafeString:
        return badge(row)

    @admin.display(description=gettext_lazy("finished"))
    def finished(self, row: TaskResult) -> Any:
        return moment(row.finished_at)

    @admin.display(description=gettext_lazy("run time"))
    def run_time(self, row: TaskResult) -> str:
        return seconds(row.runtime)

    @admin.display(description=gettext_lazy("worker"))
    def shown_worker(self, row: TaskResult) -> str:
        return display.short(row.worker)

    @admin.display(description=gettext_lazy("exception"))
    def error(self, row: TaskResult) -> SafeString | str:
        return line(display.exception_line(row, full=True))

    @admin.display(description=gettext_lazy("exception"))
    def error_class(self, row: TaskResult) -> SafeString | str:
        return line(display.exception_line(row, full=False))

    def detail(self, request: HttpRequest, obj: TaskResult) -> dict[str, Any]:
        context = super().detail(request, obj)
        full = context["full"]
        outcome = display.outcome(obj, full=full)
        waited = (obj.started_at - obj.due_at).total_seconds() if obj.started_at else None
        times: list[Row] = [
            (_("Created"), moment(obj.created_at)),
            (_("Due"), moment(obj.due_at)),
            (_("Started"), moment(obj.started_at)),
            (_("Finished"), moment(obj.finished_at)),
            (_("Waited"), seconds(None if waited is None else max(0.0, waited))),
            (_("Run time"), seconds(obj.runtime)),
            (_("Expires"), moment(obj.expires_at)),
        ]
        delivery: list[Row] = [
            (_("Worker"), obj.worker),
            (_("Attempt"), obj.attempt),
            (_("Retries"), obj.retries),
            *((_("Run again as"), self.copy_link(copy)) for copy in operations.copies_of(obj)),
        ]
        return {
            **context,
            "sections": [(_("Call"), self.identity(request, obj)), (_("Times"), times), (_("Delivery"), delivery)],
            "exception": display.exception_line(obj, full=full),
            "outcome": outcome.text,
            "outcome_tree": tree.Trees().draw(outcome.data),
            "traceback": display.cut(obj.traceback or "") if full else "",
        }

    def copy_link(self, copy: operations.Copy) -> SafeString:
        """Return a link to a copy, and its state."""
        model = "taskresult" if copy.finished else "task"
        return format_html("{} ({})", self.link(model, copy.id, copy.id), copy.state)
