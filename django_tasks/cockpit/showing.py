"""Which pages a replica serves (``ADMIN_READ_DB``): those that only show, but not to who has just changed something."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, wraps
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, ClassVar, Final

from asgiref.sync import iscoroutinefunction
from django.contrib import admin
from django.db import DataError, Error
from django.db.models import QuerySet
from django.db.utils import DatabaseErrorWrapper
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.response import SimpleTemplateResponse
from django.urls import URLPattern, reverse
from django.utils.translation import gettext as _

from .. import doctor
from ..exceptions import OperationalError
from ..replica import LAG, reading_from, reads_from, replica

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = object

logger = logging.getLogger("django_tasks.admin")

#: The cookie of who changed something. It says nothing else, so it need not be signed.
COOKIE: Final = "django_tasks_changed"
#: Pages on which rows are changed, by the ends of their views' names.
FORMS: Final = frozenset({"add", "change", "delete"})

View = Callable[..., Any]


class ShowingAdmin(ModelAdmin):
    """An admin whose pages read from the replica where they only show. Whatever is posted, and where that leads, is of
    the database of the tasks."""

    #: Pages that must not be behind, by the ends of their views' names.
    never_behind: ClassVar[frozenset[str]] = frozenset()

    @property
    def urls(self) -> list[Any]:
        found: list[Any] = super().urls
        for one in found:
            # A project's class may have others besides: included ones, and asynchronous views.
            if isinstance(one, URLPattern) and not iscoroutinefunction(one.callback):
                one.callback = self._showing(one.callback, (one.name or "").rpartition("_")[2] in self.never_behind)
        return found

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(reads_from())

    def _showing(self, view: View, is_never_behind: bool) -> View:
        @wraps(view)
        def shown(request: HttpRequest, *args: Any, **named: Any) -> Any:
            alias = replica()
            if alias is None:
                return view(request, *args, **named)
            if request.method in ("GET", "HEAD"):
                if is_never_behind or COOKIE in request.COOKIES:
                    return view(request, *args, **named)
                return self._shown(request, alias, partial(view, request, *args, **named))
            answer = view(request, *args, **named)
            site = reverse("admin:index", current_app=self.admin_site.name)
            its = {"path": site, "secure": request.is_secure(), "httponly": True, "samesite": "Lax"}
            answer.set_cookie(COOKIE, "1", max_age=LAG, **its)
            return answer

        return shown

    def _shown(self, request: HttpRequest, alias: str, answered: Callable[[], Any]) -> Any:
        """Return an answer that is read from the replica, also what of it is read only when it is rendered."""
        try:
            with reading_from(alias):
                answer = answered()
        except (Error, OperationalError) as error:
            if isinstance(error, DataError) or _alias_of(error) != alias:
                raise
            logger.exception("The database %s, from which pages read, cannot be used", alias)
            return self._away(request, error)
        if isinstance(answer, SimpleTemplateResponse) and not answer.is_rendered:
            answer.render = partial(self._rendered, request, alias, answer)  # type: ignore[method-assign]
        return answer

    def _rendered(self, request: HttpRequest, alias: str, answer: SimpleTemplateResponse) -> Any:
        del answer.render
        return self._shown(request, alias, answer.render)

    def _away(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Say that the replica cannot be used; what the server says only to who may see the page of health."""
        user: Any = request.user
        problem = doctor.of_replica(error if user.has_perm("django_tasks.view_health") else type(error).__name__)
        if request.path.endswith(".json"):
            return JsonResponse({"error": problem.problem}, status=503)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Error"),
            "problems": [problem],
            "opts": self.opts,
            "media": self.media,
        }
        request.current_app = self.admin_site.name
        return render(request, "admin/django_tasks/health.html", context, status=503)


def _alias_of(error: Exception) -> str | None:
    """Return of which database an error is, which it does not say itself: what translated the driver's error knows the
    connection. (Its ``errors_occurred`` is taken back by a rollback, as each time limit on PostgreSQL has one.)"""
    first = error if isinstance(error, Error) else error.__cause__  # the engine's errors are raised from Django's
    for frame, _line in walk_tb(first.__traceback__ if first else None):
        translator = frame.f_locals.get("self")
        if isinstance(translator, DatabaseErrorWrapper):
            return str(translator.wrapper.alias)  # type: ignore[attr-defined] # of which the stubs do not know
    return None
