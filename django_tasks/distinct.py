"""The different values of a column that leads an index: one look-up for each, however many rows have it."""

from __future__ import annotations

from typing import Any, Final

from django.db import connections

#: Values that one query of MariaDB and MySQL looks up.
STEPS: Final = 12


def sql_of(alias: str, table: str, column: str, *, where: str = "TRUE", most: int) -> str:
    """Return SQL for the ``most`` smallest values among the rows ``where``, as a column ``value``; on MariaDB and MySQL
    for the first :data:`STEPS`, whatever ``where`` says, NULL for those that are missing."""
    if connections[alias].vendor == "mysql":
        return " UNION ALL ".join(_nested(table, column, bounded=False, descending=False))
    return _recursion(table, column, where, "", most, descending=False)


def values_of(
    alias: str, table: str, column: str, *, most: int, where: str = "TRUE", descending: bool = False, behind: Any = None
) -> list[Any]:
    """Return the ``most`` smallest values, or the largest ones if ``descending``, of those ``behind`` a value, as the
    driver gives them. One query; on MariaDB and MySQL one for each :data:`STEPS` of them, whatever ``where`` says."""
    connection = connections[alias]
    found: list[Any] = []
    with connection.cursor() as cursor:
        if connection.vendor != "mysql":
            beyond = "" if behind is None else f"AND {column} {'<' if descending else '>'} %s"
            params = [] if behind is None else [behind]
            cursor.execute(_recursion(table, column, where, beyond, most, descending=descending), params)
            return [value for (value,) in cursor.fetchall()]
        while len(found) < most:
            last = found[-1] if found else behind
            parts = _nested(table, column, bounded=last is not None, descending=descending)
            cursor.execute(" UNION ALL ".join(parts), [] if last is None else [last] * len(parts))
            more = [value for (value,) in cursor.fetchall() if value is not None]
            found += more
            if len(more) < STEPS:
                break
    return found[:most]


def _recursion(table: str, column: str, where: str, beyond: str, most: int, *, descending: bool) -> str:
    side, order = ("<", f"{column} DESC") if descending else (">", column)
    # Not MIN(): PostgreSQL knows it of a uuid from version 18 on.
    return f"""
        WITH RECURSIVE d (value) AS (
            SELECT * FROM (SELECT {column} FROM {table} WHERE {where} {beyond} ORDER BY {order} LIMIT 1) AS first_one
            UNION ALL
            SELECT (SELECT {column} FROM {table} WHERE {where} AND {column} {side} d.value ORDER BY {order} LIMIT 1)
            FROM d WHERE d.value IS NOT NULL
        ) SELECT value FROM d WHERE value IS NOT NULL LIMIT {most}
    """  # noqa: S608 - names of our own


def _nested(table: str, column: str, *, bounded: bool, descending: bool) -> list[str]:
    """Return a query for each of some values, each within the next: what depends on no row is looked up beforehand."""
    best, side = ("MAX", "<") if descending else ("MIN", ">")
    look_up = f"SELECT {best}({column}) AS value FROM {table}"  # noqa: S608 - names of our own
    found = [f"{look_up} WHERE {column} {side} %s" if bounded else look_up]
    while len(found) < STEPS:
        found.append(f"{look_up} WHERE {column} {side} ({found[-1]})")
    return found
