"""The pages of the workers: how they are, what they are at, and what they can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, changelists, dashboard, display
from ..cockpit import words
from ..cockpit.desk import WorkerDesk
from ..cockpit.pages import EVERY, live_answer, new_fragment, render_fragment
from ..dashboard import Taken, taken
from ..display import moment
from ..models import Task, Worker
from ..replica import reads_from
from .base import ReadOnlyAdmin, Row, badge, seconds
from .live_lists import LiveList

#: Tasks of a worker that its page lists.
MOST: Final = 100


class Held(NamedTuple):
    """A task that a worker has taken, as its page shows it."""

    link: SafeString
    state: SafeString
    #: For how long it has run, in words; "" if it does not, or has only begun.
    ran: str
    #: How far it is, as it told: the value and the maximum of a bar, and the part in words.
    bar: tuple[str, str] | None
    part: str


class _List(changelists.WorkerChangeList):
    def prepare(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        now = dashboard.database_now()
        taken = _taken(rows)
        for row in rows:
            row.shown_status = row.status(now)
            row.taken = taken[row.pk]
            row.up_for = _up_for(row, now)


class WorkerAdmin(WorkerDesk, LiveList, ReadOnlyAdmin):
    """Who is at work."""

    change_form_template = "admin/django_tasks/worker.html"
    list_display = (
        *("name", "status", "places", "up", "hostname", "shown_pid", "pool", "queues", "processed", "heartbeat"),
    )
    list_filter = (changelists.WorkerFilter,)
    filters = frozenset({"status"})
    changelist_class = _List

    class Media:
        css: ClassVar = {"all": ("django_tasks/cockpit.css",)}

    def get_urls(self) -> list[Any]:
        return [*self.desk_urls(), *super().get_urls()]

    @admin.display(description=gettext_lazy("status"))
    def status(self, row: Any) -> SafeString:
        return self.badge_of(row.shown_status)

    @admin.display(description=gettext_lazy("busy places"))
    def places(self, row: Any) -> str:
        return _places(row, row.taken)

    @admin.display(description=gettext_lazy("up for"))
    def up(self, row: Any) -> str:
        return str(row.up_for)

    @admin.display(description=gettext_lazy("process id"))
    def shown_pid(self, row: Worker) -> str:
        return str(row.pid)  # no amount: in no language it has separators

    @admin.display(description=gettext_lazy("last heartbeat"))
    def heartbeat(self, row: Worker) -> Any:
        return moment(row.beat_at)

    def badge_of(self, status: str) -> SafeString:
        """Return how a worker is, in a word and a colour."""
        return format_html('<span class="djt-state djt-{}">{}</span>', status, words.status(status))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if "fragment" not in request.GET:
            return super().change_view(request, object_id, form_url, extra_context)
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        html = render_fragment("worker_content.html", request, self.present(request, row), self.admin_site.name)
        return live_answer(request, new_fragment(html))

    def detail(self, request: HttpRequest, obj: Worker) -> dict[str, Any]:
        context = self.present(request, obj)
        return {
            "live_url": "?fragment=1",
            "every": EVERY,
            "content": render_fragment("worker_content.html", request, context, self.admin_site.name),
            "buttons": self.order_buttons(request, obj, context["status"]),
            "desk": self.desk(request, obj, context["status"]),
        }

    def present(self, request: HttpRequest, obj: Worker) -> dict[str, Any]:
        """Return what the part of its page shows that follows it."""
        now = dashboard.database_now()
        status = obj.status(now)
        about: list[Row] = [
            (_("Name"), obj.name),
            (_("Host"), obj.hostname),
            (_("Process id"), str(obj.pid)),
            (_("Pool"), obj.pool),
            (_("Busy places"), _places(obj, _taken([obj])[obj.pk])),
            (_("Queues"), obj.queues),
            (_("Version"), obj.version),
        ]
        times: list[Row] = [
            (_("Started"), moment(obj.started_at)),
            (_("Up for"), _up_for(obj, now)),
            (_("Last heartbeat"), moment(obj.beat_at)),
            (_("Lease"), seconds(obj.lease)),
            (_("Stopped"), moment(obj.stopped_at)),
            (_("Lost"), moment(obj.lost_at)),
            (_("Tasks run"), words.amount(obj.processed)),
        ]
        return {
            "status": status,
            "state_badge": self.badge_of(status),
            "sections": [(_("Worker"), about), (_("Times"), times)],
            "held": self.held(request, obj, now),
        }

    def held(self, request: HttpRequest, obj: Worker, now: Any) -> list[Held]:
        """Return what a worker has taken, the longest at work first, as far as this person may see it."""
        if not request.user.has_perm("django_tasks.view_task"):
            return []
        tasks = access.visible(request, Task.objects.using(reads_from()).of_worker(obj.pk)).defer("body", "history")
        found = []
        for task in sorted(tasks[:MOST], key=lambda one: (one.started_at is None, one.started_at or one.due_at)):
            ran = None if task.started_at is None else max(0.0, (now - task.started_at).total_seconds())
            told = display.numbers(task)
            found.append(
                Held(
                    format_html("{} {}", display.short(task.name), self.link("task", task.pk, task.task_id)),
                    badge(task),
                    "" if ran is None else words.duration(ran),
                    None if told is None else (f"{told[0]:.6f}", f"{told[1]:.6f}"),
                    "" if told is None else words.part(told[0] / told[1]),
                )
            )
        return found


def _taken(workers: Sequence[Worker]) -> dict[int, Taken]:
    """Return what each of these workers has taken; one query."""
    claimed = Task.objects.using(reads_from()).filter(worker_id__in=[row.pk for row in workers]).order_by()
    found: dict[int | None, list[int]] = {}
    for pk, _slot, count in claimed.values_list("worker_id", "slot").annotate(Count("pk")):
        found.setdefault(pk, []).append(count)
    return {row.pk: taken(row, found.get(row.pk, ())) for row in workers}


def _places(worker: Worker, has: Taken) -> str:
    """Return how many of its places are busy, and what it has claimed beyond that, in words."""
    places = f"{words.amount(has.running)} / {words.amount(worker.concurrency)}"
    return f"{places}, {words.claimed(has.claimed)}" if has.claimed else places


def _up_for(row: Worker, now: Any) -> str:
    """Return for how long a worker has run, in words; "" if it does not any more."""
    gone = row.status(now) in ("lost", "stopped")
    return "" if gone else words.duration(max(0.0, (now - row.started_at).total_seconds()))
