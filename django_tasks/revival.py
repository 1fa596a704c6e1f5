"""Running a failed task of a workflow again: what was not run because of it gets another chance, too.

What waited for it is copied, and waits for the copy. What still waits, because others are not done, waits for the copy
from now on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.db import connections

from . import states
from .backends.fate import FAILED, NOT_RUN, OK, SKIPPED
from .backends.message import Edge, Message
from .conf import settings
from .models import Edge as EdgeRow
from .models import Task, TaskResult
from .place import waited_for


def was_not_run(row: TaskResult) -> bool:
    """Did this task fail only because one before it did?"""
    return (row.traceback or "").startswith(NOT_RUN)


def before(row: TaskResult | Task) -> dict[str, str]:
    """Return what a task of a workflow waited for: ids, and how it depends on each."""
    return waited_for(row.option_values.get("node") or {})


def responsible(rows: Iterable[TaskResult]) -> dict[str, TaskResult]:
    """Return the tasks that are to run again for these: themselves, and in place of what was not run, what failed
    before it."""
    found: dict[str, TaskResult] = {}
    rest = list(rows)
    seen: set[str] = set()
    while rest:
        row = rest.pop()
        if str(row.pk) in seen:
            continue
        seen.add(str(row.pk))
        if was_not_run(row):
            failed = _ledger().filter(pk__in=list(before(row))).exclude(state=states.SUCCESS)
            rest += failed
        else:
            found[str(row.pk)] = row
    return found


def taken_along(rows: Mapping[str, TaskResult]) -> tuple[set[str], set[str]]:
    """Return the results that run again when these do, and what still waits and is then to wait for a copy."""
    results = {*rows, *_dependents(rows)}
    return results, {str(edge.after_id) for edge in _left_open(results)}


class Revival:
    """The copies of some tasks, and of all that was not run because of them.

    ``copy`` makes a message of a row. All of it belongs into one transaction.
    """

    def __init__(self, rows: Mapping[str, TaskResult], copy: Callable[[TaskResult], Message]) -> None:
        dependents = _dependents(rows)
        self._rows = {**rows, **dependents}
        #: By the id of the original.
        self.messages = {key: copy(row) for key, row in self._rows.items()}
        self._ids = {key: message.id for key, message in self.messages.items()}
        self.edges: list[Edge] = []
        self._closed: list[EdgeRow] = []
        for key, message in self.messages.items():
            message.options = json.dumps(moved(json.loads(message.options or "{}"), self._ids))
            if key in dependents:
                message.waiting = True
                self._connect(dependents[key], message.id)

    def close(self) -> None:
        """Say of what the copies wait for, and is done already, what became of it; and let what still waits for an
        original wait for its copy."""
        EdgeRow.objects.using(settings.DATABASE).bulk_create(self._closed)
        for edge in _left_open(self._rows).order_by("after_id"):
            waiting = _to_do().filter(pk=edge.after_id, state=states.WAITING)
            if connections[settings.DATABASE].features.has_select_for_update:
                waiting = waiting.select_for_update()
            row = waiting.first()
            if row is None:
                continue
            options = json.dumps(moved(row.option_values, self._ids))
            _to_do().filter(pk=row.pk, state=states.WAITING).update(options=options)
            EdgeRow.objects.using(settings.DATABASE).filter(pk=edge.pk).update(
                before_id=self._ids[str(edge.before_id)], outcome=None
            )

    def _connect(self, row: TaskResult, copy: str) -> None:
        kinds = before(row)
        others = [key for key in kinds if key not in self._ids]
        ended = {str(one.pk): one for one in _ledger().filter(pk__in=others).only("pk", "state", "traceback")}
        running = {str(pk) for pk in _to_do().filter(pk__in=others).values_list("pk", flat=True)}
        for key, kind in kinds.items():
            if key in self._ids or key in running:
                self.edges.append(Edge(self._ids.get(key, key), copy, kind))
                continue
            outcome = FAILED
            if key in ended:
                skipped = SKIPPED if was_not_run(ended[key]) else FAILED
                outcome = OK if ended[key].state == states.SUCCESS else skipped
            self._closed.append(EdgeRow(before_id=key, after_id=copy, kind=kind, outcome=outcome))


def moved(options: dict[str, Any], new_ids: Mapping[str, str]) -> dict[str, Any]:
    """Return options that name copies in place of their originals."""
    place = options.get("node")
    if place:
        for name in ("in", "before", "links", "chord"):
            if name in place:
                place[name] = _renamed(place[name], new_ids)
    return options


def _renamed(value: Any, new_ids: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(one, new_ids) for one in value]
    if isinstance(value, dict):
        return {name: _renamed(one, new_ids) for name, one in value.items()}
    return new_ids.get(value, value) if isinstance(value, str) else value


def _dependents(rows: Mapping[str, TaskResult]) -> dict[str, TaskResult]:
    """Return what was not run because of these, and so on, and has not been copied since."""
    roots = {row.root_id for row in rows.values() if row.root_id is not None}
    idle = list(_ledger().filter(root_id__in=roots, traceback__startswith=NOT_RUN)) if roots else []
    copied = {one.option_values.get("retry_of") for one in idle}
    waiting = _to_do().filter(root_id__in=roots, options__contains='"retry_of"') if roots else []
    copied |= {one.option_values.get("retry_of") for one in waiting}
    found: dict[str, TaskResult] = {}
    rest = {str(row.pk): row for row in idle if str(row.pk) not in copied and str(row.pk) not in rows}
    grown = True
    while grown:
        known = {*rows, *found}
        new = {key: row for key, row in rest.items() if not known.isdisjoint(before(row))}
        grown = bool(new)
        found |= new
        rest = {key: row for key, row in rest.items() if key not in new}
    return found


def _left_open(keys: Iterable[str]) -> Any:
    """Return how what is not done depends on these, as far as it does not have their results."""
    return EdgeRow.objects.using(settings.DATABASE).filter(before_id__in=list(keys)).exclude(outcome=OK)


def _to_do() -> Any:
    return Task.objects.using(settings.DATABASE)


def _ledger() -> Any:
    return TaskResult.objects.using(settings.DATABASE)
