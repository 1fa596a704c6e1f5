"""What one running worker is asked, and told, on its own page: a question's answer is shown as a page."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import dashboard
from ..display import short
from ..exceptions import OperationalError
from ..models import Worker
from ..registry import tasks
from ..routing import validate_queue
from . import words, workers
from .workers import Order, WorkerOrders, answers_to, tell

QUESTIONS: Final = {
    "stats": Order("stats", gettext_lazy("Memory, processor time, totals")),
    "stacks": Order("stacks", gettext_lazy("Stacks of what runs")),
}
CHANGES: Final = {
    "add_consumer": Order("add_consumer", gettext_lazy("Consume it, too")),
    "cancel_consumer": Order("cancel_consumer", gettext_lazy("Take nothing from it")),
    "autoscale": Order("autoscale", gettext_lazy("As many processes as there is work for")),
    "time_limit": Order("time_limit", gettext_lazy("Set its time limits")),
}
#: Most task types, and processes, that an answer tells of.
MOST: Final = 200
#: Seconds by which clocks may differ, and nobody is told.
ALIKE: Final = 0.05
#: Shortest and longest time limit that is told to a worker, in seconds: a millisecond, and a year.
SHORTEST, LONGEST = 0.001, 366 * 86_400


def _queue(name: str) -> None:
    try:
        validate_queue(name)
    except ValueError as error:
        raise ValidationError(str(error)) from error


class DeskForm(forms.Form):
    """What a worker is told; what is wrong is told at its field by the worker's page, also without scripts."""

    use_required_attribute = False
    #: The id of the form that the fields belong to: the page is a form itself, in which no other can be.
    place: ClassVar[str]
    #: The changes that it is for; each has a button.
    changes: ClassVar[Sequence[str]]
    #: What it does, if its buttons do not say so.
    help: ClassVar[Any] = ""
    #: What the fields with a list offer.
    offers: Sequence[str] = ()

    def __init__(self, worker: Worker, data: Any = None) -> None:
        super().__init__(data, auto_id="id_desk_%s")
        for field in self.fields.values():
            field.widget.attrs["form"] = self.place

    @classmethod
    def suits(cls, worker: Worker) -> bool:
        """Return whether this worker can do so."""
        return True

    def buttons(self) -> list[tuple[str, Any]]:
        """Return the changes with what is written on their buttons."""
        return [(name, CHANGES[name].label) for name in self.changes]

    def told(self) -> str:
        """Return what was given, in words."""
        return ", ".join(f"{self.fields[name].label} {_shown(value)}" for name, value in self.cleaned_data.items())


class QueueForm(DeskForm):
    """Which queue."""

    place = "djt-queue"
    changes = ("add_consumer", "cancel_consumer")
    queue = forms.CharField(label=gettext_lazy("Queue"), max_length=64, validators=[_queue])


class ScaleForm(DeskForm):
    """How few and how many processes."""

    place = "djt-scale"
    changes = ("autoscale",)
    min = forms.IntegerField(label=gettext_lazy("At least"), min_value=1, max_value=1_000)
    max = forms.IntegerField(label=gettext_lazy("At most"), min_value=1, max_value=1_000)

    def clean(self) -> Any:
        found = super().clean() or {}
        if found.get("min", 1) > found.get("max", 1_000):
            raise ValidationError(_("At least %(min)s, but at most %(max)s: that cannot be.") % found)
        return found

    @classmethod
    def suits(cls, worker: Worker) -> bool:
        return "prefork" in worker.pool or worker.pool == "mixed"


