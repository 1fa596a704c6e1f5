"""The page of what is wrong: the same as ``manage.py tasks doctor``."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from .. import doctor
from .pages import PageAdmin


class HealthAdmin(PageAdmin):
    """What is wrong, and how it is cured."""

    never_behind = frozenset({"changelist"})  # it tells of the replica, too

    def index(self, request: HttpRequest) -> HttpResponse:
        problems = doctor.examine(full=request.user.has_perm("django_tasks.view_payload"))
        return self.page(request, "health.html", _("Health"), problems=problems)
