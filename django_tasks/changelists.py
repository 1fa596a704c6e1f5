"""The admin's lists: pages by bookmark, filters that an index serves or the registry knows, and a limit of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar, Final

from django.contrib import messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.db.models import Case, F, Func, IntegerField, Model, Q, QuerySet, When
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from . import access, dashboard, paging, states
from .conf import QUEUE_NAME
from .models import Task, TaskResult
from .registry import tasks
from .replica import reads_from
from .search import SearchError, Selection, is_class

#: Never read for a list: a page of payloads may be a hundred megabytes.
HEAVY = ("body", "options", "history", "result", "traceback", "meta")
#: The parameters that hold a bookmark: rows older, or newer, than it.
OLDER, NEWER = "older", "newer"
#: The parameter that names the columns, with commas; and the column for which payloads are read.
COLUMNS, ARGUMENTS = "columns", "arguments"
#: The parameter of who wants more of the table looked through than a page does at once.
FURTHER = "further"
#: The parameter of who has the page, and wants to know what of it is new.
FRAGMENT = "fragment"
#: What says where in a list one is, not what is in it.
PLACE = (OLDER, NEWER, FURTHER)
#: Seconds for which the rows of each state are counted at most.
COUNTING = 0.15
#: Seconds for which a page is looked for in all of a table, before it is in some of it.
QUICKLY = 0.025
#: Choices of a filter by what there was lately.
MOST_KNOWN = 30
#: Bytes of arguments that a list reads, and of options, which say what of them is hidden.
SMALL_BODY, SMALL_OPTIONS = 256, 4_096
#: Stands for the key of each row in what is made once for all.
_ANY = "djt0pk"
#: What a request keeps: that it asks for a fragment, and what its filters choose from.
_IS_FRAGMENT, _KNOWN = "_djt_is_fragment", "_djt_known"


def for_fragment(request: HttpRequest) -> None:
    """Take from a request that it asks for a fragment, so that no link carries that on, and remember it."""
    request.GET = query = request.GET.copy()  # type: ignore[assignment] # it is set back by nobody
    del query[FRAGMENT]
    setattr(request, _IS_FRAGMENT, True)


def say(request: HttpRequest, level: int, text: Any) -> None:
    """Tell the person something on the page; who has the page already was told."""
    if not hasattr(request, _IS_FRAGMENT):
        messages.add_message(request, level, text)


class Bytes(Func):
    """How long a text is as it is stored; PostgreSQL knows that without reading it."""

    function = "OCTET_LENGTH"
    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # OCTET_LENGTH is there from 3.43 on.
        return self.as_sql(compiler, connection, template="LENGTH(CAST(%(expressions)s AS BLOB))", **context)


class PagedChangeList(ChangeList):
    """A list whose every page costs the same. Subclasses say what orders it and which indexes serve it."""

    #: The columns that order it, newest first, the primary key last.
    keys: ClassVar[Sequence[str]] = ("id",)
    #: Filters under which an index bounds a count.
    counted_with: ClassVar[frozenset[str]] = frozenset()
    #: The column along which an index gives what is counted, if one does.
    count_order: ClassVar[str | None] = None
    #: Can its newest page follow what happens?
    is_live: ClassVar[bool] = False

    #: How many rows there are, in words; ``""`` if that is not known at a fair price.
    count_text: str = ""
    older_link: str = ""
    newer_link: str = ""
    newest_link: str = ""
    #: The address of what changes on this page; ``""`` if it is not one to be looked at again and again.
    live_url: str = ""
    _address: str | None = None
    #: It took so long that nothing more is asked than has to be.
    _is_slow: bool = False

    def get_filters(self, request: HttpRequest) -> Any:
        # Links to filters begin at the newest row, so they must not carry the bookmark.
        for name in PLACE:
            self.params.pop(name, None)
            self.filter_params.pop(name, None)
        return super().get_filters(request)

    def get_filters_params(self, params: Any = None) -> Any:
        found = super().get_filters_params(params)
        found.pop(COLUMNS, None)  # links carry it, and it filters nothing
        return found

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        return [f"-{key}" for key in self.keys]  # whatever ?o= asks for: no other order has an index

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        queryset = super().get_queryset(request, exclude_parameters)
        heavy = {field.name for field in self.opts.concrete_fields}.intersection(HEAVY)
        return queryset.defer(*heavy)

    def get_results(self, request: HttpRequest) -> None:
        is_fair = True
        try:
            page = self._page(request)
            is_fair = not page.cut
        except ValueError as error:
            raise IncorrectLookupParameters(error) from error
        except paging.TooSlow:
            page, is_fair = paging.Page([], None, None), False
            text = _("This took too long and was broken off: narrow it by task, state or time.")
            say(request, messages.WARNING, text)
        further = {}
        if page.cut or FURTHER in request.GET:
            further = {FURTHER: "1"}
        if page.cut:
            text = _("%(count)s rows were looked through so far, for what no index finds. There may be more beyond.")
            say(request, messages.INFO, text % {"count": f"{paging.REACH:,}"})
        self.result_list = page.rows
        self.result_count = self.full_result_count = len(page.rows)
        self.show_full_result_count = False
        self.show_admin_actions = True
        self.can_show_all = self.multi_page = False
        self.paginator = None
        self.older_link = self.get_query_string({OLDER: page.older, **further}) if page.older else ""
        self.newer_link = self.get_query_string({NEWER: page.newer, **further}) if page.newer else ""
        self.newest_link = self.get_query_string() if {OLDER, NEWER} & request.GET.keys() else ""
        if self.is_live and is_fair and not set(PLACE) & request.GET.keys():
            self.live_url = self.get_query_string({FRAGMENT: "1"})
        self.count_text = self._count_text(page)
        self.prepare(request, page.rows)

    def url_for_result(self, result: Any) -> str:
        # To find the address of each row, and the filters that it carries on, would take longer than to draw the row.
        if self._address is None:
            any_row: Any = SimpleNamespace(**{self.pk_attname: _ANY})
            carried: dict[str, Any] = {"preserved_filters": self.preserved_filters, "opts": self.opts}
            self._address = add_preserved_filters(carried, super().url_for_result(any_row))
            self.preserved_filters = ""
        return self._address.replace(_ANY, quote(str(getattr(result, self.pk_attname))))

    def _page(self, request: HttpRequest) -> paging.Page[Any]:
        """Return the page of the whole list, if that is found quickly or somebody said that it may take longer; else
        what there is of it among some rows."""
        bookmark, walks = self.bookmark(request), self.walks(self.unfiltered)
        patient = FURTHER in request.GET or not walks
        try:
            with paging.time_limit(reads_from(), paging.PATIENCE if patient else QUICKLY):
                rows = self.shown(self.queryset)
                return paging.page(rows, self.keys, bookmark, self.branches(rows))
        except paging.TooSlow:
            if not walks:
                raise
        self._is_slow = True
        with paging.time_limit(reads_from()):
            end = paging.reach(walks, self.keys, bookmark, rows=paging.REACH)
            rows = self.shown(self.queryset)
            return paging.page(rows, self.keys, bookmark, self.walks(rows), end=end)

    @property
    def unfiltered(self) -> QuerySet[Any]:
        """All rows of the table, which an index has in order."""
        return self.model._default_manager.using(reads_from()).all()

    def bookmark(self, request: HttpRequest) -> paging.Bookmark | None:
        """Return where the page begins. Raises ``ValueError`` when the address was tampered with."""
        for name in (OLDER, NEWER):
            if name in request.GET:
                return paging.Bookmark.parse(request.GET[name], newer=name == NEWER)
        return None

    def shown(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return these rows with what only a page of them is to read."""
        return rows

    def branches(self, rows: QuerySet[Any]) -> list[QuerySet[Any]] | None:
        """Return the parts of these rows that an index gives in order, ``None`` when it is one."""
        return None

    def walks(self, rows: QuerySet[Any]) -> list[QuerySet[Any]]:
        """Return the parts of these rows, each of which an index gives in order, that hold all of this list; nothing if
        an index finds it as it is."""
        return []

    def prepare(self, request: HttpRequest, rows: Sequence[Model]) -> None:
        """Give the rows what their columns need from other tables, in one query for all."""

    def is_counted(self) -> bool:
        """Does an index bound a count of these rows?"""
        used = {name for spec in self.filter_specs for name in spec.used_parameters}
        return not self.query and used <= self.counted_with

    def _count_text(self, page: paging.Page[Any]) -> str:
        if page.cut and not page.rows:
            return ""
        if page.older is None and page.newer is None:
            return f"{len(page.rows):,}"
        if self.is_counted() and not self._is_slow:
            try:
                with paging.time_limit(reads_from()):
                    count = paging.count(self.branches(self.queryset) or [self.queryset], self.count_order)
            except paging.TooSlow:
                return ""
            return f"{count:,}" if count <= paging.COUNT_LIMIT else f"{paging.COUNT_LIMIT:,}+"
        return f"{len(page.rows):,}+"