class LimitsForm(DeskForm):
    """How long a task may run, in seconds."""

    place = "djt-limits"
    changes = ("time_limit",)
    help = gettext_lazy(
        "These limits hold on this worker alone, for what begins from now on, until it ends. Where one is empty, the "
        "one holds that the worker was started with, if any; what a task was sent with counts more."
    )
    task_name = forms.CharField(
        label=gettext_lazy("Task"), max_length=255, widget=forms.TextInput({"list": "djt-names", "autocomplete": "off"})
    )
    soft = forms.FloatField(
        label=gettext_lazy("Soft time limit, seconds"), required=False, min_value=SHORTEST, max_value=LONGEST
    )
    hard = forms.FloatField(
        label=gettext_lazy("Hard time limit, seconds"), required=False, min_value=SHORTEST, max_value=LONGEST
    )

    def __init__(self, worker: Worker, data: Any = None) -> None:
        super().__init__(worker, data)
        self.offers = sorted(tasks)[:MOST]
        if worker.pool == "solo":  # which has no other process that could end a task
            del self.fields["hard"]

    def clean(self) -> Any:
        found = super().clean() or {}
        soft, hard = found.get("soft"), found.get("hard")
        if soft is not None and hard is not None and soft > hard:
            self.add_error("soft", _("At most as long as the hard one."))
        return found


FORMS: Final[Sequence[type[DeskForm]]] = (QueueForm, ScaleForm, LimitsForm)


