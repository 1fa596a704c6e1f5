"""What people tell workers from the admin: each order is a command that the workers answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, dashboard
from ..audit import Audited
from ..control import control
from ..display import short
from ..exceptions import OperationalError, WouldBlockForever
from ..models import Worker
from . import words

#: Seconds for which a page waits for answers.
PATIENCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Order:
    """Something that workers can be told."""

    command: str
    label: Any
    #: What it does, if people are asked before.
    asks: Any = ""
    arguments: Mapping[str, Any] | None = None


ORDERS: Final[dict[str, Order]] = {
    "ping_selected": Order("ping", gettext_lazy("Ask whether they answer")),
    "quiet_selected": Order("quiet", gettext_lazy("Take nothing new")),
    "resume_selected": Order("resume", gettext_lazy("Take tasks again")),
    "grow_selected": Order("pool_grow", gettext_lazy("One process more"), arguments={"n": 1}),
    "shrink_selected": Order("pool_shrink", gettext_lazy("One process less"), arguments={"n": 1}),
    "restart_selected": Order(
        "pool_restart",
        gettext_lazy("Restart the processes"),
        gettext_lazy("Each process finishes what it runs, and a new one takes its place."),
    ),
    "shutdown_selected": Order(
        "shutdown",
        gettext_lazy("Shut down"),
        gettext_lazy(
            "They finish what they run, give back what they have not begun, and end. Nobody starts them again."
        ),
    ),
    "stop_selected": Order(
        "shutdown",
        gettext_lazy("Stop now (its tasks go to others)"),
        gettext_lazy(
            "What they run is killed, with all that it has started, and goes to other workers with the rest, from its "
            "beginning; what is to run at most once ends as failed. Nobody starts them again."
        ),
        arguments={"cold": True},
    ),
}


class WorkerOrders(Audited):
    """For the admin of workers: the orders as actions, in the list and on the page of a worker."""

    actions: Sequence[Any] | None = (*ORDERS, "forget_selected")

    def has_control_permission(self, request: HttpRequest) -> bool:
        """May this person tell workers what to do?"""
        return request.user.has_perm("django_tasks.control_worker") and not access.is_read_only(request)

    def order_buttons(self, request: HttpRequest, worker: Worker, status: str) -> list[tuple[str, Any]]:
        """Return the buttons on the page of a worker: orders for one that would hear them."""
        if not self.has_control_permission(request):
            return []
        if status not in ("online", "draining"):
            return [("forget_selected", _("Forget"))]
        return [(action, order.label) for action, order in ORDERS.items()]

    def give_order(self: Any, request: HttpRequest, queryset: QuerySet[Worker], action: str) -> HttpResponse | None:
        """Tell the chosen workers, and say who answered what; ask before, where that is due."""
        order, now = ORDERS[action], dashboard.database_now()
        chosen = [row for row in queryset if row.status(now) in ("online", "draining")]
        if not chosen:
            self.message_user(request, _("None of them is running."), messages.WARNING)
            return None
        if order.asks and not request.POST.get("post"):
            return _question(self, request, action, chosen, title=order.label, text=order.asks)
        began = time.monotonic()
        names = sorted({row.name for row in chosen})
        try:
            answers = answers_to(order, names)
        except OperationalError as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        for row in chosen:
            self.log_change(request, row, str(order.label))
        tell(self.message_user, request, order, names, answers, time.monotonic() - began)
        return None

    @admin.action(permissions=["control"], description=gettext_lazy("Forget what is lost or stopped"))
    def forget_selected(self: Any, request: HttpRequest, queryset: QuerySet[Worker]) -> HttpResponse | None:
        """Delete the rows of workers that are gone; ask before."""
        now = dashboard.database_now()
        gone = [row for row in queryset if row.status(now) in ("lost", "stopped")]
        if not gone:
            self.message_user(request, _("None of them is lost or stopped."), messages.WARNING)
            return None
        if not request.POST.get("post"):
            text = gettext_lazy("Nothing is told of them any more. Others may still know what they ran.")
            return _question(self, request, "forget_selected", gone, title=_("Forget"), text=text)
        deleted = [row for row in gone if row.forget(now)]
        self.log_deletions(request, deleted)
        if deleted:
            self.message_user(request, _("Forgotten: %s.") % words.amount(len(deleted)), messages.SUCCESS)
        if left := len(gone) - len(deleted):
            warning = _("Left alone, because they still hold tasks: %s.") % words.amount(left)
            self.message_user(request, warning, messages.WARNING)
        return None


def _question(
    page: Any, request: HttpRequest, action: str, chosen: Sequence[Worker], *, title: Any, text: Any
) -> HttpResponse:
    """Return the page that asks before something is done to workers."""
    context = {
        **page.admin_site.each_context(request),
        "title": title,
        "text": text,
        "action": action,
        "chosen": chosen,
        "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
        "opts": page.opts,
        "media": page.media,
    }
    request.current_app = page.admin_site.name
    return TemplateResponse(request, "admin/django_tasks/worker_confirm.html", context)


def answers_to(order: Order, names: Sequence[str]) -> dict[str, Any] | None:
    """Return the answers by worker; ``None`` where nobody can wait for them."""
    arguments = order.arguments or {}
    try:
        given = control.broadcast(order.command, arguments, names, reply=True, timeout=PATIENCE) or []
    except WouldBlockForever:  # a transaction around each request, on SQLite
        control.broadcast(order.command, arguments, names)
        return None
    return {name: answer for each in given for name, answer in each.items()}


def tell(
    say: Callable[..., object],
    request: HttpRequest,
    order: Order,
    names: Sequence[str],
    answers: Mapping[str, Any] | None,
    took: float,
) -> None:
    """Say what became of an order: who did so, who refused, and who is silent."""
    if answers is None:
        say(request, _("%s: sent.") % order.label, messages.SUCCESS)
        return
    refused = {
        name: answer["error"] for name, answer in answers.items() if isinstance(answer, dict) and "error" in answer
    }
    counts = {
        "order": order.label,
        "answered": len(answers) - len(refused),
        "all": len(names),
        "seconds": f"{took:.1f}",
    }
    text = _("%(order)s: %(answered)s of %(all)s did so (%(seconds)s s).") % counts
    say(request, text, messages.SUCCESS if counts["answered"] == len(names) else messages.WARNING)
    for name, reason in refused.items():
        say(request, f"{short(name)}: {short(reason, 500)}", messages.ERROR)
    if silent := [name for name in names if name not in answers]:
        text = _("No answer yet from %s; a busy worker obeys later.") % ", ".join(map(short, silent))
        say(request, text, messages.WARNING)


def _action(name: str) -> Callable[..., Any]:
    @admin.action(permissions=["control"], description=ORDERS[name].label)
    def act(self: Any, request: HttpRequest, queryset: QuerySet[Worker]) -> HttpResponse | None:
        answer: HttpResponse | None = self.give_order(request, queryset, name)
        return answer

    act.__name__ = name
    return act


for _name in ORDERS:
    setattr(WorkerOrders, _name, _action(_name))
