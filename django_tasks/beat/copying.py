"""django-celery-beat's rows become ours. Its tables are read as they are: the package may be gone already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import connections, transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ..conf import PRIORITIES, settings
from ..models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from ..periodic.rows import json_of
from ..registry import tasks
from ..routing import validate_queue

COPIED, LEFT, REFUSED = "copied", "left", "refused"
#: Its tables.
PREFIX: Final = "django_celery_beat_"
TABLE: Final = f"{PREFIX}periodictask"
#: Its schedules: the column that names one, its table, our model, and the columns that make it.
KINDS: Final[tuple[tuple[str, str, type[Any], tuple[str, ...]], ...]] = (
    ("interval", "intervalschedule", IntervalSchedule, ("every", "period")),
    (
        "crontab",
        "crontabschedule",
        CrontabSchedule,
        ("minute", "hour", "day_of_month", "month_of_year", "day_of_week", "timezone"),
    ),
    ("solar", "solarschedule", SolarSchedule, ("event", "latitude", "longitude")),
    ("clocked", "clockedschedule", ClockedSchedule, ("clocked_time",)),
)
#: What is taken over as it stands.
TAKEN_OVER: Final = (
    *("name", "task", "args", "kwargs", "queue", "exchange", "routing_key", "headers", "priority", "expires"),
    *("expire_seconds", "one_off", "start_time", "enabled", "last_run_at", "total_run_count", "description"),
)
#: What SQLite, or MySQL, tells as text or number.
MOMENTS: Final = frozenset(["expires", "start_time", "last_run_at", "clocked_time"])
SWITCHES: Final = frozenset(["enabled", "one_off"])
#: Celery's own; what it does is done here by the workers.
CELERYS: Final = frozenset(["celery.backend_cleanup"])


class Copy(NamedTuple):
    """What becomes of one of its rows."""

    name: str
    #: ``copied``, ``left`` (there is nothing to do) or ``refused`` (it cannot be kept).
    kind: str
    #: Why, or what is otherwise than it was.
    why: str = ""


def copy_rows(database: str | None = None, *, disabled: bool = False, dry_run: bool = False) -> list[Copy]:
    """Copy django-celery-beat's periodic tasks from a database; return what became, or would become, of each.

    A name that is taken is left alone, so a second call copies what is new. With ``disabled`` the copies are switched
    off. Raises ``LookupError`` if its tables are not there.
    """
    alias = database or settings.DATABASE
    if TABLE not in connections[alias].introspection.table_names():
        raise LookupError(f"Database {alias!r} has no table {TABLE}: django-celery-beat was never migrated there.")
    timetables = {kind: {row["id"]: row for row in _rows(alias, PREFIX + table)} for kind, table, _, _ in KINDS}
    taken = set(PeriodicTask.objects.values_list("name", flat=True))
    found = []
    for columns in _rows(alias, TABLE):
        name = columns["name"]
        if columns["task"] in CELERYS:
            found.append(Copy(name, LEFT, "workers delete old results themselves"))
        elif name in taken:
            found.append(Copy(name, LEFT, "there is one of this name"))
        else:
            try:
                notes = _copy(columns, timetables, disabled=disabled, dry_run=dry_run)
            except (TypeError, ValueError, ValidationError, ImproperlyConfigured) as error:
                why = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
                found.append(Copy(name, REFUSED, why))
            else:
                found.append(Copy(name, COPIED, "; ".join(notes)))
    return found


def _copy(
    columns: Mapping[str, Any], timetables: Mapping[str, Mapping[int, Any]], *, disabled: bool, dry_run: bool
) -> list[str]:
    row = PeriodicTask(**{each: columns[each] for each in TAKEN_OVER if each in columns})
    notes = []
    if row.priority is not None and row.priority > PRIORITIES[-1]:
        notes.append(f"its priority was {row.priority} and is {PRIORITIES[-1]}, the highest")
        row.priority = PRIORITIES[-1]
    if row.task not in tasks:
        notes.append(f"its task {row.task} is unknown here")
    row.enabled = row.enabled and not disabled
    for each, kind in (("args", list), ("kwargs", dict), ("headers", dict)):
        json_of(each, getattr(row, each), kind)
    for each in ("queue", "exchange", "routing_key"):
        if getattr(row, each):
            validate_queue(getattr(row, each))
    with transaction.atomic(using=settings.DATABASE):
        for kind_, _, model, made_of in KINDS:
            if columns[f"{kind_}_id"] is not None:
                source = timetables[kind_][columns[f"{kind_}_id"]]
                row.set_schedule(model(**{each: source[each] for each in made_of}).schedule)
        row.save()
        if dry_run:
            transaction.set_rollback(True, using=settings.DATABASE)
    return notes


def _rows(alias: str, table: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, whatever columns its version has; values as Python has them."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)} ORDER BY id")  # noqa: S608
        names = [column[0] for column in cursor.description or ()]
        rows = cursor.fetchall()
    for row in rows:
        yield {name: _value(name, value) for name, value in zip(names, row, strict=True)}


def _value(name: str, value: Any) -> Any:
    if name in MOMENTS and isinstance(value, str):  # SQLite
        value = parse_datetime(value)
    if isinstance(value, datetime) and timezone.is_naive(value):
        return value.replace(tzinfo=UTC) if django_settings.USE_TZ else timezone.make_aware(value)
    if name in SWITCHES:
        return bool(value)
    return value
