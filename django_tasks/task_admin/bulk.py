"""The pages of bulk operations: how far they are, and a button to stop them."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import access, actions, audit, bulk, changelists, display
from ..actions import REASONS
from ..cockpit.pages import EVERY, live_answer, new_fragment, render_fragment
from ..conf import settings
from ..display import moment
from ..models import BulkOperation
from .base import ReadOnlyAdmin, Row, seconds

#: Seconds for which a request works itself, where no worker does; and rows per batch then.
HERE, BATCH_HERE = 0.5, 50


class BulkOperationAdmin(ReadOnlyAdmin):
    """Actions on all that match."""

    change_form_template = "admin/django_tasks/bulk.html"
    list_display = ("shown", "state_badge", "progress", "user_name", "created", "ended")
    changelist_class = changelists.PagedChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        if request.user.has_perm("django_tasks.view_bulkoperation"):
            return rows
        return rows.filter(user_id=str(request.user.pk))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # A list of one's own is for everybody who could have begun one.
        user: Any = request.user
        mine = obj.user_id == str(user.pk) if obj is not None else any(map(user.has_perm, _needed()))
        return mine or super().has_view_permission(request, obj)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if "fragment" not in request.GET:
            return super().change_view(request, object_id, form_url, extra_context)
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        context = {**self.detail(request, row), "original": row}
        html = render_fragment("bulk_content.html", request, context, self.admin_site.name)
        return live_answer(request, new_fragment(html))

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.order_view)
        orders = [path(f"<int:pk>/{order}/", view, {"order": order}) for order in ("abort", "resume", "work")]
        return [*orders, *super().get_urls()]

    @admin.display(description=gettext_lazy("action"))
    def shown(self, row: BulkOperation) -> str:
        known = actions.BY_NAME.get(row.action)
        return f"{known.of_many if known else row.action} ({row.pk})"

    @admin.display(description=gettext_lazy("state"))
    def state_badge(self, row: BulkOperation) -> SafeString:
        return format_html('<span class="djt-state djt-bulk-{}">{}</span>', row.state, row.get_state_display())

    @admin.display(description=gettext_lazy("rows"))
    def progress(self, row: BulkOperation) -> str:
        return f"{row.seen:,}" if row.total is None else f"{row.seen:,} / {row.total:,}"

    @admin.display(description=gettext_lazy("created"))
    def created(self, row: BulkOperation) -> Any:
        return moment(row.created_at)

    @admin.display(description=gettext_lazy("finished"))
    def ended(self, row: BulkOperation) -> Any:
        return moment(row.finished_at)

    def may_abort(self, request: HttpRequest, row: BulkOperation) -> bool:
        """May this person stop it? Whoever might do the same themselves, also while nothing else may be done."""
        known = actions.BY_NAME.get(row.action)
        return known is not None and request.user.has_perm(known.needs)

    def may_go_on(self, request: HttpRequest, row: BulkOperation) -> bool:
        """May this person let it go on? It does so as who began it, who may see other rows than this person."""
        user: Any = request.user
        sees_all = settings.ADMIN_TASK_FILTER is None or user.is_superuser or row.user_id == str(user.pk)
        return sees_all and self.may_abort(request, row) and not access.is_read_only(request)

    def order_view(self, request: HttpRequest, pk: int, order: str) -> HttpResponse:
        """Stop an operation, go on with it in the background, or do a little of it here."""
        row = self.get_queryset(request).filter(pk=pk).first()
        if row is None:
            raise Http404
        may = self.may_abort if order == "abort" else self.may_go_on
        if request.method != "POST" or not may(request, row):
            raise PermissionDenied
        if order == "abort":
            done, text = bulk.abort(row, request.user.get_username()), _("Asked to stop")
        elif order == "resume":
            done, text = bulk.resume(row), _("Goes on")
        else:
            bulk.work(row.pk, HERE, BATCH_HERE)
            return HttpResponseRedirect(self._page_of(row))
        if done:
            audit.record(request.user, [row], {str(row.pk): text})
        self.message_user(request, text if done else _("It has ended already."), messages.SUCCESS)
        return HttpResponseRedirect(self._page_of(row))

    def _page_of(self, row: BulkOperation) -> str:
        return reverse("admin:django_tasks_bulkoperation_change", args=(row.pk,), current_app=self.admin_site.name)

    def detail(self, request: HttpRequest, obj: BulkOperation) -> dict[str, Any]:
        known = actions.BY_NAME.get(obj.action)
        filters = json.loads(obj.filters)
        rows: list[Row] = [
            (_("Action"), known.of_many if known else obj.action),
            (_("Search"), obj.search),
            *((_("Filter"), f"{key}: {value}") for key, value in filters.items()),
            *((display.short(key), value) for key, value in json.loads(obj.parameters).items()),
            (_("Asked for by"), obj.user_name),
            (_("Created"), moment(obj.created_at)),
            (_("Started"), moment(obj.started_at)),
            (_("Finished"), moment(obj.finished_at)),
            (_("Stopped by"), obj.aborted_by),
        ]
        seen, total = obj.seen, obj.total
        return {
            "state_badge": self.state_badge(obj),
            "sections": [(_("What is done"), rows)],
            "seen": f"{seen:,}",
            "total": "" if total is None else f"{total:,}",
            # What ended meanwhile is not found any more, so there may be fewer in the end than in the beginning.
            "bar": None if total is None else {"value": seen if obj.is_active else total, "max": max(1, total, seen)},
            "changed": f"{obj.changed:,}",
            "reasons": [(REASONS.get(key, key), f"{count:,}") for key, count in json.loads(obj.reasons).items()],
            "took": seconds((obj.finished_at - obj.started_at).total_seconds())
            if obj.started_at and obj.finished_at
            else "",
            "may_abort": self.may_abort(request, obj),
            "may_go_on": self.may_go_on(request, obj),
            "hindrance": bulk.hindrance(obj) if obj.is_active else None,
            "every": EVERY,
        }


def _needed() -> set[str]:
    return {one.needs for one in actions.BY_NAME.values()}
