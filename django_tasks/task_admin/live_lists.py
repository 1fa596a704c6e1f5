"""Lists whose newest page follows what happens, while somebody looks and has the switch on."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..changelists import FRAGMENT, for_fragment
from ..cockpit.pages import EVERY, live_answer, new_fragment, render_fragment
from .base import ReadOnlyAdmin

#: The status of what is asked for too often: who asks waits longer each time.
TOO_OFTEN: Final = 429


class LiveList(ReadOnlyAdmin):
    """Gives the rows of its list anew."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if request.method != "GET" or FRAGMENT not in request.GET:
            return super().changelist_view(request, {"every": EVERY, **(extra_context or {})})
        if not self.has_view_permission(request):
            raise PermissionDenied
        for_fragment(request)
        try:
            listed: Any = self.get_changelist_instance(request)
        except IncorrectLookupParameters as error:
            raise BadRequest(str(error)) from error
        if not listed.live_url:
            return HttpResponse(status=TOO_OFTEN)
        listed.formset = None  # before Django 6, the view sets it
        context = {
            "cl": listed,
            "opts": self.opts,
            "selection_note": _("0 of %(cnt)s selected") % {"cnt": len(listed.result_list)},  # as Django's view says it
        }
        html = render_fragment("list_now.html", request, context, self.admin_site.name)
        return live_answer(request, new_fragment(html))
