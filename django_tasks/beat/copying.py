"""django-celery-beat's rows become ours. Its tables are read as they are: the package need not be installed any more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import connections, transaction
from django.utils import timezone

from ..conf import PRIORITIES, QUEUE_NAME, settings
from ..models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from ..periodic.rows import json_of
from ..registry import tasks

COPIED, LEFT, REFUSED = "copied", "left", "refused"
#: The table of its periodic tasks; the schedules' begin with the same words.
TABLE: Final = "django_celery_beat_periodictask"
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
AS_IT_IS: Final = (
    *("name", "task", "args", "kwargs", "queue", "exchange", "routing_key", "headers", "priority", "expires"),
    *("expire_seconds", "one_off", "start_time", "enabled", "last_run_at", "total_run_count", "description"),
)
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
    timetables = {kind: _timetables(alias, kind) for kind, *_ in KINDS}
    taken = set(PeriodicTask.objects.values_list("name", flat=True))
    found = []
    for columns in _rows(alias, TABLE):
        if columns["task"] in CELERYS:
            found.append(Copy(columns["name"], LEFT, "workers delete old results themselves"))
        elif columns["name"] in taken:
            found.append(Copy(columns["name"], LEFT, "there is one of this name"))
        else:
            found.append(_copy(columns, timetables, disabled=disabled, dry_run=dry_run))
    return found


def _copy(
    columns: Mapping[str, Any], timetables: Mapping[str, Mapping[int, Any]], *, disabled: bool, dry_run: bool
) -> Copy:
    name = columns["name"]
    row = PeriodicTask(**{each: columns[each] for each in AS_IT_IS if each in columns})
    notes = list(_adapted(row))
    if disabled:
        row.enabled = False
    try:
        for kind, *_ in KINDS:
            if columns[f"{kind}_id"] is not None:
                row.set_schedule(timetables[kind][columns[f"{kind}_id"]].schedule) if not dry_run else None
                timetables[kind][columns[f"{kind}_id"]].schedule  # noqa: B018 - to make it is the test
        for each, kind_ in (("args", list), ("kwargs", dict), ("headers", dict)):
            json_of(each, getattr(row, each), kind_)
    except (KeyError, TypeError, ValueError, ValidationError, ImproperlyConfigured) as error:
        return Copy(name, REFUSED, str(error))
    return Copy(name, COPIED, "; ".join(notes))
