"""The admin of the to-do list, the ledger and the workers: to read, and to run again, cancel and delete.

Rows are the engine's: nothing here adds or changes one, but for limits, which are people's. Each action is defined once
and appears in the list and on the page of a row; both post to the list, where the permission is checked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.utils import quote, unquote
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from . import changelists, dashboard, display, ids, limits, operations, states
from .cockpit import site as cockpit
from .conf import settings
from .display import moment
from .models import Call, Limit, PeriodicTask, Task, TaskResult, Worker
from .periodic_admin import PeriodicTaskAdmin

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

logger = logging.getLogger("django_tasks.admin")

#: Tasks that one action may take at a time; more are for ``manage.py tasks``.
MOST = 1_000

#: A label, and what to show beside it; "" shows nothing.
Row = tuple[Any, Any]

_STATE_HINTS: Mapping[str, Any] = {
    states.UNROUTABLE: gettext_lazy("No running worker knows this name. The task waits until one does."),
    states.WAITING: gettext_lazy("Waits for other tasks of its workflow."),
    states.RETRY: gettext_lazy("Waits for its next attempt."),
    states.LIMITED: gettext_lazy("A limit or a pause holds it back, or a task that it is to follow."),
}


class ReadOnlyAdmin(ModelAdmin):
    """Shows rows of the database that holds the tasks, quickly and to be read only."""

    change_form_template = "admin/django_tasks/detail.html"
    list_per_page = 100
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    fields = ()
    #: The names that an address may filter by. Any other look-up would let people search what they may not see.
    filters: ClassVar[frozenset[str]] = frozenset()
    changelist_class: type[changelists.PagedChangeList] = changelists.PagedChangeList

    class Media:
        css: ClassVar = {"all": ("django_tasks/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(settings.DATABASE)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[changelists.PagedChangeList]:
        return self.changelist_class

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return queryset, False  # the list itself knows how to search

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.filters

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def sees_payload(self, request: HttpRequest) -> bool:
        """May this person read arguments, results and what errors say? Else types and sizes."""
        return request.user.has_perm("django_tasks.view_payload")

    # Pages

    def response_action(  # type: ignore[override] # Django 5.2 has no action_location
        self, request: HttpRequest, queryset: QuerySet[Any], **location: Any
    ) -> HttpResponse | None:
        chosen = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        if request.POST.get("select_across") == "1" or len(chosen) > MOST:
            text = _("An action takes %(most)s rows at most. For more, use: manage.py tasks")
            self.message_user(request, text % {"most": f"{MOST:,}"}, messages.ERROR)
            return None
        return super().response_action(request, queryset, **location)

    def render_change_form(
        self,
        request: HttpRequest,
        context: Any,
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> Any:
        context.update(self.detail(request, obj))
        return super().render_change_form(request, context, add, change, form_url, obj)

    def detail(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return what the page of a row shows."""
        raise NotImplementedError

    def link(self, model: str, pk: Any, text: Any) -> SafeString:
        """Return a link to the page of a row."""
        url = reverse(f"admin:django_tasks_{model}_change", args=(quote(pk),), current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, text)


