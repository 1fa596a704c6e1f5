"""What a workflow consists of, read at a cost that does not grow with it: its beginning, its end, and counts that stop.

What waits for what is read from the tasks' own options, which stay with them when the edges are gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connections
from django.db.models import QuerySet
from django.db.models.functions import Left

from .. import distinct, operations, paging, states
from ..backends.message import AFTER, CHORD, JOIN_TASK
from ..conf import settings
from ..models import Edge, Task, TaskResult
from ..place import waited_for
from ..replica import reads_from

#: Members that are read from the beginning of a workflow, and from its end, of the to-do list and of the ledger each.
FIRST, LAST = 1_000, 200
#: Characters of a member's options that are read: what it waits for stands there, some 400 others at most.
HEAD: Final = 16_384
#: Members of which it is counted what they wait for, where not all of that was read.
COUNTED: Final = 5
#: Workflows on a page of the list, and members of each that are counted there, in either table.
PAGE, FEW = 25, 300

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

#: Narrows rows to those that somebody may see.
Narrow = Callable[[QuerySet[Any]], QuerySet[Any]]


@dataclass(frozen=True, slots=True)
class Member:
    """A task of a workflow."""

    key: str
    name: str
    state: str
    #: As people are told it.
    shown: str
    parent: str | None
    created: datetime
    due: datetime
    started: datetime | None
    ended: datetime | None
    #: What it waited for, as far as that was read: ids, and how it depends on each.
    before: Mapping[str, str]
    #: It waits for more than was read of it.
    is_wide: bool = False
    #: The task that it runs again.
    original: str | None = None

    @property
    def inputs(self) -> list[str]:
        """The tasks that it waited for itself; of a chord's body, not what came before the chord."""
        own = [key for key, kind in self.before.items() if kind != AFTER]
        return own or list(self.before)

    @property
    def is_done(self) -> bool:
        """Is it in the ledger?"""
        return self.ended is not None

    @property
    def is_join(self) -> bool:
        """Does it only stand between many and many?"""
        return self.name == JOIN_TASK


