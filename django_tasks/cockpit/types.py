"""The pages of tasks as they are declared: what they take, how they do, and a form to send one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, client, dashboard, display, failures, limits, paging
from ..conf import PRIORITIES, QUEUE_NAME
from ..exceptions import TaskError
from ..models import Limit, TaskResult, TaskType
from ..registry import tasks
from ..replica import reads_from
from ..search import words_for_failures
from . import numbers, overview, panels
from .arguments_form import ArgumentsForm, signature_text
from .numbers import SPANS, Numbers, Span
from .overview import paused
from .pages import EVERY, PageAdmin, live_answer, new_fragment, render_fragment, span_of
from .pausing import PauseForm

#: Options of a declaration that a page shows.
OPTIONS: Final = (
    *("queue", "priority", "max_retries", "default_retry_delay", "autoretry_for", "retry_backoff", "rate_limit"),
    *("concurrency", "unique", "debounce", "tags", "time_limit", "soft_time_limit", "acks_late", "ignore_result"),
    *("atomic", "durable", "serializer", "expires", "sensitive", "log_level"),
)
#: Runs, and kinds of failures, that a page shows; and seconds that it waits for them.
RECENT: Final = 20
PATIENCE: Final = 0.5


class SendForm(forms.Form):
    """How a task is sent, if not as it says itself."""

    queue = forms.RegexField(
        rf"^{QUEUE_NAME.pattern}$", label=gettext_lazy("Queue (empty: the task's own)"), max_length=64, required=False
    )
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"), min_value=PRIORITIES[0], max_value=PRIORITIES[-1], required=False
    )
    countdown = forms.FloatField(label=gettext_lazy("Not before so many seconds"), min_value=0, required=False)


class TaskTypeAdmin(PageAdmin):
    """What can be run."""

    def index(self, request: HttpRequest) -> HttpResponse:
        span = span_of(request)
        now = dashboard.database_now().timestamp()
        done = numbers.grouped(numbers.by_task(span, now), 1)
        pauses = {limit.name for limit in paused(Limit.TASK)}
        names = sorted({*tasks, *done} - {""})[: dashboard.MOST]
        lines = [(name, _summary(name), done.get(name, Numbers()), name in pauses, name in tasks) for name in names]
        html = render_fragment("types_content.html", request, {"lines": lines}, self.admin_site.name)
        fragment = new_fragment(html)
        if "fragment" in request.GET:
            return live_answer(request, fragment)
        told = {"content": fragment.html, "spans": SPANS.values(), "span": span, "every": EVERY}
        return self.page(request, "overview.html", _("Task types"), **told)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        name = unquote(object_id)
        if not self.has_view_permission(request):
            raise PermissionDenied
        if "\x00" in name or len(name) > 255:
            raise Http404("No task can be called so")
        if request.method == "POST" and request.POST.get("action") in ("pause", "resume"):
            self.require(request, "pause_limit")
            done = numbers.by_bucket(span_of(request), dashboard.database_now().timestamp(), name=name)
            if not _is_known(name, numbers.total(done.values())):
                self.message_user(request, _("Nobody knows a task %s: nothing was changed.") % name, messages.ERROR)
                return HttpResponseRedirect(self.url("tasktype_changelist"))
            return self._pause(request, name) if request.POST["action"] == "pause" else self._resume(request, name)
        if request.method == "POST":
            self.require(request, "enqueue_task")
            if tasks.get(name) is None:
                raise Http404(f"This process knows no task {name!r}")
            return self._send(request, name)
        return self._show(request, name)

    def _show(
        self,
        request: HttpRequest,
        name: str,
        forms_given: tuple[Any, Any] | None = None,
        pause_form: PauseForm | None = None,
    ) -> HttpResponse:
        span = span_of(request)
        task = tasks.get(name)
        moment = dashboard.database_now()
        now = moment.timestamp()
        buckets = numbers.by_bucket(span, now, name=name)
        total = numbers.total(buckets.values())
        if not _is_known(name, total):
            raise Http404(f"Nobody knows a task {name!r}")
        marks = overview.releases(buckets, span)
        charts = [
            panels.throughput(span, buckets, "throughput", marks),
            panels.runs(span, buckets, "runs", marks),
            panels.waits(span, buckets, "waits", marks),
            panels.run_histogram(total, "histogram"),
        ]
        told = {"charts": charts, "done": total, "name": name, **_runs(request, name, span)}
        told |= {"half": total.run(0.5), "most": total.run(0.95)}
        fragment = new_fragment(render_fragment("type_content.html", request, told, self.admin_site.name))
        if "fragment" in request.GET:
            return live_answer(request, fragment)
        arguments, sending = forms_given or ((ArgumentsForm(task), SendForm()) if task is not None else (None, None))
        return self.page(
            request,
            "type.html",
            name,
            content=fragment.html,
            spans=SPANS.values(),
            span=span,
            every=EVERY,
            trail=[(self.url("tasktype_changelist"), _("Task types"))],
            name=name,
            known=task is not None,
            signature=signature_text(task) if task is not None else "",
            doc=inspect.getdoc(task.run) if task is not None else "",
            options=_options(task),
            may_send=self.may(request, "enqueue_task"),
            arguments_form=arguments,
            send_form=sending,
            pause=next((one for one in paused(Limit.TASK, name) if one.is_paused(moment)), None),
            limit_url=self.limit_url(request, Limit.TASK, name),
            may_pause=self.may(request, "pause_limit"),
            pause_form=pause_form or PauseForm(),
            history=self.history_of(name),
        )

    def _pause(self, request: HttpRequest, name: str) -> HttpResponse:
        form = PauseForm(request.POST)
        if not form.is_valid():
            return self._show(request, name, pause_form=form)
        return self._done(request, name, form.pause(request, Limit.TASK, name))

    def _resume(self, request: HttpRequest, name: str) -> HttpResponse:
        if limits.resume(Limit.TASK, name):
            return self._done(request, name, _("Resumed."))
        self.message_user(request, _("It was not paused."), messages.WARNING)
        return HttpResponseRedirect(request.get_full_path())

    def _done(self, request: HttpRequest, name: str, sentence: str) -> HttpResponse:
        self.audit(request, TaskType(pk=name, name=name), sentence)
        self.message_user(request, sentence, messages.SUCCESS)
        overview.forget()
        return HttpResponseRedirect(request.get_full_path())

    def _send(self, request: HttpRequest, name: str) -> HttpResponse:
        task = tasks[name]
        arguments, sending = ArgumentsForm(task, request.POST), SendForm(request.POST)
        if not (arguments.is_valid() and sending.is_valid()):
            return self._show(request, name, (arguments, sending))
        args, kwargs = arguments.call()
        options = {key: value for key, value in sending.cleaned_data.items() if value not in (None, "")}
        try:
            if request.POST.get("action") == "check":
                args, kwargs = task._checked(args, kwargs)
                client.build(name, args, kwargs, options, task)
                self.message_user(request, _("The arguments fit."), messages.SUCCESS)
                return self._show(request, name, (arguments, sending))
            result = task.apply_async(args, kwargs, **options)
        except (TypeError, ValueError, TaskError) as error:
            arguments.add_error(None, str(error))
            return self._show(request, name, (arguments, sending))
        self.audit(request, TaskType(pk=name, name=name), _("Sent as %s") % result.id)
        url = reverse("admin:django_tasks_task_change", args=[result.id], current_app=self.admin_site.name)
        self.message_user(request, format_html('{} <a href="{}">{}</a>', _("Sent:"), url, result.id), messages.SUCCESS)
        return HttpResponseRedirect(request.get_full_path())


def _is_known(name: str, done: Numbers) -> bool:
    """Does this process know a task, or did one of that name run, lately or as far as the ledger goes back?"""
    return name in tasks or bool(done.ended) or TaskResult.objects.using(reads_from()).filter(name=name).exists()


def _runs(request: HttpRequest, name: str, span: Span) -> dict[str, Any]:
    """Return the last runs of a task, and its failures in a span by exception, as far as this person may see them."""
    if not request.user.has_perm("django_tasks.view_taskresult"):
        return {}
    now = timezone.now()
    full = request.user.has_perm("django_tasks.view_payload")
    rows = access.visible(request, TaskResult.objects.using(reads_from()).filter(name=name))
    light = rows.only("state", "runtime", "finished_at", "worker", "exception", "custom_id", "name")
    try:
        with paging.time_limit(reads_from(), PATIENCE):
            last = list(light.order_by("-finished_at")[:RECENT])
            found = failures.grouped(rows, now - timedelta(seconds=span.seconds), now, failures.LOOKED_AT)
    except paging.TooSlow:
        return {"too_slow": True}
    runs = [(row, display.moment(row.finished_at), display.exception_line(row, full=full)) for row in last]
    failing = sorted((*found.groups, *found.aside), key=lambda one: -one.count)[:RECENT]
    groups = [(one, words_for_failures(one.kind), display.moment(one.last)) for one in failing]
    return {"runs": runs, "failing": groups}


def _summary(name: str) -> str:
    task = tasks.get(name)
    text = inspect.getdoc(task.run) if task is not None else None
    return (text or "").partition("\n")[0]


def _options(task: Any) -> Mapping[str, str]:
    """Return what the declaration says, as text; what it leaves to the settings is not among it."""
    found = {name: getattr(task, name, None) for name in OPTIONS}
    return {name: _text(value) for name, value in found.items() if value not in (None, (), "", False)}


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return value.__name__ if isinstance(value, type) else str(value)
