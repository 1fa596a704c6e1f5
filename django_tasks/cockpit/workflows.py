"""The pages of workflows: what comes after what, how far it is, and what can be done to all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import access, actions, audit, bulk, dashboard, ids, operations, states
from ..conf import settings
from ..display import short
from ..models import Task, TaskResult, Workflow
from . import dag, drawing, overview, words
from .dag import Node, Shape
from .drawing import LOOKS, Times
from .members import Members, hides_any, members, newest
from .pages import EVERY, PageAdmin, live_answer, new_fragment, render_fragment

#: Tasks that one click cancels, or runs again, while the browser waits; more are worked through in the background.
MOST_AT_ONCE: Final = 300
#: How far the table indents.
DEEPEST: Final = 8


@dataclass(frozen=True, slots=True)
class Order:
    """One thing that can be done to a workflow."""

    permission: str
    label: Any
    #: What it will do, for whoever has to say yes.
    consequence: Any
    run: Callable[[WorkflowAdmin, HttpRequest, str], HttpResponse | None]


@dataclass(frozen=True, slots=True)
class Line:
    """A node as a line of the table."""

    url: str
    name: str
    depth: int
    kind: str
    sign: str
    state: str
    said: str
    due: datetime
    started: datetime | None
    waited: str
    ran: str


class WorkflowAdmin(PageAdmin):
    """What belongs together."""

    class Media:
        css: Any = {"all": ("django_tasks/workflow.css",)}

    def index(self, request: HttpRequest) -> HttpResponse:
        before = request.GET.get("older")
        rows, older = newest(lambda rows: access.visible(request, rows), _uuid(before) if before else None)
        lines = [(self.url("workflow_change", row.root), row, _counted(row.counts)) for row in rows]
        html = render_fragment(
            "workflows_content.html", request, {"lines": lines, "older": older}, self.admin_site.name
        )
        fragment = new_fragment(html)
        if "fragment" in request.GET:
            return live_answer(request, fragment)
        told = {"content": fragment.html, "every": EVERY, "address": urlencode({"older": before}) if before else ""}
        return self.page(request, "overview.html", _("Workflows"), **told)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        root = _uuid(unquote(object_id))
        if request.method != "POST":
            return self._show(request, root)
        order = ORDERS.get(request.POST.get("action", ""))
        if order is None:
            raise PermissionDenied
        self.require(request, order.permission)
        if hides_any(root, lambda rows: access.visible(request, rows)):
            raise PermissionDenied  # what is done to a workflow is done to all of it
        if request.POST.get("post") != "yes":
            return self._ask(request, root, request.POST["action"], order)
        answer = order.run(self, request, root)
        overview.forget()
        return answer or HttpResponseRedirect(request.get_full_path())

    def _show(self, request: HttpRequest, root: str) -> HttpResponse:
        found = members(root, lambda rows: access.visible(request, rows))
        if not found.rows:
            raise Http404(f"There is no task of a workflow {root}")
        html = render_fragment("workflow_content.html", request, self._content(found), self.admin_site.name)
        fragment = new_fragment(html)
        if "fragment" in request.GET:
            return live_answer(request, fragment)
        first = found.rows.get(root)
        return self.page(
            request,
            "workflow.html",
            _("Workflow %s") % (short(first.name, 80) if first is not None else root),
            content=fragment.html,
            every=EVERY,
            trail=[(self.url("workflow_changelist"), _("Workflows"))],
            orders=[(name, one.label) for name, one in ORDERS.items() if self.may(request, one.permission)],
            history=self.history_of(root),
        )

    def _content(self, found: Members) -> dict[str, Any]:
        shape = dag.shape(found.rows.values())
        now = dashboard.database_now()
        nodes = [node for node in shape.nodes.values() if not node.first.is_join]

        def address(node: Node) -> str:
            return self._address(node, found)

        title = _("What comes after what")
        return {
            "found": found,
            "total": words.amount(found.total),
            "finished": words.amount(found.finished),
            "counts": _counted(found.counts),
            "lists": [(label, self._list(model, found.root)) for label, model in _LISTS],
            "graph": drawing.graph(shape, found, address, down=False, title=title),
            "graph_down": drawing.graph(shape, found, address, down=True, title=title),
            "hidden": words.amount(shape.hidden),
            "is_hidden": bool(shape.hidden),
            "drawn": words.amount(len(shape.nodes)),
            "read": words.amount(len(found.rows)),
            "waterfall": drawing.waterfall(nodes, found, now),
            "lines": [_line(node, depth, found, address(node), now) for node, depth in _indented(shape)],
        }

    def _address(self, node: Node, found: Members) -> str:
        """Return the page of a task, or the list that has those of a stack about which there is most to say."""
        if not node.is_stack:
            return self.url(f"{'taskresult' if node.first.is_done else 'task'}_change", node.key)
        failed = any(one.state in states.FINISHED - {states.SUCCESS} for one in node.members)
        model = "taskresult" if failed or all(one.is_done for one in node.members) else "task"
        return self._list(model, found.root, name=node.first.name)

    def _list(self, model: str, root: str, **filters: str) -> str:
        url = reverse(f"admin:django_tasks_{model}_changelist", current_app=self.admin_site.name)
        return f"{url}?{urlencode({'q': f'root:{root}', **filters})}"

    # Orders

    def _ask(self, request: HttpRequest, root: str, action: str, order: Order) -> HttpResponse:
        url = self.url("workflow_change", root)
        trail = [(self.url("workflow_changelist"), _("Workflows")), (url, root)]
        told = {"action": action, "order": order, "back": url, "trail": trail}
        return self.page(request, "workflow_confirm.html", order.label, **told)

    def _done(self, request: HttpRequest, root: str, sentence: str) -> None:
        self.audit(request, Workflow(pk=root, name=_("Workflow")), sentence)
        self.message_user(request, sentence, messages.SUCCESS)

    def _in_background(self, request: HttpRequest, root: str, action: str, filters: Mapping[str, str]) -> HttpResponse:
        """Do it to more tasks than a browser waits for."""
        chosen = actions.BY_NAME[action]
        operation = bulk.begin(chosen, {}, search=f"root:{root}", filters=filters, request=request)
        self._done(request, root, _("%(action)s: begun in the background") % {"action": chosen.of_many})
        url = reverse("admin:django_tasks_bulkoperation_change", args=[operation.pk], current_app=self.admin_site.name)
        return HttpResponseRedirect(url)

    def retry(self, request: HttpRequest, root: str) -> HttpResponse | None:
        """Run what failed again."""
        failed = _ledger().filter(root_id=root).exclude(state=states.SUCCESS)
        if failed[: MOST_AT_ONCE + 1].count() > MOST_AT_ONCE:
            return self._in_background(request, root, "retry", {"state": states.FAILURE})
        copies = operations.retry_workflow(root).copies
        if count := len(copies):
            said = {key: _("Run again as %s") % copy for key, copy in copies.items()}
            audit.record(request.user, _ledger().filter(pk__in=copies), said)
            self._done(request, root, ngettext("%s task runs again.", "%s tasks run again.", count) % count)
        else:
            self.message_user(request, _("Nothing of it failed that does not run again already."), messages.WARNING)
        return None

    def cancel(self, request: HttpRequest, root: str) -> HttpResponse | None:
        """Cancel what is not done."""
        waiting = Task.objects.using(settings.DATABASE).filter(root_id=root).only("name", "custom_id")
        rows = list(waiting.order_by("-pk")[: MOST_AT_ONCE + 1])  # what comes last ends first
        if len(rows) > MOST_AT_ONCE:
            return self._in_background(request, root, "cancel", {})
        said = actions.BY_NAME["cancel"].do([str(row.pk) for row in rows], {}, None).said
        if count := len(said):
            audit.record(request.user, rows, said)
            self._done(request, root, ngettext("%s task cancelled.", "%s tasks cancelled.", count) % count)
        else:
            self.message_user(request, _("All of it is done."), messages.WARNING)
        return None

    def again(self, request: HttpRequest, root: str) -> HttpResponse | None:
        """Send the whole of it again."""
        try:
            new = operations.rerun_workflow(root)
        except ValueError as error:
            self.message_user(request, _("Not sent again: %s.") % error, messages.ERROR)
            return None
        self._done(request, root, _("Sent again as %s") % new)
        return HttpResponseRedirect(self.url("workflow_change", new))


#: What can be done, by its name in the form.
ORDERS: Final[Mapping[str, Order]] = {
    "retry": Order(
        "retry_taskresult",
        gettext_lazy("Run what failed again"),
        gettext_lazy(
            "What failed is sent once more with the same arguments, and what was not run because of it goes on. "
            "What was run again before is left alone; of more than 300 failures all are, in the background."
        ),
        WorkflowAdmin.retry,
    ),
    "cancel": Order(
        "cancel_task",
        gettext_lazy("Cancel the rest"),
        gettext_lazy("What waits will never run. What runs already is asked to stop, and may go on all the same."),
        WorkflowAdmin.cancel,
    ),
    "again": Order(
        "retry_taskresult",
        gettext_lazy("Run the whole of it again"),
        gettext_lazy(
            "All of it is sent once more, as a new workflow with the same arguments: what it did before, it does again."
        ),
        WorkflowAdmin.again,
    ),
}

_LISTS: Final = ((gettext_lazy("Not done"), "task"), (gettext_lazy("Done"), "taskresult"))


def _uuid(text: str) -> str:
    """Return an id as it is stored. Raises ``Http404`` for what is none."""
    if not 0 < len(text) <= 255:
        raise Http404("No task has such an id")
    return str(UUID(ids.key_of(text)))


def _counted(counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Return states with their signs, and how many tasks are in each."""
    return [(LOOKS[state][1], state, words.amount(counts[state])) for state in LOOKS if counts.get(state)]