class CallChangeList(PagedChangeList):
    """What the lists of tasks and of results have in common: the search, and a tab for each state."""

    #: The states of its tabs.
    tab_states: ClassVar[Sequence[str]] = ()
    is_live = True

    model: type[Task] | type[TaskResult]
    selection: Selection
    #: Of each tab: what it is called, its address, how many there are (or ``""``), and whether it is the present one.
    tabs: Sequence[tuple[str, str, str, bool]] = ()

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        queryset = super().get_queryset(request, exclude_parameters)
        try:
            self.selection = self.select()
        except SearchError as error:
            say(request, messages.ERROR, str(error))
            self.selection = Selection(self.model, (), datetime.now(UTC), full=False)
            return queryset.none()
        return self.selection.narrow(queryset)

    def select(self) -> Selection:
        """Return what the search and the filters choose. Raises :class:`~django_tasks.search.SearchError`."""
        return Selection.of(self.model, self.query, self.chosen_filters(), full=self._sees_payload)

    def chosen_filters(self) -> dict[str, str]:
        """Return the filters in use, by their names."""
        values = {spec.parameter_name: spec.value() for spec in self.filter_specs if isinstance(spec, ChoiceFilter)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def _sees_payload(self) -> bool:
        model_admin: Any = self.model_admin
        return bool(model_admin.sees_payload(self._request))

    def get_filters(self, request: HttpRequest) -> Any:
        self._request = request
        return super().get_filters(request)

    def shown(self, rows: Any) -> QuerySet[Any]:
        if not self._shows_arguments:
            return rows  # type: ignore[no-any-return]
        is_small = Q(body_bytes__lte=SMALL_BODY) & (Q(options__isnull=True) | Q(options_bytes__lte=SMALL_OPTIONS))
        rows = rows.annotate(body_bytes=Bytes("body")).alias(options_bytes=Bytes("options"))
        small = {f"small_{name}": Case(When(is_small, then=F(name))) for name in ("body", "options")}
        return rows.annotate(**small)  # type: ignore[no-any-return]

    @property
    def _shows_arguments(self) -> bool:
        return ARGUMENTS in self.list_display

    def branches(self, rows: QuerySet[Any]) -> list[QuerySet[Any]] | None:
        return self.selection.branches(rows)

    def walks(self, rows: QuerySet[Any]) -> list[QuerySet[Any]]:
        return [] if self.selection.is_served else self.selection.walks(rows)

    def is_counted(self) -> bool:
        return self.selection.is_counted_cheaply

    def prepare(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        for note in self.selection.notes:
            say(request, messages.INFO, note)
        if self._shows_arguments:
            for row in rows:
                if row.small_body is not None:
                    row.body, row.options = row.small_body, row.small_options
        counts = {} if self.query else self._count_states()
        present = self.params.get("state")
        every = (_("All"), self.get_query_string(remove=["state"]), "", present is None)
        self.tabs = [every] + [
            (state, self.get_query_string({"state": state}), counts.get(state, ""), present == state)
            for state in self.tab_states
        ]

    def of_state(self, state: str) -> QuerySet[Any]:
        """Return the rows in this state."""
        return self.root_queryset.with_state(state)  # type: ignore[no-any-return,attr-defined]

    def _count_states(self) -> dict[str, str]:
        """Return how many rows there are in each state, in words; nothing if that takes long."""
        try:
            with paging.time_limit(reads_from(), COUNTING):
                counts = paging.count_each({state: self.of_state(state) for state in self.tab_states}, self.count_order)
        except paging.TooSlow:
            return {}
        limit = paging.COUNT_LIMIT
        return {state: f"{count:,}" if count <= limit else f"{limit:,}+" for state, count in counts.items()}


class TaskChangeList(CallChangeList):
    """The to-do list, newest first by id."""

    tab_states = (states.PENDING, states.STARTED, states.RETRY, states.LIMITED, states.WAITING, states.UNROUTABLE)

    def prepare(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        super().prepare(request, rows)
        now = timezone.now()
        wanted = {row.worker_id for row in rows} - {None}
        workers = dashboard.worker_names(wanted) if wanted else {}
        for row in rows:
            row.worker_name = workers.get(row.worker_id, "")
            row.seen_at = now


class ResultChangeList(CallChangeList):
    """The ledger, last finished first: along the index by name, or the index by state once for each state."""

    keys = ("finished_at", "id")
    count_order = "finished_at"
    tab_states = (states.SUCCESS, states.FAILURE, states.REVOKED, states.REJECTED, states.IGNORED)


class WorkerChangeList(PagedChangeList):
    """The workers, newest first."""

    counted_with = frozenset({"status"})
    is_live = True

    def prepare(self, request: HttpRequest, rows: Sequence[Any]) -> None:
        now = dashboard.database_now()
        for row in rows:
            row.shown_status = row.status(now)


# Filters -------------------------------------------------------------------------------------------------------------


class ChoiceFilter(SimpleListFilter):
    """A filter of one column by one of its values."""

    parameter_name: str

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if not self.allows(value):
            raise IncorrectLookupParameters(f"{self.parameter_name}={value!r}")
        return self.narrow(queryset, value)

    def allows(self, value: str) -> bool:
        """Is this a value that the column may have?"""
        return value in {choice for choice, _label in self.lookup_choices}

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows with this value; those of tasks and results are chosen together with what is searched
        for (:meth:`CallChangeList.select`)."""
        return queryset

    def with_present(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield choices, the present one included even if it is not among ``names``."""
        present = self.value()
        yield from ((name, name) for name in names)
        if present is not None and present not in names and self.allows(present):
            yield present, present


class TaskStateFilter(ChoiceFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in TaskChangeList.tab_states]


class ResultStateFilter(ChoiceFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in ResultChangeList.tab_states]


class QueueFilter(ChoiceFilter):
    title = gettext_lazy("queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.with_present(known(request, model_admin)["queues"]))

    def allows(self, value: str) -> bool:
        return QUEUE_NAME.fullmatch(value) is not None


class NameFilter(ChoiceFilter):
    """By the tasks that this process knows: asking the ledger for its names would not scale. Others: by search."""

    title = gettext_lazy("task")
    parameter_name = "name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.with_present(sorted(tasks)[: dashboard.MOST]))

    def allows(self, value: str) -> bool:
        return 0 < len(value) <= 255 and "\x00" not in value


class FixedFilter(ChoiceFilter):
    """A filter whose choices are always the same."""

    labels: ClassVar[Mapping[str, Any]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(self.labels.items())


class FinishedFilter(FixedFilter):
    title = gettext_lazy("finished")
    parameter_name = "finished"
    labels = {
        "hour": gettext_lazy("Within the last hour"),
        "day": gettext_lazy("Within the last day"),
        "week": gettext_lazy("Within the last 7 days"),
        "month": gettext_lazy("Within the last 30 days"),
    }


class RunFilter(FixedFilter):
    title = gettext_lazy("run time")
    parameter_name = "run"
    labels = {
        ">1s": gettext_lazy("Longer than 1 second"),
        ">10s": gettext_lazy("Longer than 10 seconds"),
        ">1m": gettext_lazy("Longer than 1 minute"),
        ">10m": gettext_lazy("Longer than 10 minutes"),
    }


class RetriedFilter(FixedFilter):
    title = gettext_lazy("retries")
    parameter_name = "retried"
    labels = {"yes": gettext_lazy("Retried")}


class PlaceFilter(FixedFilter):
    title = gettext_lazy("place in a workflow")
    parameter_name = "is"
    labels = {"root": gettext_lazy("Root tasks only"), "child": gettext_lazy("Has a parent")}


class PriorityFilter(FixedFilter):
    title = gettext_lazy("priority")
    parameter_name = "prio"
    labels = {">0": gettext_lazy("Above 0"), "0": "0", "<0": gettext_lazy("Below 0")}


class KnownFilter(ChoiceFilter):
    """A filter by what there was lately; anything else: by search."""

    #: What of :func:`known` there is to choose from.
    kind: ClassVar[str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        present = self.value()
        if present is not None and not self.allows(present):
            raise IncorrectLookupParameters(f"{self.parameter_name}={present!r}")  # also where nothing is to choose
        return list(self.with_present(known(request, model_admin)[self.kind][:MOST_KNOWN]))

    def allows(self, value: str) -> bool:
        return 0 < len(value) <= 255 and "\x00" not in value


class ByWorkerFilter(KnownFilter):
    title = gettext_lazy("worker")
    parameter_name = "worker"
    kind = "workers"


class TagFilter(KnownFilter):
    title = gettext_lazy("tag")
    parameter_name = "tag"
    kind = "tags"


#: What tasks and results have in common.
CALL_FILTERS: Final = (ByWorkerFilter, RunFilter, RetriedFilter, PlaceFilter, PriorityFilter, TagFilter)


class ExceptionFilter(KnownFilter):
    title = gettext_lazy("exception")
    parameter_name = "exc"
    kind = "exceptions"

    def allows(self, value: str) -> bool:
        return is_class(value)


def known(request: HttpRequest, model_admin: Any) -> Mapping[str, list[str]]:
    """Return what there is to choose from for all filters of a list; one query for a request.

    Who does not see all rows is not told the tags and exceptions of others.
    """
    if not hasattr(request, _KNOWN):
        kinds = [one.kind for one in model_admin.list_filter if isinstance(one, type) and issubclass(one, KnownFilter)]
        told = [kind for kind in kinds if kind == "workers" or access.narrowing(request) is None]
        found = {**{kind: [] for kind in kinds}, **dashboard.known(told)}
        if "exceptions" in found:
            found["exceptions"] = [one for one in found["exceptions"] if is_class(one)]
        setattr(request, _KNOWN, found)
    return getattr(request, _KNOWN)  # type: ignore[no-any-return]


class WorkerFilter(ChoiceFilter):
    title = gettext_lazy("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("running", gettext_lazy("Not stopped")), ("stopped", gettext_lazy("Stopped or lost"))]

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        if value == "running":
            return queryset.filter(stopped_at=None, lost_at=None)
        return queryset.exclude(stopped_at=None, lost_at=None)
