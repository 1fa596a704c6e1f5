"""The views of lists that people keep, and the columns that they choose: links that work without any script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import label_for_field
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..changelists import COLUMNS, PLACE
from ..models import SavedView
from ..replica import reads_from
from .base import ReadOnlyAdmin

#: Views that a person keeps of a list, and characters of one.
MOST, LONGEST = 30, 2_000


class ViewForm(forms.Form):
    """What a view is called, and what it shows."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=64)
    query = forms.CharField(max_length=LONGEST, required=False, widget=forms.HiddenInput)


class OwnViewsAdmin(ReadOnlyAdmin):
    """A list whose columns can be chosen, and which can be kept as it is."""

    #: What tells rows apart, so it cannot be left out.
    always: Final = "task_name"
    #: What a list shows only to who chooses it: seldom wanted, and all of a list's time is that of its cells.
    if_chosen: ClassVar[frozenset[str]] = frozenset()

    def get_urls(self) -> list[Any]:
        view: Callable[..., HttpResponse] = self.admin_site.admin_view(self.keep_view)
        return [path("views/", view, name=f"django_tasks_{self.opts.model_name}_views"), *super().get_urls()]

    def all_columns(self, request: HttpRequest) -> Sequence[str]:
        """Return the columns that this person may choose from, in order."""
        return self.list_display  # type: ignore[return-value]

    def get_list_display(self, request: HttpRequest) -> Any:
        return [one for one in self.all_columns(request) if one == self.always or self._shows(request, one)]

    def _shows(self, request: HttpRequest, column: str) -> bool:
        chosen = _columns(request.GET)
        return column in chosen if chosen else column not in self.if_chosen

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        chosen = request.GET.getlist("column")
        if chosen and request.method == "GET":  # the form's boxes; links carry the same as one word
            query = request.GET.copy()
            del query["column"]
            every = set(self.all_columns(request))
            query[COLUMNS] = ",".join(dict.fromkeys(one for one in chosen if one in every))
            return HttpResponseRedirect(f"{request.path}?{query.urlencode()}")
        return super().changelist_view(request, {**self._told(request), **(extra_context or {})})

    def keep_view(self, request: HttpRequest) -> HttpResponse:
        """Show the views of a person, keep one under a name, or forget it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return self._show_views(request)
        form = ViewForm(request.POST)
        here = HttpResponseRedirect(request.get_full_path())
        if not form.is_valid():
            self.message_user(request, _("A view needs a name of 64 characters at most."), messages.ERROR)
            return here
        name, query = form.cleaned_data["name"], _kept(QueryDict(form.cleaned_data["query"]))
        mine = self._mine(request)
        if "forget" in request.POST:
            mine.filter(name=name).delete()
            return here
        if mine.exclude(name=name).count() >= MOST:
            self.message_user(request, _("You keep %s views already: forget one first.") % MOST, messages.ERROR)
            return here
        own = {"user_id": str(request.user.pk), "page": str(self.opts.model_name), "name": name}
        mine.update_or_create(**own, defaults={"query": query})
        url = self._url("changelist")
        return HttpResponseRedirect(f"{url}?{query}" if query else url)

    def _show_views(self, request: HttpRequest) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": _("Saved views"),
            "opts": self.opts,
            "media": self.media,
            "trail": [(self._url("changelist"), capfirst(self.opts.verbose_name_plural))],
            "list_url": self._url("changelist"),
            "views": [(view.name, view.query) for view in self._mine(request)[:MOST]],
            "present_view": _kept(request.GET),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/django_tasks/saved_views.html", context)

    def _mine(self, request: HttpRequest) -> Any:
        rows = SavedView.objects.using(reads_from())
        return rows.filter(user_id=str(request.user.pk), page=self.opts.model_name)

    def _url(self, page: str) -> str:
        name = f"admin:django_tasks_{self.opts.model_name}_{page}"
        return reverse(name, current_app=self.admin_site.name)

    def _told(self, request: HttpRequest) -> dict[str, Any]:
        """Return what the page of the list shows of this."""
        return {
            "own_columns": bool(_columns(request.GET)),
            "views_url": self._url("views"),
            "present_view": _kept(request.GET),
            "columns": [
                (name, label_for_field(name, self.model, self), self._shows(request, name))
                for name in self.all_columns(request)
                if name != self.always
            ],
            "other_parameters": [
                (key, value) for key, values in request.GET.lists() for value in values if key not in (COLUMNS, *PLACE)
            ],
        }


def _columns(query: QueryDict) -> list[str]:
    return [one for one in query.get(COLUMNS, "").split(",") if one]


def _kept(query: QueryDict) -> str:
    """Return what of an address makes a view: all but where its page begins."""
    left_out = (*PLACE, "e", "p")
    return urlencode([(key, value) for key, values in query.lists() for value in values if key not in left_out])