class WorkerDesk(WorkerOrders):
    """For the admin of workers: questions and changes on the page of one that runs."""

    def desk_urls(self: Any) -> list[Any]:
        """Return the addresses of the page of a worker that are posted to."""
        view = self.admin_site.admin_view(self.desk_view)
        return [path("<int:pk>/desk/", view, name="django_tasks_worker_desk")]

    def desk(self: Any, request: HttpRequest, worker: Worker, status: str) -> dict[str, Any] | None:
        """Return what the page of a worker needs for it; ``None`` if there is nothing for this person to ask."""
        if not self.has_control_permission(request) or status not in ("online", "draining"):
            return None
        site = self.admin_site.name
        return {
            "url": reverse("admin:django_tasks_worker_desk", args=(worker.pk,), current_app=site),
            "questions": QUESTIONS.items(),
            "forms": [form(worker) for form in FORMS if form.suits(worker)],
        }

    def desk_view(self: Any, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask a worker, and show what it says; or tell it something, and go back to its page, or show what cannot be
        told."""
        if not (self.has_view_permission(request) and self.has_control_permission(request)):
            raise PermissionDenied
        row = self.get_queryset(request).filter(pk=pk).first()
        if row is None:
            raise Http404
        back = HttpResponseRedirect(self._trail(row)[-1][0])
        if request.method != "POST":  # whoever loads an answer anew by its address
            return back
        action = request.POST.get("action", "")
        if action not in QUESTIONS | CHANGES:
            raise BadRequest("There is no such question or order")
        if row.status(dashboard.database_now()) not in ("online", "draining"):
            self.message_user(request, _("None of them is running."), messages.WARNING)
            return back
        try:
            answer: HttpResponse | None = (self._ask if action in QUESTIONS else self._change)(request, row, action)
        except OperationalError as error:
            self.message_user(request, str(error), messages.ERROR)
            return back
        return answer or back

    def _change(self: Any, request: HttpRequest, row: Worker, action: str) -> HttpResponse | None:
        form = next(form for form in FORMS if action in form.changes)(row, request.POST)
        if not form.is_valid():
            return self._refuse(request, row, action, form)  # type: ignore[no-any-return]
        order = replace(CHANGES[action], arguments=form.cleaned_data)
        began = time.monotonic()
        answers = answers_to(order, [row.name])
        self.log_change(request, row, f"{order.label}: {form.told()}")
        tell(self.message_user, request, order, [row.name], answers, time.monotonic() - began)
        return None

    def _refuse(self: Any, request: HttpRequest, row: Worker, action: str, form: DeskForm) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"{row.name}: {CHANGES[action].label}",
            "trail": self._trail(row),
            "form": form,
            "buttons": [(action, CHANGES[action].label)],
            "back": self._trail(row)[-1][0],
            "opts": self.opts,
            "media": self.media,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/django_tasks/worker_refused.html", context)

    def _ask(self: Any, request: HttpRequest, row: Worker, action: str) -> HttpResponse:
        order = QUESTIONS[action]
        began = time.monotonic()
        answers = answers_to(order, [row.name])
        self.log_change(request, row, str(order.label))
        answer = (answers or {}).get(row.name)
        told = answer if isinstance(answer, dict) else {}
        context = {
            **self.admin_site.each_context(request),
            "title": f"{row.name}: {order.label}",
            "trail": self._trail(row),
            "silent": answer is None,
            "unheard": answers is None,
            "patience": f"{workers.PATIENCE:g}",
            "took": f"{time.monotonic() - began:.1f}",
            "error": short(told["error"], 500) if "error" in told else "",
            "other": action == "stats" and told.get("pid", row.pid) != row.pid,
            "text": str(told.get("ok", "")) if action == "stacks" else "",
            "processes": processes_of(told),
            "sections": sections_of(told) if action == "stats" and "error" not in told else [],
            "action": action,
            "back": self._trail(row)[-1][0],
            "opts": self.opts,
            "media": self.media,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/django_tasks/worker_answer.html", context)

    def _trail(self: Any, row: Worker) -> list[tuple[str, str]]:
        site = self.admin_site.name
        return [
            (reverse("admin:django_tasks_worker_changelist", current_app=site), str(self.opts.verbose_name_plural)),
            (reverse("admin:django_tasks_worker_change", args=(row.pk,), current_app=site), row.name),
        ]


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


# What a worker tells; one of another release may tell less ------------------------------------------------------------


def processes_of(told: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return for each process its id, its memory and its processor time, as far as the system tells."""
    found = []
    for pid, usage in list(_mapping(told.get("processes")).items())[:MOST]:
        memory, cpu = (_number(_mapping(usage).get(name)) for name in ("memory_kib", "cpu_seconds"))
        shown = "–" if memory is None else filesizeformat(1024 * memory)
        found.append((short(pid), shown, words.duration(cpu)))
    return found


def sections_of(told: Mapping[str, Any]) -> list[tuple[Any, list[tuple[Any, Any]]]]:
    """Return what the answer to ``stats`` tells besides, as sections of a page."""
    pool, broker, scale = (_mapping(told.get(name)) for name in ("pool", "broker", "autoscaler"))
    uptime, skew = _number(told.get("uptime")), _number(told.get("clock_skew"))
    prefetch = _number(told.get("prefetch_count"))
    totals = {name: _number(count) or 0.0 for name, count in _mapping(told.get("total")).items()}
    most = sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST]
    about = [
        (_("Up for"), "" if uptime is None else words.duration(uptime)),
        (_("Clock"), "" if skew is None else _skew(skew)),
        (_("Broker"), _joined(broker.get(name) for name in ("transport", "hostname", "port", "virtual_host"))),
        (_("Prefetch"), _("as many as fit into a moment") if not prefetch else words.amount(prefetch)),
        (_("Autoscale"), _joined((scale.get("min"), scale.get("max")), " – ")),
        (_("Tasks per process"), _joined([pool.get("max-tasks-per-child")])),
        (_("Time limits, soft and hard"), _joined((f"{limit} s" if limit else "–" for limit in _list(pool)), ", ")),
        (_("Version"), _joined([told.get("version")])),
    ]
    ran = [(short(name), words.amount(count)) for name, count in most]
    return [(_("Worker"), about), *([(_("Tasks run"), ran)] if ran else [])]


def _skew(seconds: float) -> str:
    if abs(seconds) < ALIKE:
        return _("as the database's")
    text = _("%s behind the database's") if seconds > 0 else _("%s ahead of the database's")
    return text % words.duration(abs(seconds))


def _list(pool: Mapping[str, Any]) -> Sequence[Any]:
    limits = pool.get("timeouts")
    return limits if isinstance(limits, list) else ()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _joined(values: Iterable[Any], between: str = " ") -> str:
    return between.join(short(value) for value in values if value not in (None, "", "N/A"))
