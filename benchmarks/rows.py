"""Fill our tables by SQL: a million waiting tasks or five million results in a minute or two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection

if TYPE_CHECKING:
    from django.db.models import Model

#: Rows by one statement.
CHUNK = 250_000

# A row ``n`` for each number from %s to %s.
_NUMBERS = {
    "postgresql": "SELECT generate_series(%s::bigint, %s::bigint) AS n",
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM s WHERE n < %s) SELECT n FROM s",
    "mysql": "WITH RECURSIVE s(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM s WHERE n < %s) SELECT n FROM s",
}
# An id that no UUID of version 7 made today can meet, in order of n.
_ID = {
    "postgresql": "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid",
    "sqlite": "printf('00000000000070008000%%012x', n)",
    "mysql": "concat('00000000-0000-7000-8000-', lpad(hex(n), 12, '0'))",
}
# The moment in a column, moved by a number of seconds.
_MOVED = {
    "postgresql": "{column} + ({seconds}) * interval '1 second'",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', {column}, ({seconds}) || ' seconds')",
    "mysql": "{column} + INTERVAL ({seconds}) * 1000000 MICROSECOND",
}
_SETTLE = {
    "postgresql": ["VACUUM (ANALYZE)", "CHECKPOINT"],
    "sqlite": ["PRAGMA wal_checkpoint(TRUNCATE)"],
    "mysql": ["ANALYZE TABLE django_tasks_task, django_tasks_taskresult"],
}


def copy(model: type[Model], count: int, column: str, seconds: str) -> None:
    """Copy the newest row of ``model`` ``count`` times; move the moment in ``column`` by ``seconds``, SQL of n, each.

    Raises ValueError when there is no row to copy.
    """
    row = model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
    if row is None:
        raise ValueError(f"{model.__name__} has no row to copy")
    changed = {
        "id": _ID[connection.vendor],
        column: _MOVED[connection.vendor].format(column=column, seconds=seconds),
    }
    columns = [str(field.column) for field in model._meta.concrete_fields]
    values = ", ".join(changed.get(name, name) for name in columns)
    table = model._meta.db_table
    query = f"""
        INSERT INTO {table} ({", ".join(columns)}) SELECT {values}
        FROM (SELECT * FROM {table} WHERE id = %s) AS model, ({_NUMBERS[connection.vendor]}) AS numbers
    """  # noqa: S608 - names of our own models only
    key = model._meta.pk.get_db_prep_value(row, connection)
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            limit = "max_recursive_iterations" if connection.mysql_is_mariadb else "cte_max_recursion_depth"  # type: ignore[attr-defined]
            cursor.execute(f"SET SESSION {limit} = {CHUNK}")
        for start in range(1, count + 1, CHUNK):
            cursor.execute(query, [key, start, min(start + CHUNK - 1, count)])


def settle() -> None:
    """Do now what the database would do in the background after such a load: it belongs to no measurement."""
    with connection.cursor() as cursor:
        for statement in _SETTLE[connection.vendor]:
            cursor.execute(statement)
