"""Pages of the admin that are no lists of rows: what they have in common, and the overview."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import get_script_prefix, path, reverse
from django.utils import timezone
from django.utils.cache import get_conditional_response
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from .. import access
from ..audit import Audited
from ..models import Limit
from ..replica import reads_from
from . import board, panels
from .json_numbers import overview_json
from .numbers import SPANS, Span, span_called
from .overview import Overview, overview
from .prometheus import metrics
from .showing import ShowingAdmin

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

#: Lines of history on a page.
HISTORY: Final = 20
#: Seconds between looks that the reader may choose from; the first one is the choice of who does not choose.
EVERY: Final = (5, 2, 15)
#: Fragments that are kept, so that who has seen the newest one costs nothing.
MOST_KEPT: Final = 64


class PageAdmin(ShowingAdmin, Audited, ModelAdmin):
    """Has a place in the admin's index, and permissions, and nothing to add, change or delete."""

    page_template: ClassVar[str]

    class Media:
        css: ClassVar = {"all": ("django_tasks/admin.css", "django_tasks/cockpit.css")}
        js: ClassVar = ("django_tasks/live.js",)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, f"view_{self.opts.model_name}")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def may(self, request: HttpRequest, permission: str) -> bool:
        """Has this person that permission of ours, and is not to look only?"""
        acts = not permission.startswith("view_")
        return request.user.has_perm(f"django_tasks.{permission}") and not (acts and access.is_read_only(request))

    def require(self, request: HttpRequest, permission: str) -> None:
        """Raises ``PermissionDenied`` for who has not that permission, whatever they were shown."""
        if not self.may(request, permission):
            raise PermissionDenied

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self.index(request)

    def index(self, request: HttpRequest) -> HttpResponse:
        """Return the page."""
        raise NotImplementedError

    def url(self, view: str, *args: Any) -> str:
        """Return the address of a page of ours on this site, as ``queue_changelist``."""
        quoted = [quote(arg) for arg in args]
        return reverse(f"admin:django_tasks_{view}", args=quoted, current_app=self.admin_site.name)

    def limit_url(self, request: HttpRequest, kind: str, name: str) -> str:
        """Return where the rate and the concurrency of a queue or a task are, or are set for the first time; ``""`` for
        who may not see that."""
        key = Limit.objects.using(reads_from()).filter(kind=kind, name=name).values_list("pk", flat=True).first()
        if key is None:
            query = urlencode({"kind": kind, "name": name})
            return f"{self.url('limit_add')}?{query}" if self.may(request, "add_limit") else ""
        may = request.user.has_perm("django_tasks.view_limit") or request.user.has_perm("django_tasks.change_limit")
        return self.url("limit_change", key) if may else ""

    def audit(self, request: HttpRequest, obj: Any, sentence: str) -> None:
        """Write into the history of what ``obj`` stands for, and into the log, what this person did."""
        self.log_change(request, obj, sentence)

    def history_of(self, key: str) -> list[LogEntry]:
        """Return what people did to it, the newest first."""
        kind = ContentType.objects.get_for_model(self.model, for_concrete_model=False)
        entries = LogEntry.objects.filter(content_type=kind, object_id=key).select_related("user")
        return list(entries.order_by("-action_time")[:HISTORY])

    def page(self, request: HttpRequest, template: str, title: str, **context: Any) -> TemplateResponse:
        """Return a page within the admin's frame."""
        request.current_app = self.admin_site.name
        told = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "media": self.media,
            **context,
        }
        return TemplateResponse(request, f"admin/django_tasks/{template}", told)


class OverviewAdmin(PageAdmin):
    """Is it working? What waits, and how long? What fails?"""

    never_behind = frozenset({"metrics"})  # they raise alarms

    def get_urls(self) -> list[Any]:
        # Who scrapes is nobody that could log in: the view itself says who may see it.
        return [
            path("metrics", metrics, name="django_tasks_overview_metrics"),
            path("overview.json", overview_json, name="django_tasks_overview_json"),
            *super().get_urls(),
        ]

    def index(self, request: HttpRequest) -> HttpResponse:
        span = span_of(request)
        found = overview(span)

        site = request.current_app = self.admin_site.name

        def render() -> str:
            told = {**panels.of_overview(found), "may_retry": may_retry}
            rows = board.rows(request, lambda name: render_fragment(f"panels/{name}.html", request, told, site), own)
            return render_fragment("overview_content.html", request, rows, site)

        own = board.versions(request)
        person = request.user.pk if own else None
        may_retry = self.may(request, "view_taskresult") and self.may(request, "retry_taskresult")
        fragment = _fragment(("overview", site, span.name, person, may_retry, *own.items()), found, render)
        if "fragment" in request.GET:
            return live_answer(request, fragment)
        return self.page(
            request,
            "overview.html",
            _("Overview"),
            content=fragment.html,
            may_retry=may_retry,
            spans=SPANS.values(),
            span=span,
            every=EVERY,
        )


def span_of(request: HttpRequest) -> Span:
    """Return how far back the page is to look; what an address says wrongly is an hour."""
    return span_called(request.GET.get("span", ""))


# Fragments -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a page that is fetched anew while somebody looks at it."""

    html: str
    etag: str


_lock = threading.Lock()
_fragments: dict[tuple[Any, ...], tuple[object, Fragment]] = {}


def render_fragment(template: str, request: HttpRequest, context: Mapping[str, Any], site: str) -> str:
    """Return a fragment as HTML; its links lead into this site."""
    request.current_app = site
    return render_to_string(f"admin/django_tasks/{template}", dict(context), request)


def _fragment(key: tuple[Hashable, ...], source: Overview, render: Callable[[], str]) -> Fragment:
    """Return the fragment made of ``source``, the same one as long as that is the same one."""
    key = (*key, get_language() or "", timezone.get_current_timezone_name(), get_script_prefix())
    with _lock:
        made_of, fragment = _fragments.get(key, (None, Fragment("", "")))
    if made_of is source:
        return fragment
    fragment = new_fragment(render())
    with _lock:
        if len(_fragments) >= MOST_KEPT:
            _fragments.clear()
        _fragments[key] = (source, fragment)
    return fragment


def new_fragment(html: str) -> Fragment:
    """Return a fragment of this HTML."""
    return Fragment(html, f'"{hashlib.sha256(html.encode()).hexdigest()[:32]}"')


def live_answer(request: HttpRequest, fragment: Fragment) -> HttpResponse:
    """Answer who asks whether there is anything new; an answer never makes a session live longer."""
    if not request.session.modified:
        # What is not there is not saved, even if a site saves all sessions with each request.
        del request.session
    response = HttpResponse(fragment.html, headers={"ETag": fragment.etag, "Cache-Control": "private, no-cache"})
    # Who compresses answers makes the tag a weak one, which is as good here.
    return get_conditional_response(request, etag=fragment.etag, response=response) or response
