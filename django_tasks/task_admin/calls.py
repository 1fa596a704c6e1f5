"""What the pages of the to-do list and of the ledger have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template import TemplateDoesNotExist
from django.template.loader import get_template, render_to_string
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, display, extensions, ids, operations, states
from ..display import moment
from ..models import Call, Task, TaskResult
from ..redaction import REDACTED
from ..replica import reads_from
from . import downloads, editing, likeness, logs, relations, timeline, tree
from .acting import ActingAdmin
from .base import Row, badge, breakable, seconds

STATE_HINTS: dict[str, Any] = {
    states.UNROUTABLE: gettext_lazy("No running worker knows this name. The task waits until one does."),
    states.WAITING: gettext_lazy("Waits for other tasks of its workflow."),
    states.RETRY: gettext_lazy("Waits for its next attempt."),
    states.LIMITED: gettext_lazy("A limit or a pause holds it back, or a task that it is to follow."),
}

#: A task's name that may be the name of a template.
_TEMPLATE: Final = re.compile(r"\w[\w.-]{0,199}")


class CallAdmin(ActingAdmin):
    """What the to-do list and the ledger have in common."""

    never_behind = frozenset({"edit"})
    search_fields = ("name",)  # for the search field to appear; django_tasks.search says what it does
    list_display_links = ("task_name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return access.visible(request, super().get_queryset(request))

    @admin.display(description=gettext_lazy("task"))
    def task_name(self, row: Call) -> SafeString:
        return breakable(display.short(row.name))

    @admin.display(description=gettext_lazy("id"))
    def shown_id(self, row: Call) -> SafeString:
        if row.custom_id:
            return format_html('<span class="djt-id">{}</span>', display.short(row.custom_id, 80))
        # The end of a UUIDv7 is its random part: what tells ids of the same moment apart.
        return format_html('<span class="djt-id" title="{}">…{}</span>', row.pk, str(row.pk)[-12:])

    @admin.display(description=gettext_lazy("created"))
    def created(self, row: Call) -> Any:
        return moment(row.created_at)

    @admin.display(description=gettext_lazy("workflow"))
    def workflow(self, row: Call) -> SafeString | str:
        if row.root_id is None:
            return ""
        return self.link("workflow", row.root_id, f"…{str(row.root_id)[-6:]}")

    # An id leads to its task, wherever that is by now

    def get_urls(self) -> list[Any]:
        name = f"django_tasks_{self.opts.model_name}_edit"
        downloads_name = f"django_tasks_{self.opts.model_name}_download"
        view = self.admin_site.admin_view(self.download_view)
        return [
            path("<path:object_id>/edit/", self.admin_site.admin_view(self.edit_view), name=name),
            path("<path:object_id>/download/<str:what>/", view, name=downloads_name),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        term = request.GET.get("q", "").strip() if request.method == "GET" else ""
        if self.has_view_permission(request) and ":" not in term and (found := self._place_of(request, term)):
            return HttpResponseRedirect(self._page_of(*found))
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        asked = unquote(object_id)
        here = self.get_object(request, asked) if self.has_view_permission(request) else None
        if self.has_view_permission(request) and (here is None or str(here.pk) != asked):
            found = self._place_of(request, asked)
            if found and found != (self.opts.model_name, asked):
                return HttpResponseRedirect(self._page_of(*found))
        return super().change_view(request, object_id, form_url, extra_context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        # It is looked for here, and once more by Django.
        key = f"_djt_{self.opts.model_name}_{object_id}"
        if not hasattr(request, key):
            setattr(request, key, super().get_object(request, object_id, from_field))
        return getattr(request, key)

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for other arguments, and send the task with them."""
        return editing.edit_view(self, request, unquote(object_id))

    def download_view(self, request: HttpRequest, object_id: str, what: str) -> HttpResponse:
        """Give the arguments or the result as a file."""
        return downloads.download_view(self, request, unquote(object_id), what)

    def _page_of(self, model: str, key: str) -> str:
        return reverse(f"admin:django_tasks_{model}_change", args=(quote(key),), current_app=self.admin_site.name)

    def _place_of(self, request: HttpRequest, task_id: str) -> tuple[str, str] | None:
        """Return the model and the key under which a task is found by its id, its own or ours; ``None`` if it is
        not, or is not for this person to see."""
        if not 0 < len(task_id) <= 255:
            return None
        key = ids.key_of(task_id)
        for model in sorted((Task, TaskResult), key=lambda one: one is not self.model):  # most often it is here
            rows: Any = model._default_manager.using(reads_from()).filter(pk=key)
            if access.visible(request, rows).exists():
                return str(model._meta.model_name), key
        return None

    # The page of a task

    def detail(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        full = self.sees_payload(request)
        technical: list[Row] = [
            (_("Stored arguments"), _("%(size)s characters") % {"size": f"{len(obj.body):,}"}),
            (_("Encoding"), obj.encoding or "json"),
        ]
        if full:
            hidden = ("argsrepr", "kwargsrepr", operations.RETRY_OF)
            technical += [
                (display.short(key), display.pretty(each))
                for key, each in display.shown_options(obj).items()
                if key not in hidden
            ]
        log = logs.log_of(request, obj, full=full)
        spans = timeline.spans(obj, timezone.now(), full=full)
        children, done = relations.sent_by(request, obj), relations.history(obj)
        return {
            "full": full,
            "state_badge": badge(obj),
            "state_hint": STATE_HINTS.get(obj.state, ""),
            "sent": self._sent(request, obj, full=full),
            "arguments": _arguments(obj, full=full),
            "downloads": downloads.addresses(self, obj) if full else {},
            "links": extensions.links_of(obj, display.options_of(obj)),
            "extras": _extras(request, obj, full=full),
            "redacted": obj.encoding == REDACTED,
            "log": log,
            **self._same_task(request, obj),
            "type_url": self._page_of("tasktype", obj.name)
            if request.user.has_perm("django_tasks.view_tasktype")
            else "",
            "attempts": _tries(obj, log, full=full),
            "technical": technical,
            "moment": moment,
            "timeline": timeline.draw(spans),
            "timeline_rows": timeline.table(spans),
            "workflow_url": self._page_of("workflow", str(obj.root_id or obj.pk)) if children else "",
            "children": [
                (self.link(child.model, child.key, display.short(child.name)), badge(child)) for child in children or ()
            ],
            "children_too_slow": children is None,
            "done": [(moment(entry.action_time), entry.user, entry.change_message) for entry in done or ()],
            "done_too_slow": done is None,
            "buttons": self.buttons(request),
            "edit_url": self.edit_url(obj) if self.may(request, "enqueue_task") and full else "",
            "list_url": reverse(
                f"admin:django_tasks_{self.opts.model_name}_changelist", current_app=self.admin_site.name
            ),
        }

    def _same_task(self, request: HttpRequest, obj: Call) -> dict[str, Any]:
        """Return how the task did lately, and in a day."""
        runs = likeness.last_runs(request, obj)
        return {
            "runs": [
                (self.link("taskresult", run.id, moment(run.finished_at)), badge(run), seconds(run.runtime))
                for run in runs
            ],
            "runs_failed": sum(run.failed for run in runs),
            "runs_drawn": likeness.draw(runs),
            "of_a_day": likeness.of_a_day(request, obj),
        }

    def edit_url(self, obj: Call) -> str:
        """Return the address of the page that asks for other arguments."""
        name = f"admin:django_tasks_{self.opts.model_name}_edit"
        return reverse(name, args=(quote(obj.pk),), current_app=self.admin_site.name)

    def identity(self, request: HttpRequest, obj: Call) -> list[Row]:
        """Return what the call is, and who sent it."""
        options = display.options_of(obj)
        ancestors = relations.ancestors(request, obj)
        original = _uuid(options.get(operations.RETRY_OF))
        group = options.get("group")
        return [
            (_("Task"), obj.name),
            (_("Id"), _copied(obj.id)),
            (_("Own id"), obj.custom_id or ""),
            (_("Queue"), obj.queue),
            (_("Priority"), obj.priority),
            (_("Tags"), ", ".join(map(str, options.get("tags") or ()))),
            (_("Runs again"), self.link("taskresult", original, original) if original else ""),
            (_("Sent by"), self._sender(request, obj, ancestors)),
            (_("Sent from"), display.short(_carried(options, "origin"))),
            (_("Root"), self._ancestor(obj.root_id, ancestors) if obj.root_id != obj.parent_id else ""),
            (_("Workflow"), self.workflow(obj)),
            (_("Group"), self._group_link(group[0]) if isinstance(group, list) and group else ""),
        ]

    def _sent(self, request: HttpRequest, obj: Call, *, full: bool) -> SafeString:
        """Return when a call was made and where to; by whom, and to who may read payloads in which request, if it took
        that along."""
        options = display.options_of(obj)
        user = self._user(request, _carried(options, "user"))
        asked = display.short(_carried(options, "request")) if full else ""  # a path may hold a key to something
        who = format_html("{} ({})", user, asked) if user and asked else user or asked
        if who:
            text = _("Created {when} by {who} → queue {queue}, priority {priority}")
        else:
            text = _("Created {when} → queue {queue}, priority {priority}")
        return format_html(text, when=moment(obj.created_at), who=who, queue=obj.queue, priority=obj.priority)

    def _user(self, request: HttpRequest, told: Any) -> SafeString | str:
        """Return the name of a user, as a link for who may look at users; ``""`` for what is none."""
        if not isinstance(told, dict):
            return ""
        name, key, model, site = display.short(told.get("name", "")), told.get("id"), get_user_model(), self.admin_site
        if not (isinstance(key, str) and key and key.isprintable() and site.is_registered(model)):
            return name
        if not site.get_model_admin(model).has_view_permission(request):
            return name
        view = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
        return format_html('<a href="{}">{}</a>', reverse(view, args=[quote(key)], current_app=site.name), name)

    def _sender(
        self, request: HttpRequest, obj: Call, ancestors: Mapping[UUID, relations.Relative]
    ) -> SafeString | str:
        """Return the task or the periodic task that sent a task; ``""`` if neither did."""
        if obj.parent_id is not None:
            return self._ancestor(obj.parent_id, ancestors)
        run = relations.run_of(obj)
        if run is None:
            return ""
        name = display.short(run.periodic_task.name)
        seen = request.user.has_perm("django_tasks.view_periodictask")
        how = _("periodic task, by hand") if run.by_hand else _("periodic task")
        return format_html("{} ({})", self.link("periodictask", run.periodic_task_id, name) if seen else name, how)

    def _ancestor(self, key: Any, ancestors: Mapping[UUID, relations.Relative]) -> SafeString | str:
        """Return a link to a task by its name; by its key if it is gone, or is not for this person to see."""
        if key is None:
            return ""
        found = ancestors.get(key)
        if found is None:
            return self.link("task", key, key)
        link = self.link(found.model, key, display.short(found.name))
        return format_html('{} <span class="djt-id">{}</span>', link, display.short(found.custom_id or key, 80))

    def _group_link(self, group: Any) -> SafeString:
        url = reverse("admin:django_tasks_taskresult_changelist", current_app=self.admin_site.name)
        return format_html('<a href="{}?{}">{}</a>', url, urlencode({"q": f'group:"{group}"'}), group)


def _arguments(call: Call, *, full: bool) -> list[tuple[str, str, str, SafeString]]:
    """Return the name, the text, the address and the tree of each argument; what leads somewhere has no tree."""
    trees = tree.Trees()
    found = []
    for one in display.arguments(call, full=full):
        url = extensions.object_link(call.name, one.name, one.value.text) if full else ""
        found.append((one.name, one.value.text, url, SafeString("") if url else trees.draw(one.value.data)))
    return found


def _carried(options: Mapping[str, Any], name: str) -> Any:
    """Return what a call took along of where it was made; ``""`` for nothing."""
    context = options.get("context")
    return context.get(name) or "" if isinstance(context, dict) else ""


def _copied(key: Any) -> str:
    """Return an id with a button to copy it."""
    return render_to_string("admin/django_tasks/copied.html", {"text": key})


def _tries(call: Call, log: logs.Log | None, *, full: bool) -> list[tuple[display.Attempt, Any, int, str]]:
    """Return all attempts but one that runs, each with when it ended, how many records its log has and where they are;
    nothing if it was done at the first one."""
    found = display.attempts(call, full=full)
    if found and isinstance(call, TaskResult) and call.started_at is not None:
        error = display.exception_line(call, full=full)
        last = (call.state, call.worker, call.finished_at, call.runtime, error, "")
        found.append(display.Attempt(str(call.attempt), *last))
    said = {str(number): (count, address) for number, count, address in log.attempts} if log is not None else {}
    return [(one, moment(one.at), *said.get(one.number, (0, ""))) for one in found]


def _extras(request: HttpRequest, obj: Call, *, full: bool) -> list[str]:
    """Return what a project's own templates say of a task: one of all tasks, and one of this type."""
    names = ["django_tasks/task_detail_extra.html"]
    if _TEMPLATE.fullmatch(obj.name):
        names.append(f"django_tasks/types/{obj.name}.html")
    found = []
    for name in names:
        try:
            template = get_template(name)
        except TemplateDoesNotExist as error:
            if error.args[0] != name:  # one that it includes
                raise
            continue
        found.append(template.render({"task": obj, "full": full}, request))
    return found


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None
