"""Which rows may somebody have changed? Databases can tell in no time; a look at ten thousand rows takes longer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections

from ..conf import settings
from ..models import PeriodicTask
from ..periodic.rows import STORED_AS, PeriodicTaskQuerySet

#: Rows that are looked at one by one on PostgreSQL; if there are more, so are all.
MOST: Final = 1_000
#: Seconds after which all rows are looked at on PostgreSQL, whatever it tells. A failover to a server that had not
#: heard of everything sets numbers of transactions back, and with a pooler in between nobody notices.
ALL_EVERY: Final = 300.0

_TABLE: Final = PeriodicTask._meta.db_table
_SNAPSHOT: Final = "SELECT pg_current_snapshot()::text AS now"
#: Written by a transaction that the known snapshot does not see. It was under way then, or began later; so its number,
#: and those of its savepoints, which no snapshot lists, are not below the lowest of those that were under way. It does
#: not matter how long it took. https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
_SINCE: Final = "age(xmin) <= age(%(lowest)s::xid)"
_SCHEDULES: Final = " OR ".join(
    f"EXISTS (SELECT 1 FROM {timetable._meta.db_table} WHERE {_SINCE})"  # noqa: S608 - names of ours
    for _, _, timetable in STORED_AS
)
#: The snapshot; whether a schedule was written since the known one, and which rows were. While it is the same one,
#: nothing was, anywhere, and no table is looked at.
_WRITTEN: Final = f"""
SELECT s.now, CASE WHEN s.now <> %(known)s THEN {_SCHEDULES} ELSE false END,
    CASE WHEN s.now <> %(known)s THEN ARRAY(SELECT id FROM {_TABLE} WHERE {_SINCE} LIMIT {MOST + 1}) ELSE '{{}}' END
FROM ({_SNAPSHOT}) s
"""  # noqa: S608
#: Rows know their transactions by so many numbers.
_NUMBERS: Final = 2**32


@dataclass(slots=True)
class Look:
    """A look for what changed."""

    #: The rows that may have; ``None``: there are none.
    rows: PeriodicTaskQuerySet | None
    #: False: they must be looked at again.
    done: bool = True


class Footprints:
    """What this process's connection knows of commits, since it was asked last."""

    def __init__(self) -> None:
        self._connection: Any = None
        #: What the database told when it was asked last; of another connection it means nothing.
        self._seen: Any = None

    @contextmanager
    def followed(self) -> Iterator[Look]:
        """Give the rows that may have changed since the last look that came to its end and was done.

        That is all of them where the database cannot tell.
        """
        wrapper = connections[settings.DATABASE]
        wrapper.ensure_connection()
        connection = wrapper.connection
        known = self._seen if connection is self._connection else None
        if wrapper.vendor == "sqlite":
            seen, rows = _told_by_sqlite(known)
        elif wrapper.vendor == "postgresql":
            seen, rows = _told_by_postgresql(known)
        else:
            seen, rows = None, PeriodicTask.objects.all()
        look = Look(rows)
        yield look
        if look.done:
            self._connection, self._seen = connection, seen

    @contextmanager
    def of_no_account(self) -> Iterator[None]:
        """What this thread writes within is not to be told of. Only SQLite takes it for a change of rows."""
        wrapper = connections[settings.DATABASE]
        if wrapper.vendor != "sqlite" or self._seen is None or wrapper.connection is not self._connection:
            yield
            return
        before = _changes()[1]
        yield
        if wrapper.connection is self._connection:
            version, own = self._seen
            self._seen = version, own + _changes()[1] - before


def _told_by_sqlite(known: Any) -> tuple[Any, PeriodicTaskQuerySet | None]:
    seen = _changes()
    return seen, None if seen == known else PeriodicTask.objects.all()


def _changes() -> tuple[int, int]:
    """Return a number that every commit of another connection changes, and how many rows this one has changed.

    https://www.sqlite.org/pragma.html#pragma_data_version
    """
    with connections[settings.DATABASE].cursor() as cursor:
        cursor.execute("PRAGMA data_version")
        [version] = cursor.fetchone()
        cursor.execute("SELECT total_changes()")
        [own] = cursor.fetchone()
        return version, own


def _told_by_postgresql(known: Any) -> tuple[Any, PeriodicTaskQuerySet | None]:
    snapshot, all_at = known or ("", float("-inf"))
    now = time.monotonic()
    with connections[settings.DATABASE].cursor() as cursor:
        if now - all_at >= ALL_EVERY:
            cursor.execute(_SNAPSHOT)
            [seen] = cursor.fetchone()
            return (seen, now), PeriodicTask.objects.all()
        lowest = int(snapshot.partition(":")[0]) % _NUMBERS
        cursor.execute(_WRITTEN, {"known": snapshot, "lowest": str(lowest)})
        seen, schedules, keys = cursor.fetchone()
    if schedules or len(keys) > MOST:
        return (seen, now), PeriodicTask.objects.all()
    return (seen, all_at), PeriodicTask.objects.filter(pk__in=keys) if keys else None