class CallAdmin(ReadOnlyAdmin):
    """What the to-do list and the ledger have in common."""

    search_fields = ("name",)  # for the search field to appear; changelists say what it does
    search_help_text = gettext_lazy("The id of a task, the beginning of its name, or tag: and a tag")
    list_display_links = ("task_name",)

    @admin.display(description=gettext_lazy("task"))
    def task_name(self, row: Call) -> str:
        return display.short(row.name)

    @admin.display(description=gettext_lazy("id"))
    def shown_id(self, row: Call) -> SafeString:
        if row.custom_id:
            return format_html('<span class="djt-id">{}</span>', display.short(row.custom_id, 80))
        # The end of a UUIDv7 is its random part: what tells ids of the same moment apart.
        return format_html('<span class="djt-id" title="{}">…{}</span>', row.pk, str(row.pk)[-12:])

    @admin.display(description=gettext_lazy("created"))
    def created(self, row: Call) -> Any:
        return moment(row.created_at)

    # An id leads to its task, wherever that is by now

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        term = request.GET.get("q", "").strip() if request.method == "GET" else ""
        if self.has_view_permission(request) and (found := _place_of(term)):
            return HttpResponseRedirect(self._page_of(*found))
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        asked = unquote(object_id)
        found = _place_of(asked) if self.has_view_permission(request) else None
        if found and found != (self.opts.model_name, asked):
            return HttpResponseRedirect(self._page_of(*found))
        return super().change_view(request, object_id, form_url, extra_context)

    def _page_of(self, model: str, key: str) -> str:
        return reverse(f"admin:django_tasks_{model}_change", args=(quote(key),), current_app=self.admin_site.name)

    # The page of a task

    def detail(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        full = self.sees_payload(request)
        options = display.options_of(obj)
        technical: list[Row] = [
            (_("Stored arguments"), _("%(size)s characters") % {"size": f"{len(obj.body):,}"}),
            (_("Encoding"), obj.encoding or "json"),
        ]
        if full:
            hidden = ("argsrepr", "kwargsrepr", operations.RETRY_OF)
            technical += [
                (display.short(key), display.pretty(each)) for key, each in options.items() if key not in hidden
            ]
        return {
            "full": full,
            "state_badge": badge(obj),
            "state_hint": _STATE_HINTS.get(obj.state, ""),
            "arguments": display.arguments(obj, full=full),
            "attempts": display.attempts(obj, full=full),
            "technical": technical,
            "moment": moment,
        }

    def identity(self, obj: Call) -> list[Row]:
        """Return what the call is."""
        original = _uuid(display.options_of(obj).get(operations.RETRY_OF))
        return [
            (_("Task"), obj.name),
            (_("Id"), obj.id),
            (_("Own id"), obj.custom_id or ""),
            (_("Queue"), obj.queue),
            (_("Priority"), obj.priority),
            (_("Runs again"), self.link("taskresult", original, original) if original else ""),
            (_("Sent by"), self.link("task", obj.parent_id, obj.parent_id) if obj.parent_id else ""),
            (_("Root"), self.link("task", obj.root_id, obj.root_id) if obj.root_id else ""),
        ]

    def confirm(
        self, request: HttpRequest, queryset: QuerySet[Any], *, action: str, title: str, text: str, button: str
    ) -> TemplateResponse:
        """Return the page that says what an action would do, and asks."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "text": text,
            "button": button,
            "action": action,
            "chosen": list(queryset),
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "opts": self.opts,
            "media": self.media,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/django_tasks/confirm.html", context)

    def audit(self, request: HttpRequest, rows: Iterable[Model], sentences: Mapping[str, str]) -> None:
        """Write into the history of each row, and into the log, what this person did."""
        for row in rows:
            sentence = sentences.get(str(row.pk))
            if sentence is not None:
                self.log_change(request, row, sentence)
                logger.info("%s %s by %s", row.pk, sentence, request.user.get_username())


class TaskAdmin(CallAdmin):
    """The to-do list."""

    list_display = ("task_name", "shown_id", "shown_state", "queue", "priority", "created", "due", "attempt", "worker")
    list_filter = (changelists.TaskStateFilter, changelists.QueueFilter, changelists.NameFilter)
    filters = frozenset({"state", "queue", "name"})
    changelist_class = changelists.TaskChangeList
    actions = ("revoke_selected",)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """May this person revoke tasks?"""
        return request.user.has_perm("django_tasks.cancel_task")

    @admin.display(description=gettext_lazy("state"))
    def shown_state(self, row: Task) -> SafeString:
        return badge(row)

    @admin.display(description=gettext_lazy("due"))
    def due(self, row: Task) -> Any:
        return moment(row.due_at)

    @admin.display(description=gettext_lazy("worker"))
    def worker(self, row: Any) -> str:
        return display.short(row.worker_name)

    @admin.action(permissions=["cancel"], description=gettext_lazy("Cancel selected tasks"))
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Task]) -> HttpResponse | None:
        """Revoke: what waits will never run, what runs is asked to stop."""
        if not request.POST.get("post"):
            return self.confirm(
                request,
                queryset,
                action="revoke_selected",
                title=_("Cancel tasks"),
                text=_("What waits will never run. What runs already is asked to stop, and may go on all the same."),
                button=_("Yes, cancel them"),
            )
        rows = list(queryset)
        done = operations.revoke([str(row.pk) for row in rows])
        said = dict.fromkeys(done.cancelled, _("Cancelled")) | dict.fromkeys(done.asked, _("Asked to stop"))
        self.audit(request, rows, said)
        self._tell(request, len(done.cancelled), _("Cancelled: %s."))
        self._tell(request, len(done.asked), _("Running, and asked to stop: %s."))
        self._tell(request, len(rows) - len(said), _("Left alone, because done before: %s."), messages.WARNING)
        return None

    def _tell(self, request: HttpRequest, count: int, text: str, level: int = messages.SUCCESS) -> None:
        if count:
            self.message_user(request, text % f"{count:,}", level)

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
            "progress": _progress(obj, full=context["full"]),
            "buttons": [("revoke_selected", _("Cancel"))] if self.has_cancel_permission(request) else [],
        }


class TaskResultAdmin(CallAdmin):
    """The ledger."""

    list_display = ("task_name", "shown_id", "shown_state", "queue", "finished", "run_time", "attempt", "shown_worker")
    list_filter = (
        changelists.ResultStateFilter,
        changelists.FinishedFilter,
        changelists.QueueFilter,
        changelists.NameFilter,
    )
    filters = frozenset({"state", "queue", "name", "finished"})
    changelist_class = changelists.ResultChangeList
    actions = ("retry_selected",)

    def get_list_display(self, request: HttpRequest) -> Any:
        error = "error" if self.sees_payload(request) else "error_class"
        return (*self.list_display, error)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("django_tasks.delete_taskresult")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """May this person run finished tasks again?"""
        return request.user.has_perm("django_tasks.retry_taskresult")

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
    def error(self, row: TaskResult) -> str:
        return display.exception_line(row, full=True)

    @admin.display(description=gettext_lazy("exception"))
    def error_class(self, row: TaskResult) -> str:
        return display.exception_line(row, full=False)

    @admin.action(permissions=["retry"], description=gettext_lazy("Run selected tasks again"))
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[TaskResult]) -> HttpResponse | None:
        """Send copies of finished tasks, with the same stored arguments."""
        if not request.POST.get("post"):
            return self.confirm(
                request,
                queryset,
                action="retry_selected",
                title=_("Run again"),
                text=_(
                    "Each is sent once more, as a new task with the same arguments: what it did before, it does again."
                ),
                button=_("Yes, run them again"),
            )
        rows = list(queryset)
        done = operations.retry([str(row.pk) for row in rows])
        self.audit(request, rows, {pk: _("Run again as %s") % copy for pk, copy in done.copies.items()})
        if done.copies:
            first = next(iter(done.copies.values()))
            text = _("Sent again: %s. The first is") % f"{len(done.copies):,}"
            self.message_user(request, format_html("{} {}", text, self.link("task", first, first)), messages.SUCCESS)
        if left := len(rows) - len(done.copies):
            text = _("Left alone, because a copy is not done yet, or deleted meanwhile: %s.") % f"{left:,}"
            self.message_user(request, text, messages.WARNING)
        return None

    def detail(self, request: HttpRequest, obj: TaskResult) -> dict[str, Any]:
        context = super().detail(request, obj)
        full = context["full"]
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
            "sections": [(_("Call"), self.identity(obj)), (_("Times"), times), (_("Delivery"), delivery)],
            "exception": display.exception_line(obj, full=full),
            "outcome": display.outcome(obj, full=full),
            "traceback": display.cut(obj.traceback or "") if full else "",
            "buttons": [("retry_selected", _("Run again"))] if self.has_retry_permission(request) else [],
        }

    def copy_link(self, copy: operations.Copy) -> SafeString:
        """Return a link to a copy, and its state."""
        model = "taskresult" if copy.finished else "task"
        return format_html("{} ({})", self.link(model, copy.id, copy.id), copy.state)


class WorkerAdmin(ReadOnlyAdmin):
    """Who is at work."""

    list_display = ("name", "status", "hostname", "pid", "pool", "concurrency", "queues", "processed", "heartbeat")
    list_filter = (changelists.WorkerFilter,)
    filters = frozenset({"status"})
    changelist_class = changelists.WorkerChangeList

    @admin.display(description=gettext_lazy("status"))
    def status(self, row: Any) -> SafeString:
        return format_html('<span class="djt-state djt-{0}">{0}</span>', row.shown_status)

    @admin.display(description=gettext_lazy("last heartbeat"))
    def heartbeat(self, row: Worker) -> Any:
        return moment(row.beat_at)

    def detail(self, request: HttpRequest, obj: Worker) -> dict[str, Any]:
        status = obj.status(dashboard.database_now())
        held = Task.objects.using(settings.DATABASE).of_worker(obj.pk).only("name", "custom_id")[: self.list_per_page]
        about: list[Row] = [
            (_("Name"), obj.name),
            (_("Host"), obj.hostname),
            (_("Process id"), obj.pid),
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

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(settings.DATABASE)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # Another name would be another limit, and the first one stay declared.
        return self.readonly_fields if obj is None else (*self.readonly_fields, "kind", "name")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # What the code declares comes back with the next worker that starts.
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.declared)

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """May this person pause and resume?"""
        return request.user.has_perm("django_tasks.pause_limit")

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
    cockpit.register(site)


register_all(admin.site)


# Values on pages -----------------------------------------------------------------------------------------------------


def badge(call: Any) -> SafeString:
    """Return a state as people are told it, coloured if it is one of ours."""
    shown = getattr(call, "shown_state", call.state)
    known = call.state.lower() if call.state in states.UNFINISHED | states.FINISHED else "other"
    return format_html('<span class="djt-state djt-{}">{}</span>', known, display.short(shown, 64))


def seconds(duration: float | None) -> str:
    """Return a duration to three digits, as ``0.25 s`` or ``3.1 ms``; ``""`` for none."""
    if duration is None:
        return ""
    if 0 < duration < 0.1:
        return f"{duration * 1_000:.3g} ms"
    return f"{duration:.3g} s" if duration < 100 else f"{duration:,.0f} s"


def _progress(task: Task, *, full: bool) -> dict[str, Any] | None:
    """Return what a running task told of itself."""
    if not task.meta:
        return None
    try:
        told = display.decode(task.meta, "")
    except display.Unreadable as reason:
        return {"text": str(reason)}
    progress = {"text": display.pretty(told) if full else display.describe(told)}
    if isinstance(told, dict):
        current, total = told.get("current"), told.get("total")
        if isinstance(current, int | float) and isinstance(total, int | float) and 0 <= current <= total and total:
            progress |= {"value": f"{current:.6f}", "max": f"{total:.6f}"}
    return progress


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _place_of(task_id: str) -> tuple[str, str] | None:
    """Return the model and the key under which a task is found by its id, its own or ours; ``None`` if it is not."""
    if not 0 < len(task_id) <= 255:
        return None
    key = ids.key_of(task_id)
    places = {
        "task": Task.objects.using(settings.DATABASE).filter(pk=key).exists,
        "taskresult": TaskResult.objects.using(settings.DATABASE).filter(pk=key).exists,
    }
    return next(((model, key) for model, exists in places.items() if exists()), None)