class Waits(NamedTuple):
    """Of how many a member waits for how many still; each at most ``COUNT_LIMIT`` + 1."""

    open: int
    all: int


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a workflow that were read."""

    root: str
    rows: Mapping[str, Member]
    #: There are more than were read.
    is_cut: bool
    #: How many there are in each state, at most ``COUNT_LIMIT`` + 1 of the to-do list and of the ledger; without those
    #: that only stand between many and many.
    counts: Mapping[str, int]
    #: By the ids of those that wait for several.
    waits: Mapping[str, Waits]

    @property
    def is_capped(self) -> bool:
        """Are there more than were counted?"""
        return any(
            sum(self.counts.get(state, 0) for state in kind) > paging.COUNT_LIMIT
            for kind in (states.UNFINISHED, states.FINISHED)
        )

    @property
    def total(self) -> int:
        """How many there are, or were counted."""
        return sum(self.counts.values())

    @property
    def finished(self) -> int:
        """How many of them are done, in whatever way."""
        return sum(count for state, count in self.counts.items() if state in states.FINISHED)


def members(root: str, narrow: Narrow) -> Members:
    """Return the members of the workflow whose root has this id, as far as ``narrow`` leaves them. Nine queries at
    most."""
    found: dict[str, Member] = {}
    is_cut = False
    for model in (Task, TaskResult):
        rows, more = _some(_of(model, root, narrow), model)
        is_cut = is_cut or more
        found |= rows
    if root not in found:  # a task that stands alone has no root; what it sent has it
        for model in (TaskResult, Task):
            alone = narrow(model._default_manager.using(reads_from()).filter(pk=root))
            found |= {one.key: one for one in _read(alone, model)}
            if root in found:
                break
    if is_cut:
        counted = [
            _of(model, root, narrow).exclude(name=JOIN_TASK).order_by("parent_id") for model in (Task, TaskResult)
        ]
        counts = {state: count for (state,), count in paging.count_by(counted, ["state"]).items()}
    else:
        counts = {}
        for one in found.values():
            if not one.is_join:
                counts[one.state] = counts.get(one.state, 0) + 1
    return Members(root, found, is_cut, counts, _waits(found, is_cut=is_cut))


def hides_any(root: str, narrow: Narrow) -> bool:
    """Does ``narrow`` take something away from this workflow?"""
    if settings.ADMIN_TASK_FILTER is None:
        return False
    for model in (Task, TaskResult):
        rows = model._default_manager.using(reads_from()).filter(root_id=root)
        if rows.exclude(pk__in=narrow(rows).values("pk")).exists():
            return True
    return False


# The list ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Summary:
    """A workflow as a line of the list."""

    root: str
    #: Of its first task, if that is still there.
    name: str = ""
    created: datetime | None = None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def is_capped(self) -> bool:
        """Are there more members than were counted?"""
        return sum(self.counts.values()) >= FEW


def newest(narrow: Narrow, before: str | None = None) -> tuple[list[Summary], str | None]:
    """Return the workflows that began last, those before ``before`` if given, and where the next page begins. Five
    queries; on MariaDB and MySQL up to nine."""
    roots: set[str] = set()
    for model in (Task, TaskResult):
        roots |= set(_roots(model, before))
    ordered = sorted(roots, reverse=True)
    page, more = ordered[:PAGE], len(ordered) > PAGE
    if not page:
        return [], None
    found = {root: Summary(root) for root in page}
    heads = [
        narrow(model._default_manager.using(reads_from()).filter(root_id=root))
        .exclude(name=JOIN_TASK)
        .order_by("parent_id")
        for model in (Task, TaskResult)
        for root in page
    ]
    for (root, state), count in paging.count_by(heads, ["root_id", "state"], limit=FEW).items():
        found[str(root)].counts[state] = count
    for model in (Task, TaskResult):
        rows = narrow(model._default_manager.using(reads_from()).filter(pk__in=page))
        for pk, name, created in rows.values_list("pk", "name", "created_at"):
            found[str(pk)].name, found[str(pk)].created = name, created
    shown = [one for one in found.values() if one.counts]
    return shown, page[-1] if more else None


def _roots(model: type[Task] | type[TaskResult], before: str | None) -> list[str]:
    """Return the newest roots of a table, by one look-up in its index for each."""
    connection = connections[reads_from()]
    key = model._meta.get_field("root_id")
    values = distinct.values_of(
        connection.alias,
        model._meta.db_table,
        "root_id",
        where="root_id IS NOT NULL",
        descending=True,
        behind=None if before is None else key.get_db_prep_value(UUID(before), connection),
        most=PAGE + 1,
    )
    return [str(key.to_python(value)) for value in values]


# Inside --------------------------------------------------------------------------------------------------------------


def _of(model: type[Task] | type[TaskResult], root: str, narrow: Narrow) -> QuerySet[Any]:
    return narrow(model._default_manager.using(reads_from()).filter(root_id=root))


def _some(rows: QuerySet[Any], model: type[Task] | type[TaskResult]) -> tuple[dict[str, Member], bool]:
    """Return the first and the last of these rows, as the index has them, and whether there are more."""
    first = _read(rows.order_by("parent_id")[: FIRST + 1], model)
    if len(first) <= FIRST:
        return {one.key: one for one in first}, False
    last = _read(rows.order_by("-parent_id")[:LAST], model)
    return {one.key: one for one in (*first[:FIRST], *last)}, True


def _read(rows: QuerySet[Any], model: type[Task] | type[TaskResult]) -> list[Member]:
    own = ("custom_state",) if model is Task else ("finished_at",)
    columns = ("pk", "name", "state", "parent_id", "created_at", "due_at", "started_at", *own)
    found = []
    for pk, name, state, parent, created, due, started, last, head in rows.values_list(*columns, Left("options", HEAD)):
        before, original, is_wide = _relations(head or "")
        told = last if model is Task and state == states.STARTED and last else state
        ended = last if model is TaskResult else None
        found.append(
            Member(
                str(pk), name, state, told, str(parent) if parent else None, created, due, started, ended,
                before, is_wide, original,
            )
        )  # fmt: skip
    return found


def _relations(head: str) -> tuple[Mapping[str, str], str | None, bool]:
    """Return what a member waited for, what it runs again, and whether that was cut off."""
    if len(head) == HEAD:
        _, found, rest = head.partition('"node":')
        return dict.fromkeys(_UUID.findall(rest) if found else (), CHORD), None, bool(found)
    try:
        options = json.loads(head) if head else {}
        original = options.get(operations.RETRY_OF)
        return waited_for(options.get("node") or {}), original if isinstance(original, str) else None, False
    except (AttributeError, KeyError, TypeError, ValueError):  # written by somebody else
        return {}, None, False


def _waits(found: Mapping[str, Member], *, is_cut: bool) -> dict[str, Waits]:
    """Return how much is still to be waited for, of those that wait for several. One query at most."""
    waiting = [one for one in found.values() if one.state == states.WAITING and (len(one.inputs) > 1 or one.is_wide)]
    known: dict[str, Waits] = {}
    unknown: list[str] = []
    for one in waiting:
        if one.is_wide or (is_cut and not found.keys() >= set(one.inputs)):
            unknown.append(one.key)
        else:
            # What is not there any more is done, and its result was not kept.
            left = sum(key in found and not found[key].is_done for key in one.inputs)
            known[one.key] = Waits(left, len(one.inputs))
    kinds: dict[str, QuerySet[Any]] = {}
    for key in unknown[:COUNTED]:
        edges = Edge.objects.using(reads_from()).filter(after_id=key).exclude(kind=AFTER)
        kinds[f"{key} open"], kinds[f"{key} all"] = edges.filter(outcome__isnull=True), edges
    counts = paging.count_each(kinds, "after_id") if kinds else {}
    counted = {key: Waits(counts[f"{key} open"], counts[f"{key} all"]) for key in unknown[:COUNTED]}
    return known | {key: waits for key, waits in counted.items() if waits.all}


def in_order(rows: Sequence[Member]) -> list[Member]:
    """Return members in the order in which they began, or were sent."""
    return sorted(rows, key=lambda one: (one.started or one.created, one.key))
