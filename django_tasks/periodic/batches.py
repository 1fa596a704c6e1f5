"""One UPDATE of many rows of ``PeriodicTask``, each to values of its own, if they still are as they were read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from django.db import connections, transaction

from ..fields import utc_text

__all__ = ["INTEGER", "MOMENT", "TEXT", "TOLD", "BatchUpdate", "line_of"]

TABLE: Final = "django_tasks_periodictask"
#: Kinds of values: their types on PostgreSQL, and on MySQL and MariaDB.
INTEGER: Final = ("bigint", "BIGINT")
MOMENT: Final = ("timestamptz", "DATETIME(6)")
TEXT: Final = ("text", "LONGTEXT")

#: What becomes of ``last_error`` and ``failed_at``, by the value ``told``: ``""`` takes an error away, NULL leaves it.
TOLD: Final = """last_error = coalesce(m.told, last_error),
    failed_at = CASE WHEN m.told IS NULL THEN failed_at WHEN m.told = '' THEN NULL ELSE m.moment END"""

#: What somebody has locked is left alone: they move it on, or it is found again at the next look. Otherwise a beat that
#: stands still, or an edit in a long transaction, would stop all other rows.
_POSTGRESQL: Final = """
WITH m AS MATERIALIZED (SELECT * FROM json_to_recordset(%s::json) AS j(k bigint, {columns})),
free AS MATERIALIZED (SELECT p.id FROM m JOIN {table} p ON p.id = m.k WHERE p.{column} = m.was AND {only}
    FOR UPDATE OF p SKIP LOCKED)
UPDATE {table} p SET {changes} FROM m JOIN free ON free.id = m.k WHERE p.id = m.k RETURNING p.id
"""
#: There is one writer: nobody else changes anything meanwhile.
_SQLITE: Final = """
UPDATE {table} SET {changes} FROM (SELECT json_extract(j.value, '$.k') AS k, {columns} FROM json_each(%s) j) AS m
WHERE id = m.k AND {column} = m.was AND {only} RETURNING id
"""
#: As on PostgreSQL. An UPDATE returns nothing here, so rows are locked first; and they are compared by us, who see a
#: difference in capitals. It must look each row up: a walk over a small table would wait for what others have locked.
_MYSQL_LOCK: Final = """
SELECT id, {column} FROM {table} WHERE id IN ({marks}) AND {only} ORDER BY id FOR UPDATE SKIP LOCKED
"""
_MYSQL: Final = """
UPDATE JSON_TABLE(%s, '$[*]' COLUMNS (k BIGINT PATH '$.k', {columns})) AS m
STRAIGHT_JOIN {table} p FORCE INDEX (PRIMARY) ON p.id = m.k SET {changes}
"""


class BatchUpdate:
    """Changes rows whose ``column`` still is what was read: of several that try at the same time, one does it.

    ``changes`` is the SET clause, which reads a row's own ``values`` as ``m.name``; ``only`` is what rows must be, too.
    The kinds of ``values`` and of ``column`` are :data:`INTEGER`, :data:`MOMENT` and :data:`TEXT`.
    """

    def __init__(
        self,
        column: str,
        kind: tuple[str, str],
        changes: str,
        values: Mapping[str, tuple[str, str]],
        *,
        only: str = "true",
    ) -> None:
        kinds = {"was": kind, **values}
        self._moments = [name for name, one in kinds.items() if one is MOMENT]
        parts = {"table": TABLE, "column": column, "changes": changes, "only": only}
        postgresql, mysql = ([f"{name} {one[i]}" for name, one in kinds.items()] for i in range(2))
        extracted = [f"json_extract(j.value, '$.{name}') AS {name}" for name in kinds]
        pathed = [f"{each} PATH '$.{name}'" for each, name in zip(mysql, kinds, strict=True)]
        self._postgresql = _POSTGRESQL.format(**parts, columns=", ".join(postgresql))
        self._sqlite = _SQLITE.format(**parts, columns=", ".join(extracted))
        self._mysql = _MYSQL.format(**parts, columns=", ".join(pathed))
        self._lock = _MYSQL_LOCK.format(**parts, marks="{marks}")

    def apply(self, alias: str, rows: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """Change rows, by their ids; return the ids of those that were changed.

        ``rows`` gives each its values, and what was read as ``was``. The others have been changed by somebody else
        meanwhile, or are locked.
        """
        if not rows:
            return set()
        connection = connections[alias]
        with transaction.atomic(using=alias, savepoint=False), connection.cursor() as cursor:
            if connection.vendor == "mysql":
                return self._apply_locked(cursor, rows)
            sql = self._postgresql if connection.vendor == "postgresql" else self._sqlite
            cursor.execute(sql, [self._json(rows, _iso if connection.vendor == "postgresql" else utc_text)])
            return {row[0] for row in cursor.fetchall()}

    def _apply_locked(self, cursor: Any, rows: Mapping[int, Mapping[str, Any]]) -> set[int]:
        cursor.execute(self._lock.format(marks=", ".join(["%s"] * len(rows))), list(rows))
        found = {key: _aware(was) for key, was in cursor.fetchall()}
        mine = {key: values for key, values in rows.items() if key in found and found[key] == values["was"]}
        if mine:
            cursor.execute(self._mysql, [self._json(mine, utc_text)])
        return set(mine)

    def _json(self, rows: Mapping[int, Mapping[str, Any]], written: Any) -> str:
        def row(key: int, values: Mapping[str, Any]) -> dict[str, Any]:
            moments = {name: written(values[name]) for name in self._moments if values[name] is not None}
            return {"k": key, **values, **moments}

        return json.dumps([row(key, values) for key, values in rows.items()])


def line_of(error: BaseException) -> str:
    """Return an error in one line that every database can store."""
    return f"{type(error).__name__}: {error}".replace("\x00", "\\x00")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
