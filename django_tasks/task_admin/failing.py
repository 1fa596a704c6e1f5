"""The page of failures, grouped by task, exception and place: each group can be run again, acknowledged and muted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import audit, failures, paging
from ..cockpit import overview
from ..conf import settings
from ..display import moment, short
from ..models import TaskResult
from ..replica import reads_from
from ..search import words_for_failures
from .base import breakable

if TYPE_CHECKING:
    from .ledger import TaskResultAdmin

#: How far back it looks: what the address says, and what that is called.
SPANS: Final[dict[str, tuple[timedelta, Any]]] = {
    "1h": (timedelta(hours=1), gettext_lazy("last hour")),
    "1d": (timedelta(days=1), gettext_lazy("last day")),
    "7d": (timedelta(days=7), gettext_lazy("last 7 days")),
    "30d": (timedelta(days=30), gettext_lazy("last 30 days")),
}
#: Groups that are shown.
MOST: Final = 100


#: What can be done to a group, and what is written down of it.
ORDERS: Final[Mapping[str, Any]] = {
    "acknowledge": gettext_lazy("Acknowledged"),
    "unacknowledge": gettext_lazy("Not acknowledged any more"),
    "mute": gettext_lazy("Muted for 24 hours"),
    "unmute": gettext_lazy("Not muted any more"),
}


def failures_view(admin: TaskResultAdmin, request: HttpRequest) -> HttpResponse:
    """Show what failed since a while, or do something to a group of it."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    if request.method == "POST":
        _obey(admin, request)
        return HttpResponseRedirect(request.get_full_path())
    span = request.GET.get("since", "1d")
    if span not in SPANS:
        span = "1d"
    is_aside = "aside" in request.GET
    found = _found(admin, request, admin.get_queryset(request), span)
    shown, others = (found.aside, found.groups) if is_aside else (found.groups, found.aside)
    results = reverse("admin:django_tasks_taskresult_changelist", current_app=admin.admin_site.name)
    rows = [
        {
            "group": group,
            "name": breakable(short(group.kind.name)),
            "exception": short(group.kind.exception),
            "count": f"{group.count:,}",
            "first": moment(group.first),
            "last": moment(group.last),
            "spark": _spark(group.counts),
            "url": f"{results}?{query}" if (query := _query(group.kind, span)) else "",
        }
        for group in shown[:MOST]
    ]
    context = {
        **admin.admin_site.each_context(request),
        "title": _("Failures"),
        "rows": rows,
        "total": f"{found.total if found.capped else sum(group.count for group in shown):,}",
        "capped": found.capped,
        "hidden": max(0, len(shown) - MOST),
        "others": len(others),
        "is_aside": is_aside,
        "span": span,
        "spans": [(name, label, name == span) for name, (_length, label) in SPANS.items()],
        "may_retry": admin.may(request, "retry_taskresult"),
        "may_acknowledge": admin.may(request, "acknowledge_failure"),
        "opts": admin.opts,
        "media": admin.media,
    }
    request.current_app = admin.admin_site.name
    return TemplateResponse(request, "admin/django_tasks/failures.html", context)


def _found(admin: TaskResultAdmin, request: HttpRequest, rows: QuerySet[TaskResult], span: str) -> failures.Failures:
    """Return what of these results failed; nothing, and say so, if that takes too long."""
    now = datetime.now(UTC)
    try:
        with paging.time_limit(reads_from()):
            return failures.grouped(rows, now - SPANS[span][0], now, failures.LOOKED_AT)
    except paging.TooSlow:
        text = _("This took too long and was broken off: narrow it by task, state or time.")
        admin.message_user(request, text, messages.WARNING)
        return failures.Failures([], [], 0, False)


def _obey(admin: TaskResultAdmin, request: HttpRequest) -> None:
    """Do to a group what a form says, and say what was done."""
    order = request.POST.get("action", "")
    if order not in ORDERS or not admin.may(request, "acknowledge_failure"):
        raise PermissionDenied
    key = request.POST.get("group", "")
    mine = _of_key(_found(admin, request, admin.get_queryset(request), "30d"), key)
    if mine is None:
        admin.message_user(request, _("Nothing has failed so any more."), messages.WARNING)
        return
    if settings.ADMIN_TASK_FILTER is not None:
        every = _of_key(_found(admin, request, TaskResult.objects.using(settings.DATABASE), "30d"), key)
        if every is None or every.count > mine.count:  # what is said of a group holds for all who look
            text = _("You may not see all that failed so: only who does can acknowledge or mute it.")
            admin.message_user(request, text, messages.ERROR)
            return
    by = request.user.get_username()
    match order:
        case "acknowledge":
            mark = failures.acknowledge(mine.kind, by)
        case "unacknowledge":
            mark = failures.unacknowledge(mine.kind)
        case "mute":
            mark = failures.mute(mine.kind, by)
        case _:
            mark = failures.unmute(mine.kind)
    audit.record(request.user, [mark], {mark.pk: str(ORDERS[order])})
    admin.message_user(request, f"{ORDERS[order]}: {short(mark)}", messages.SUCCESS)
    overview.forget()


def _of_key(found: failures.Failures, key: str) -> failures.Group | None:
    return next((group for group in (*found.groups, *found.aside) if group.kind.key == key), None)


def _query(kind: failures.Kind, span: str) -> str:
    """Return what the list of results is asked to show this group; ``""`` if it cannot be asked for this one alone."""
    words = words_for_failures(kind)
    if words is None:
        return ""
    return urlencode({"state": "FAILURE", "name": kind.name, "q": f"since:{span} {words}"})


def _spark(counts: list[int]) -> SafeString:
    """Return small bars, one for each part of the time."""
    top = max(counts) or 1
    bars = format_html_join(
        "",
        '<rect x="{}" y="{}" width="4" height="{}"></rect>',
        ((str(at * 5), f"{20 - 20 * count / top:.2f}", f"{20 * count / top:.2f}") for at, count in enumerate(counts)),
    )
    return format_html(
        '<svg class="djt-failures" aria-hidden="true" viewBox="0 0 {} 20" width="{}" height="20">{}</svg>',
        str(5 * len(counts)),
        str(5 * len(counts)),
        bars,
    )
