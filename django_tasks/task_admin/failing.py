"""The page of failures, grouped by task and exception, each group with a button to run all of it again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import failures
from ..display import moment, short
from ..search import word_for_exception

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


def failures_view(admin: TaskResultAdmin, request: HttpRequest) -> HttpResponse:
    """Show what failed since a while."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    span = request.GET.get("since", "1d")
    if span not in SPANS:
        span = "1d"
    now = datetime.now(UTC)
    found = failures.grouped(admin.get_queryset(request), now - SPANS[span][0], now)
    results = reverse("admin:django_tasks_taskresult_changelist", current_app=admin.admin_site.name)
    rows = [
        {
            "name": short(group.name),
            "exception": short(group.exception),
            "count": f"{group.count:,}",
            "first": moment(group.first),
            "last": moment(group.last),
            "spark": _spark(group.counts),
            "url": f"{results}?{query}" if (query := _query(group, span)) else "",
        }
        for group in found.groups[:MOST]
    ]
    context = {
        **admin.admin_site.each_context(request),
        "title": _("Failures"),
        "rows": rows,
        "total": f"{found.total:,}",
        "capped": found.capped,
        "hidden": max(0, len(found.groups) - MOST),
        "spans": [(name, label, name == span) for name, (_length, label) in SPANS.items()],
        "may_retry": admin.may(request, "retry_taskresult"),
        "opts": admin.opts,
        "media": admin.media,
    }
    request.current_app = admin.admin_site.name
    return TemplateResponse(request, "admin/django_tasks/failures.html", context)


def _query(group: failures.Group, span: str) -> str:
    """Return what the list of results is asked to show this group; ``""`` if it cannot be asked for this one alone."""
    word = word_for_exception(group.exception)
    if word is None:
        return ""
    return urlencode({"state": "FAILURE", "name": group.name, "q": f"since:{span} {word}"})


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
