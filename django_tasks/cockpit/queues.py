"""The pages of queues: what they hold and how fast they are, pause and resume, empty and move."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import access, dashboard, limits, operations, paging
from ..conf import QUEUE_NAME, settings
from ..looks import look
from ..models import Limit, Queue, Task
from ..registry import tasks
from . import numbers, overview, panels, words
from .numbers import SPANS, Span
from .pages import EVERY, PageAdmin, live_answer, new_fragment, render_fragment, span_of
from .pausing import PauseForm

#: Seconds for which one request moves tasks, and how many at a time.
MOVE_FOR, MOVE_BATCH = 2.0, 500
#: How far it is counted what a question is about, and seconds that each of the three counts may take.
COUNTED, PATIENCE = 100_000, 1.0


def _is_queue(name: str) -> None:
    if not QUEUE_NAME.fullmatch(name):
        raise ValidationError(_("A queue's name is 1 to 64 of the characters A-Z a-z 0-9 _ . : -"))


class MoveForm(forms.Form):
    """Where to."""

    to = forms.CharField(label=gettext_lazy("To the queue"), max_length=64, validators=[_is_queue])


class QueueAdmin(PageAdmin):
    """What waits where."""

    def index(self, request: HttpRequest) -> HttpResponse:
        span = span_of(request)
        html = render_fragment("queues_content.html", request, {"queues": _lines(span)}, self.admin_site.name)
        fragment = new_fragment(html)
        if "fragment" in request.GET:
            return live_answer(request, fragment)
        told = {"content": fragment.html, "spans": SPANS.values(), "span": span, "every": EVERY}
        return self.page(request, "overview.html", _("Queues"), **told)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        name = unquote(object_id)
        if not self.has_view_permission(request):
            raise PermissionDenied
        if not QUEUE_NAME.fullmatch(name):
            raise Http404(f"No queue can be called {name!r}")
        if request.method == "POST":
            act, permission = self._actions().get(request.POST.get("action", ""), (None, ""))
            if act is None:
                raise PermissionDenied
            self.require(request, permission)
            if permission in ("purge_queue", "move_queue") and _hides_tasks(request, name):
                raise PermissionDenied
            answer = act(request, name)
            overview.forget()
            return answer or HttpResponseRedirect(request.get_full_path())
        return self._show(request, name, {})

    def _actions(self) -> Mapping[str, tuple[Callable[[HttpRequest, str], HttpResponse | None], str]]:
        """Return what can be done, each with the permission for it."""
        return {
            "pause": (self._pause, "pause_limit"),
            "resume": (self._resume, "pause_limit"),
            "purge": (self._purge, "purge_queue"),
            "move": (self._move, "move_queue"),
        }

    def _show(self, request: HttpRequest, name: str, bound: Mapping[str, forms.Form]) -> HttpResponse:
        span = span_of(request)
        row, buckets, depth, parts = _of_queue(name, span)
        marks = overview.releases(buckets, span)
        context = {
            "queue": panels.QueueLine.of(row),
            "row": row,
            "charts": [
                panels.throughput(span, buckets, "throughput", marks),
                panels.waiting(span, buckets, depth, "waiting", marks),
                panels.waits(span, buckets, "waits", marks),
                panels.runs(span, buckets, "runs", marks),
            ],
            "tasks": sorted(parts.items(), key=lambda pair: pair[1].ended, reverse=True)[: overview.LINES],
        }
        html = render_fragment("queue_content.html", request, context, self.admin_site.name)
        fragment = new_fragment(html)
        if "fragment" in request.GET:
            return live_answer(request, fragment)
        return self.page(
            request,
            "queue.html",
            name,
            content=fragment.html,
            spans=SPANS.values(),
            span=span,
            every=EVERY,
            trail=[(self.url("queue_changelist"), _("Queues"))],
            pause=row.pause,
            limit_url=self.limit_url(request, Limit.QUEUE, name),
            may={action: self.may(request, permission) for action, (_act, permission) in self._actions().items()},
            pause_form=bound.get("pause") or PauseForm(),
            move_form=bound.get("move") or MoveForm(),
            known=[each for each in known_queues() if each != name],
            history=self.history_of(name),
        )

    # Actions

    def _pause(self, request: HttpRequest, name: str) -> HttpResponse | None:
        form = PauseForm(request.POST)
        if not form.is_valid():
            return self._show(request, name, {"pause": form})
        self._done(request, name, form.pause(request, Limit.QUEUE, name))
        return None

    def _resume(self, request: HttpRequest, name: str) -> HttpResponse | None:
        if limits.resume(Limit.QUEUE, name):
            self._done(request, name, _("Resumed."))
        else:
            self.message_user(request, _("It was not paused."), messages.WARNING)
        return None

    def _purge(self, request: HttpRequest, name: str) -> HttpResponse | None:
        typed = request.POST.get("name")
        if typed != name:
            return self._confirm(
                request,
                name,
                action="purge",
                title=_("Empty queue %s") % name,
                text=_("They are deleted without a trace. What runs goes on; what waits for other tasks stays."),
                button=_("Delete them"),
                type_name=True,
                wrong=typed is not None,
            )
        count = operations.purge([name])
        self._done(request, name, ngettext("%s task deleted.", "%s tasks deleted.", count) % words.amount(count))
        return None

    def _move(self, request: HttpRequest, name: str) -> HttpResponse | None:
        form = MoveForm(request.POST)
        if form.is_valid() and form.cleaned_data["to"] == name:
            form.add_error("to", _("They are there already."))
        if not form.is_valid():
            return self._show(request, name, {"move": form})
        to = form.cleaned_data["to"]
        if not request.POST.get("sure"):
            return self._confirm(
                request,
                name,
                action="move",
                title=_("Move what waits in %(queue)s to %(to)s") % {"queue": name, "to": to},
                text=_("They wait there with the priority and the time that they have."),
                button=_("Move them"),
                to=to,
            )
        moved, more = move(name, to)
        text = ngettext("%(count)s task moved to %(to)s.", "%(count)s tasks moved to %(to)s.", moved)
        self._done(request, name, text % {"count": words.amount(moved), "to": to})
        if more:
            self.message_user(request, _("There are more: repeat it until none is left."), messages.WARNING)
        return None

    def _confirm(self, request: HttpRequest, name: str, *, title: str, **context: Any) -> HttpResponse:
        trail = [(self.url("queue_changelist"), _("Queues")), (self.url("queue_change", name), name)]
        return self.page(
            request, "queue_confirm.html", title, queue=name, counted=_counted(name), trail=trail, **context
        )

    def _done(self, request: HttpRequest, name: str, sentence: str) -> None:
        self.audit(request, Queue(pk=name, kind=Limit.QUEUE, name=name), sentence)
        self.message_user(request, sentence, messages.SUCCESS)


def _counted(queue: str) -> str:
    """Say how many tasks of a queue can be purged, each kind of them counted along an index of its own."""
    rows = Task.objects.using(settings.DATABASE).filter(queue=queue)
    try:
        with paging.time_limit(settings.DATABASE, PATIENCE):
            kinds = (rows.claimable(), rows.limited(), rows.unroutable())
            count = sum(kind[: COUNTED + 1].count() for kind in kinds)
    except paging.TooSlow:
        return _("It took too long to count how many tasks wait.")
    if count > COUNTED:
        return _("More than %s tasks wait.") % words.amount(COUNTED)
    return ngettext("%s task waits.", "%s tasks wait.", count) % words.amount(count)


def _hides_tasks(request: HttpRequest, name: str) -> bool:
    """Does the queue hold tasks that this person may not see? What is done to a queue is done to all of them."""
    if settings.ADMIN_TASK_FILTER is None:
        return False
    rows = Task.objects.using(settings.DATABASE).filter(queue=name)
    return rows.exclude(pk__in=access.visible(request, rows).values("pk")).exists()


def known_queues() -> list[str]:
    """Return the queues that the code names, and those in which something waits."""
    return dashboard.known_queues()


def move(queue: str, to: str) -> tuple[int, bool]:
    """Move what waits in one queue to another, for :data:`MOVE_FOR` seconds at most; return how many, and whether there
    may be more."""
    end = time.monotonic() + MOVE_FOR
    moved = 0
    rows = Task.objects.using(settings.DATABASE).purgeable().filter(queue=queue).order_by("pk")
    last = None
    while time.monotonic() < end:
        behind = rows if last is None else rows.filter(pk__gt=last)
        batch = list(behind.values_list("pk", flat=True)[:MOVE_BATCH])
        if not batch:
            return moved, False
        moved += len(operations.reschedule([str(pk) for pk in batch], queue=to).changed)
        last = batch[-1]
    return moved, True


def _lines(span: Span) -> list[panels.QueueLine]:
    workers = dashboard.current_workers()
    seen = look(workers)
    now = seen.now.timestamp()
    done = numbers.grouped(numbers.by_task(span, now), 0)
    declared = {task.queue for task in tasks.values() if isinstance(task.queue, str)}
    also = {settings.TASK_DEFAULT_QUEUE, *declared}
    rows = overview.queue_rows(span, seen, workers, done, numbers.depths(span, now), also)
    return [panels.QueueLine.of(row) for row in rows]


def _of_queue(name: str, span: Span) -> tuple[Any, Any, Any, Any]:
    workers = dashboard.current_workers()
    seen = look(workers)
    now = seen.now.timestamp()
    buckets = numbers.by_bucket(span, now, queue=name)
    parts = numbers.grouped(numbers.by_task(span, now, queue=name), 1)
    depths = numbers.depths(span, now, queue=name)
    done = {name: numbers.total(buckets.values())}
    [row] = overview.queue_rows(span, seen, workers, done, depths, only=name)
    return row, buckets, numbers.depth_of(depths, name), parts
