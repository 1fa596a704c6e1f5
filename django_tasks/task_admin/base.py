"""What all pages have in common that only show rows, and how values look on them."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin
from django.contrib.admin import helpers
from django.contrib.admin.utils import quote
from django.core.exceptions import BadRequest, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from .. import access, changelists, display, states
from ..cockpit.showing import ShowingAdmin

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

#: Where a line may break: between the parts of a name.
_BREAK: Final = re.compile(r"[._]+(?=\w)")

#: A label, and what to show beside it; "" shows nothing.
Row = tuple[Any, Any]


class ReadOnlyAdmin(ShowingAdmin, ModelAdmin):
    """Shows rows of the database that holds the tasks, quickly and to be read only."""

    change_form_template = "admin/django_tasks/detail.html"
    list_per_page = 100
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    fields = ()
    #: The names that an address may filter by. Any other look-up would let people search what they may not see.
    filters: ClassVar[frozenset[str]] = frozenset()
    changelist_class: type[changelists.PagedChangeList] = changelists.PagedChangeList

    class Media:
        css: ClassVar = {"all": ("django_tasks/admin.css", "django_tasks/tasks.css")}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[changelists.PagedChangeList]:
        return self.changelist_class

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *place: Any, **named: Any) -> Any:
        try:
            for key in request.POST.getlist(helpers.ACTION_CHECKBOX_NAME):
                self.opts.pk.to_python(key)
        except ValidationError as error:
            raise BadRequest("No row has such a key") from error
        # Django 6.1 says where the action was offered.
        return super().response_action(request, queryset, *place, **named)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return queryset, False  # the list itself knows how to search

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.filters

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def may(self, request: HttpRequest, permission: str) -> bool:
        """Has this person a permission of ours to change something, and is this the time for changes?"""
        full = permission if "." in permission else f"django_tasks.{permission}"
        return not access.is_read_only(request) and request.user.has_perm(full)

    def sees_payload(self, request: HttpRequest) -> bool:
        """May this person read arguments, results and what errors say? Else types and sizes."""
        return request.user.has_perm("django_tasks.view_payload")

    # Pages

    def render_change_form(
        self,
        request: HttpRequest,
        context: Any,
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> Any:
        context.update(self.detail(request, obj))
        return super().render_change_form(request, context, add, change, form_url, obj)

    def detail(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return what the page of a row shows."""
        raise NotImplementedError

    def link(self, model: str, pk: Any, text: Any) -> SafeString:
        """Return a link to the page of a row."""
        url = reverse(f"admin:django_tasks_{model}_change", args=(quote(pk),), current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, text)


# Values on pages -----------------------------------------------------------------------------------------------------


def badge(call: Any) -> SafeString:
    """Return a state as people are told it, coloured if it is one of ours."""
    shown = getattr(call, "shown_state", call.state)
    known = call.state.lower() if call.state in states.UNFINISHED | states.FINISHED else "other"
    return format_html('<span class="djt-state djt-{}">{}</span>', known, display.short(shown, 64))


@functools.lru_cache(maxsize=1_000)
def breakable(name: str) -> SafeString:
    """Return a dotted name that a line may break behind its dots and underscores."""
    return mark_safe(_BREAK.sub(r"\g<0><wbr>", escape(name)))  # noqa: S308 - it is escaped, and no entity has either


def line(text: str) -> SafeString | str:
    """Return a text that a narrow list shows the beginning of."""
    return format_html('<span class="djt-line">{}</span>', text) if text else ""


def seconds(duration: float | None) -> str:
    """Return a duration to three digits, as ``0.25 s`` or ``3.1 ms``; ``""`` for none."""
    if duration is None:
        return ""
    if 0 < duration < 0.1:
        return f"{duration * 1_000:.3g} ms"
    return f"{duration:.3g} s" if duration < 100 else f"{duration:,.0f} s"
