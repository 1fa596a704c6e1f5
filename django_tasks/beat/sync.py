"""What the code declares becomes rows, and stays what people made of it.

A row remembers what was declared. When the code changes, the columns that nobody touched follow; where somebody decided
otherwise, that stays, and the difference is shown. What is gone from the code is switched off and labelled.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import IntegrityError

from .. import schedules
from ..conf import settings
from ..dashboard import database_now
from ..models import PeriodicTask
from ..periodic.entries import Entry, declared_entries, entries_of_setting, schedule_spec

logger = logging.getLogger("django_tasks.beat")

CREATED, UPDATED, GONE, BACK, DRIFTED, TAKEN = "created", "updated", "gone", "back", "drifted", "taken"
BROKEN = "broken"
_TIMES = ("start_time", "end_time", "expires")


class Change(NamedTuple):
    """What a sync does to a row, or finds about it."""

    name: str
    #: ``created``, ``updated``, ``gone`` (switched off), ``back`` (switched on again), ``drifted`` (people decided
    #: otherwise; nothing is done), ``taken`` (people made a row of this name; nothing is done) or ``broken`` (what
    #: people made of it cannot be stored again; nothing is done).
    kind: str
    #: Which columns; of a broken one, why.
    columns: tuple[str, ...] = ()


def sync(*, dry_run: bool = False) -> list[Change]:
    """Bring the rows up to what the code declares; return what was done, or would be.

    Raises ``ValueError`` or ``TypeError`` for a declaration that cannot be kept; nothing is done then.
    """
    entries = {entry.name: entry for entry in declared_entries()}
    rows = {row.name: row for row in PeriodicTask.objects.select_related(*_related())}
    found: list[Change] = []
    for name, entry in entries.items():
        row = rows.get(name)
        try:
            found += _create(entry, dry_run) if row is None else _update(row, entry, dry_run)
        except ValidationError as error:  # the other rows, and what is due, must not wait for somebody to mend it
            found.append(Change(name, BROKEN, tuple(error.messages)))
    for name, row in rows.items():
        if row.origin == PeriodicTask.CODE and name not in entries and row.gone_at is None:
            found.append(Change(name, GONE))
            if not dry_run:
                PeriodicTask.objects.filter(pk=row.pk).update(enabled=False, gone_at=database_now())
    if not dry_run:
        for change in found:
            level = logging.WARNING if change.kind in (GONE, TAKEN, BROKEN) else logging.INFO
            logger.log(level, "Periodic task %s: %s %s", change.name, change.kind, ", ".join(change.columns))
    return found


def store(name: str, given: Mapping[str, Any]) -> PeriodicTask:
    """Make the row of an entry as in ``BEAT_SCHEDULE``, or overwrite it; return it. Raises as :func:`sync` does."""
    [entry] = entries_of_setting({name: given})
    row = PeriodicTask.objects.filter(name=name).first() or PeriodicTask(name=name)
    _assign(row, entry, entry.spec)
    row.save()
    return row


def drift(row: PeriodicTask) -> dict[str, tuple[Any, Any]]:
    """Return the columns in which a row is not what the code declares: what is declared, and what stands there."""
    if row.origin != PeriodicTask.CODE or not row.declared:
        return {}
    declared, present = json.loads(row.declared), spec_of(row)
    return {
        name: (value, present.get(name))
        for name, value in declared.items()
        if not _same(name, value, present.get(name))
    }


def spec_of(row: PeriodicTask) -> dict[str, Any]:
    """Return what a row says, as an entry of the code would."""
    names = (
        *("task", "args", "kwargs", "enabled", "description", "one_off", "max_runs"),
        *("overlap", "missed", "missed_limit", "grace_seconds", "jitter"),
        *("queue", "exchange", "routing_key", "headers", "priority", "expire_seconds", "time_limit", "soft_time_limit"),
    )
    found: dict[str, Any] = {name: getattr(row, name) for name in names}
    for name in _TIMES:
        moment: datetime | None = getattr(row, name)
        found[name] = None if moment is None else moment.astimezone(UTC).isoformat()
    try:
        found["schedule"] = schedule_spec(row.schedule)
    except (TypeError, ValueError):
        found["schedule"] = None  # broken by hand
    return found


def _related() -> Sequence[str]:
    return ("interval", "crontab", "solar", "clocked", "cron")


def _create(entry: Entry, dry_run: bool) -> list[Change]:
    if not dry_run:
        row = PeriodicTask(name=entry.name, origin=PeriodicTask.CODE, declared=entry.as_json())
        _assign(row, entry, entry.spec)
        try:
            row.save()
        except IntegrityError:  # another beat, which starts at the same time, has made it
            return []
    return [Change(entry.name, CREATED)]


def _update(row: PeriodicTask, entry: Entry, dry_run: bool) -> list[Change]:
    if row.origin != PeriodicTask.CODE:
        return [Change(entry.name, TAKEN)]
    declared: Mapping[str, Any] = json.loads(row.declared or "{}")
    wanted, present = entry.spec, spec_of(row)
    anew = [name for name, value in wanted.items() if not _same(name, value, declared.get(name))]
    theirs = {name for name in wanted if name in declared and not _same(name, declared[name], present.get(name))}
    back = row.gone_at is not None
    if back:
        theirs.discard("enabled")  # we switched it off, nobody else
    follow = {name: wanted[name] for name in anew if name not in theirs}
    if back:
        follow["enabled"] = wanted["enabled"]
    found = []
    changed = tuple(sorted(name for name in follow if not _same(name, follow[name], present.get(name))))
    if back:
        found.append(Change(entry.name, BACK, changed))
    elif changed:
        found.append(Change(entry.name, UPDATED, changed))
    drifted = tuple(sorted(name for name in theirs if not _same(name, wanted[name], present.get(name))))
    if drifted:
        found.append(Change(entry.name, DRIFTED, drifted))
    if not dry_run and (anew or back):
        row.declared, row.gone_at = entry.as_json(), None
        _assign(row, entry, follow)
        row.save()
    return found


def _assign(row: PeriodicTask, entry: Entry, columns: Mapping[str, Any]) -> None:
    row._state.db = row._state.db or settings.DATABASE
    for name, value in columns.items():
        if name == "schedule":
            row.set_schedule(entry.schedule)
        elif name in _TIMES:
            setattr(row, name, None if value is None else datetime.fromisoformat(value))
        else:
            setattr(row, name, value)
    row.one_off = row.one_off or isinstance(entry.schedule, schedules.clocked)


def _same(name: str, one: Any, other: Any) -> bool:
    """Are two values of a column the same? JSON is, however it is written."""
    if one != other and name in ("args", "kwargs", "headers"):
        try:
            return bool(json.loads(one or "null") == json.loads(other or "null"))
        except ValueError:
            return False
    return bool(one == other)