def _indented(shape: Shape) -> list[tuple[Node, int]]:
    """Return the nodes, each below the last one before it, and how deep that is; what runs nothing is left out."""
    after: dict[str, list[Node]] = {}
    for node in shape.nodes.values():
        last = max(node.before, key=lambda key: shape.nodes[key].layer, default="")
        after.setdefault(last, []).append(node)
    found: list[tuple[Node, int]] = []
    rest: list[tuple[Node, int]] = [(node, 0) for node in reversed(after.get("", ()))]
    while rest:
        node, depth = rest.pop()
        if not node.first.is_join:
            found.append((node, min(depth, DEEPEST)))
        deeper = depth + (not node.first.is_join)
        rest += [(one, deeper) for one in reversed(after.get(node.key, ()))]
    return found


def _line(node: Node, depth: int, found: Members, url: str, now: datetime) -> Line:
    times = Times.of(node)
    kind, sign = drawing.look_of(node)
    said = drawing.said_of(node, found)
    return Line(
        url=url,
        name=drawing.name_of(node, found, 120),
        depth=depth,
        kind=kind,
        sign=sign,
        state="" if node.is_stack else short(node.first.shown, 64),
        said="" if said.startswith(node.first.shown) else said,  # the other columns say the rest
        due=times.due,
        started=times.started,
        waited=words.duration(times.waited(now)),
        ran=words.duration(times.ran(now)),
    )


def _ledger() -> QuerySet[Any]:
    return TaskResult.objects.using(settings.DATABASE)
