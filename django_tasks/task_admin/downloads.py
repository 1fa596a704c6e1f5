"""Arguments and results as files, whole where a page shows their beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import content_disposition_header

from .. import display
from ..exceptions import OperationalError, UnknownResult
from ..models import Call, TaskResult

if TYPE_CHECKING:
    from .calls import CallAdmin

ARGUMENTS: Final = "arguments"
RESULT: Final = "result"


def addresses(admin: CallAdmin, call: Call) -> dict[str, str]:
    """Return where what there is of a call can be had as a file."""
    found = [ARGUMENTS] if display.is_readable(call.encoding) else []
    if isinstance(call, TaskResult) and call.result is not None and display.is_readable(call.result_encoding):
        found.append(RESULT)
    name = f"admin:django_tasks_{admin.opts.model_name}_download"
    return {what: reverse(name, args=(quote(call.pk), what), current_app=admin.admin_site.name) for what in found}


def download_view(admin: CallAdmin, request: HttpRequest, object_id: str, what: str) -> HttpResponse:
    """Give the arguments or the result as JSON, hidden what is hidden on the page, to be kept and not to be opened."""
    if not (admin.has_view_permission(request) and admin.sees_payload(request)):
        raise PermissionDenied
    call = admin.get_object(request, object_id)
    if call is None or what not in addresses(admin, call):
        raise Http404
    try:
        value = display.call_of(call) if what == ARGUMENTS else display.value_of(call)
    except (display.Unreadable, UnknownResult, OperationalError) as reason:
        raise Http404(str(reason)) from reason
    headers = {
        "Content-Disposition": content_disposition_header(True, f"{call.pk}-{what}.json") or "attachment",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return HttpResponse(display.written(value), content_type="application/octet-stream", headers=headers)
