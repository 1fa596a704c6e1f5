"""Fill our tables by SQL: a million waiting tasks or ten million results in minutes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from django.db import connection

if TYPE_CHECKING:
    from django.db.models import Model

#: Rows by one statement.
CHUNK: Final = 250_000

# A row ``n`` for each number from %s to %s.
_NUMBERS = {
    "postgresql": "SELECT generate_series(%s::bigint, %s::bigint) AS n",
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM s WHERE n < %s) SELECT n FROM s",
    "mysql": "WITH RECURSIVE s(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM s WHERE n < %s) SELECT n FROM s",
}
_ID = {
    "postgresql": "('00000000-0000-7000-{part}-' || lpad(to_hex({n}), 12, '0'))::uuid",
    "sqlite": "printf('0000000000007000{part}%%012x', {n})",
    "mysql": "concat('00000000-0000-7000-{part}-', lpad(hex({n}), 12, '0'))",
}
_JOINED = {"postgresql": " || ", "sqlite": " || ", "mysql": ", "}
# The moment in a column, or now, moved by a number of seconds.
_MOVED = {
    "postgresql": "{moment} + ({seconds}) * interval '1 second'",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', {moment}, ({seconds}) || ' seconds')",
    "mysql": "{moment} + INTERVAL ({seconds}) * 1000000 MICROSECOND",
}
_NOW = {"postgresql": "now()", "sqlite": "'now'", "mysql": "utc_timestamp(6)"}
# The indexes of the table %s that stand behind no constraint: the name, and what makes it anew.
_INDEXES = {
    "postgresql": """
        SELECT i.indexname, i.indexdef FROM pg_indexes i
        WHERE i.tablename = %s AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conname = i.indexname)
    """,
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = %s AND sql IS NOT NULL",
}
_SETTLE = {
    "postgresql": ["VACUUM (ANALYZE)", "CHECKPOINT"],
    "sqlite": ["PRAGMA wal_checkpoint(TRUNCATE)"],
    "mysql": ["ANALYZE TABLE django_tasks_task, django_tasks_taskresult"],
}


def id_of(n: str, part: str = "8000") -> str:
    """Return SQL for an id that no UUID of version 7 made today can meet, in order of ``n`` within its ``part``."""
    return _ID[connection.vendor].format(n=n, part=part)


def text_of(*parts: str) -> str:
    """Return SQL for texts and numbers one after the other."""
    joined = _JOINED[connection.vendor].join(f"({part})" for part in parts)
    return f"concat({joined})" if connection.vendor == "mysql" else joined


def ago(seconds: str) -> str:
    """Return SQL for a moment so many seconds ago."""
    return moved(_NOW[connection.vendor], f"-1.0 * ({seconds})")


def moved(moment: str, seconds: str) -> str:
    """Return SQL for a moment so many seconds later."""
    return _MOVED[connection.vendor].format(moment=moment, seconds=seconds)


def copy(
    model: type[Model],
    count: int,
    changed: Mapping[str, str],
    key: Any = None,
    tell: Callable[[int], object] = lambda made: None,
) -> None:
    """Copy the row of ``model`` with this key, or the newest one, ``count`` times.

    ``changed`` has SQL of n, from 1 to ``count``, for columns that differ, a per cent sign written twice; if nothing is
    said of the id, that does, too. ``tell`` is told now and then how many there are.

    Raises ValueError when there is no row to copy.
    """
    key = key or model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
    if key is None:
        raise ValueError(f"{model.__name__} has no row to copy")
    changed = {"id": id_of("n"), **changed}
    columns = [str(field.column) for field in model._meta.concrete_fields]
    values = ", ".join(changed.get(name, name) for name in columns)
    table = model._meta.db_table
    query = f"""
        INSERT INTO {table} ({", ".join(columns)}) SELECT {values}
        FROM (SELECT * FROM {table} WHERE id = %s) AS model, ({_NUMBERS[connection.vendor]}) AS numbers
    """  # noqa: S608 - names of our own models only
    stored = model._meta.pk.get_db_prep_value(key, connection)
    for start in range(1, count + 1, CHUNK):
        last = min(start + CHUNK - 1, count)
        with connection.cursor() as cursor:
            if connection.vendor == "mysql":
                limit = "max_recursive_iterations" if connection.mysql_is_mariadb else "cte_max_recursion_depth"  # type: ignore[attr-defined]
                cursor.execute(f"SET SESSION {limit} = {CHUNK}")
            cursor.execute(query, [stored, start, last])
        tell(last)


@contextmanager
def without_indexes(model: type[Model]) -> Iterator[None]:
    """Take the indexes off while rows are made: afterwards all of one are made in a fraction of the time."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"SHOW CREATE TABLE {table}")
            keys = re.findall(r"^ +((?:UNIQUE )?KEY (`\w+`) .*?),?$", cursor.fetchone()[1], re.MULTILINE)
            off = [f"ALTER TABLE {table} " + ", ".join(f"DROP KEY {name}" for _all, name in keys)]
            on = [f"ALTER TABLE {table} " + ", ".join(f"ADD {key}" for key, _name in keys)]
        else:
            cursor.execute(_INDEXES[connection.vendor], [table])
            indexes = cursor.fetchall()
            off, on = [f"DROP INDEX {name}" for name, _sql in indexes], [sql for _name, sql in indexes]
        for statement in off:
            cursor.execute(statement)
    yield
    with connection.cursor() as cursor:
        for statement in on:
            cursor.execute(statement)


def settle() -> None:
    """Do now what the database would do in the background after such a load: it belongs to no measurement."""
    with connection.cursor() as cursor:
        for statement in _SETTLE[connection.vendor]:
            cursor.execute(statement)
