"""Pages of the to-do list and the ledger at a cost that does not grow with them: no OFFSET, no COUNT(*), no long wait.

A page begins behind a row (a *bookmark*), which an index finds at once, however deep it lies. Rows whose order no
single index gives are the union of *branches*, each of which is one walk along an index: the newest results of all
states, say, are the newest of each state, merged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

from django.core.exceptions import EmptyResultSet, ValidationError
from django.db import DatabaseError, connections, models, transaction
from django.db.models import Q

#: Rows on a page.
SIZE: Final = 100
#: Counting stops here.
COUNT_LIMIT: Final = 10_000
#: Seconds that one query for people may take.
PATIENCE: Final = 5.0
#: Rows that are looked through where no index serves a question.
REACH: Final = 20_000

M = TypeVar("M", bound=models.Model)

#: SQLite's machine looks at the clock every so many steps, less than a millisecond.
_SQLITE_STEPS: Final = 10_000
_POSTGRESQL_CANCELLED: Final = "57014"
_MYSQL_CANCELLED: Final = frozenset({1969, 3024})  # MariaDB's and MySQL's


class TooSlow(Exception):
    """The query took longer than people wait; a narrower question may be quick."""


class Bookmark(NamedTuple):
    """Where a page begins: behind the row with these values of the ordering columns."""

    #: Do newer rows follow? Else older ones.
    newer: bool
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str, *, newer: bool) -> Bookmark:
        """Read what :func:`written` wrote. Raises ``ValueError`` for anything else."""
        *moment, key = text.split("~")
        if len(moment) > 1 or not key:
            raise ValueError(f"{text!r} is no bookmark")
        when = [datetime.fromisoformat(each) for each in moment]
        if any(each.tzinfo is None for each in when):
            raise ValueError(f"{text!r} is no bookmark: its moment has no zone")
        try:
            return cls(newer, (*(each.astimezone(UTC) for each in when), key))
        except OverflowError as error:
            raise ValueError(f"{text!r} is no bookmark: its moment is beyond the calendar") from error


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """Some rows, newest first."""

    rows: list[M]
    #: Bookmarks of the pages around it, ``None`` where there is none.
    newer: str | None
    older: str | None
    #: It is all that was found up to where looking ended, behind which there may be more.
    cut: bool = False


def page(
    rows: models.QuerySet[M],
    keys: Sequence[str],
    bookmark: Bookmark | None = None,
    branches: Sequence[models.QuerySet[M]] | None = None,
    *,
    size: int = SIZE,
    end: Any = None,
) -> Page[M]:
    """Return a page of ``size`` of the ``rows``, ordered by the columns ``keys``, newest first, the primary key last.

    ``branches`` are parts of ``rows`` which together are all of it and have no row in common. One query, two if there
    are several branches; a page before the beginning costs them twice. ``end`` is a value of the first column beyond
    which nothing is looked for (see :func:`reach`).

    Raises ``ValueError`` when the bookmark does not fit the columns.
    """
    backwards = bookmark is not None and bookmark.newer
    order = [key if backwards else f"-{key}" for key in keys]
    bounded = [rows] if branches is None else branches
    if bookmark is not None:
        bounded = [_beyond(branch, keys, bookmark) for branch in bounded]
    if end is not None:
        bounded = [_up_to(branch, keys[0], end, backwards=backwards) for branch in bounded]
    if len(bounded) == 1:
        found = list(bounded[0].order_by(*order)[: size + 1])
    else:
        found = _merged(
            rows, [branch.order_by(*order).values_list(*keys)[: size + 1] for branch in bounded], order, size
        )
    more = len(found) > size
    found = found[:size]
    cut = end is not None and not more
    if backwards:
        if not more and not cut:  # the list begins here: show it from its beginning
            return page(rows, keys, branches=branches, size=size)
        found.reverse()
    newer = _written(found[0], keys) if found and bookmark is not None else None
    older = _written(found[-1], keys) if found and (more or backwards) else None
    if cut:
        edge = _edge(end, keys, newer=backwards)
        newer, older = (edge, older) if backwards else (newer, edge)
    return Page(found, newer, older, cut)


def reach(
    walks: Sequence[models.QuerySet[Any]], keys: Sequence[str], bookmark: Bookmark | None = None, *, rows: int
) -> Any:
    """Return at which value of the first of the columns ``keys`` one is after looking through so many rows of each of
    some walks along an index, from a bookmark or the newest row on; ``None`` if they all end before that. One query."""
    backwards = bookmark is not None and bookmark.newer
    key = keys[0]
    if bookmark is not None:
        walks = [_beyond(walk, keys, bookmark) for walk in walks]
    ends = [
        walk.order_by(key if backwards else f"-{key}").values_list(key)[rows - 1 : rows]  # at a known price
        for walk in walks
    ]
    sql, params = _union(ends)
    if not sql:
        return None
    connection = connections[walks[0].db]
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        field = walks[0].model._meta.get_field(key)
        found = [_converted(field, value, connection) for (value,) in cursor.fetchall()]
    return (min(found) if backwards else max(found)) if found else None


def count(branches: Sequence[models.QuerySet[Any]], key: str | None) -> int:
    """Count the rows of ``branches``, up to one more than :data:`COUNT_LIMIT`; ``key`` is the column to walk along,
    ``None`` if the database is to find its way."""
    heads = [_head(branch, key) for branch in branches]
    sql, params = _union(heads)
    if not sql:
        return 0
    with connections[branches[0].db].cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM ({sql} LIMIT {COUNT_LIMIT + 1}) AS n", params)  # noqa: S608 - our own SQL
        return int(cursor.fetchone()[0])


def count_each(kinds: Mapping[str, models.QuerySet[Any]], key: str | None) -> dict[str, int]:
    """Count the rows of each kind as :func:`count` does, in one query; ``key`` is the column to walk along, ``None`` if
    the database is to find its way."""
    parts: list[str] = []
    params: list[Any] = []
    alias = ""
    for at, rows in enumerate(kinds.values()):
        alias = rows.db
        sql, its_params = _union([_head(rows, key)])
        if sql:
            parts.append(f"SELECT {at} AS kind, COUNT(*) FROM ({sql} LIMIT {COUNT_LIMIT + 1}) AS n{at}")  # noqa: S608
            params += its_params
    found: dict[int, int] = {}
    if parts:
        with connections[alias].cursor() as cursor:
            cursor.execute(" UNION ALL ".join(parts), params)
            found = dict(cursor.fetchall())
    return {kind: int(found.get(at, 0)) for at, kind in enumerate(kinds)}


def count_by(
    heads: Sequence[models.QuerySet[Any]], names: Sequence[str], *, limit: int = COUNT_LIMIT + 1
) -> dict[tuple[Any, ...], int]:
    """Count rows by the values of the columns ``names``, the first ``limit`` of each of ``heads``, in one query.

    The order of each is a walk along an index.
    """
    sql, params = _union([head.values_list(*names)[:limit] for head in heads])
    if not sql:
        return {}
    columns = ", ".join(names)
    fields = [heads[0].model._meta.get_field(name) for name in names]
    with connections[heads[0].db].cursor() as cursor:
        cursor.execute(f"SELECT {columns}, COUNT(*) FROM ({sql}) AS n GROUP BY {columns}", params)  # noqa: S608 - our own SQL
        return {
            tuple(field.to_python(value) for field, value in zip(fields, values, strict=True)): int(count)
            for *values, count in cursor.fetchall()
        }


def together(heads: Sequence[models.QuerySet[Any, Any]]) -> list[tuple[Any, ...]]:
    """Return the rows of all of ``heads``, each of which gives as many values of the same types as the first one does;
    one query."""
    sql, params = _union(heads)
    if not sql:
        return []
    compiler = heads[0].query.get_compiler(using=heads[0].db)
    compiler.setup_query()
    converters = compiler.get_converters([column for column, _sql, _alias in compiler.select])
    with connections[heads[0].db].cursor() as cursor:
        cursor.execute(sql, params)
        return [tuple(row) for row in compiler.apply_converters(cursor.fetchall(), converters)]


@contextmanager
def time_limit(alias: str, seconds: float = PATIENCE) -> Iterator[None]:
    """Break off each query of this block that takes longer (on SQLite, the block).

    Raises :class:`TooSlow`. On PostgreSQL the block is a transaction.
    """
    connection = connections[alias]
    limits = {"postgresql": _postgresql_limit, "mysql": _mysql_limit, "sqlite": _sqlite_limit}
    try:
        with limits[connection.vendor](connection, seconds):
            yield
    except DatabaseError as error:
        if not _is_cancelled(error, connection.vendor):
            raise
        raise TooSlow(f"The query was broken off after {seconds:g} s") from error


# Inside --------------------------------------------------------------------------------------------------------------


def _beyond(branch: models.QuerySet[M], keys: Sequence[str], bookmark: Bookmark) -> models.QuerySet[M]:
    if len(bookmark.values) != len(keys):
        raise ValueError(f"a bookmark has {len(keys)} values here")
    fields = {field.name: field for field in branch.model._meta.concrete_fields}
    try:
        values = [fields[key].to_python(value) for key, value in zip(keys, bookmark.values, strict=True)]
    except ValidationError as error:
        raise ValueError("; ".join(error.messages)) from error
    side = "gt" if bookmark.newer else "lt"
    *first, (last, value) = zip(keys, values, strict=True)
    behind = Q(**{f"{last}__{side}": value})
    for name, bound in first:
        # The first condition bounds the walk along the index, which an OR alone would not.
        behind = Q(**{f"{name}__{side}e": bound}) & (Q(**{f"{name}__{side}": bound}) | behind)
    return branch.filter(behind)


def _up_to(branch: models.QuerySet[M], key: str, end: Any, *, backwards: bool) -> models.QuerySet[M]:
    found = branch.filter(**{f"{key}__{'lte' if backwards else 'gte'}": end})
    conditions = found.query.where.children
    conditions.insert(0, conditions.pop())  # of two bounds of a column, SQLite walks from the first
    return found


def _merged(
    rows: models.QuerySet[M], heads: Sequence[models.QuerySet[Any, Any]], order: Sequence[str], size: int
) -> list[M]:
    """Return the first ``size`` rows, and one more if there is one, of heads that give the columns of ``order``."""
    sql, params = _union(heads)
    if not sql:
        return []
    by = ", ".join(f"{at} {'DESC' if key.startswith('-') else 'ASC'}" for at, key in enumerate(order, start=1))
    with connections[rows.db].cursor() as cursor:
        cursor.execute(f"{sql} ORDER BY {by} LIMIT {size + 1}", params)
        pks = [rows.model._meta.pk.to_python(row[-1]) for row in cursor.fetchall()]
    by_pk = {row.pk: row for row in rows.filter(pk__in=pks)}
    return [by_pk[pk] for pk in pks if pk in by_pk]


def _head(rows: models.QuerySet[Any], key: str | None) -> models.QuerySet[Any, Any]:
    """Return as many of these rows as are counted at most."""
    ordered = rows.order_by(f"-{key}") if key else rows.order_by()
    return ordered.values_list(key or "pk")[: COUNT_LIMIT + 1]


def _union(heads: Sequence[models.QuerySet[Any, Any]]) -> tuple[str, list[Any]]:
    """Return the SQL of all of them together; Django's own union() cannot hold limits on SQLite."""
    parts: list[str] = []
    params: list[Any] = []
    for head in heads:
        try:
            sql, its_params = head.query.get_compiler(using=head.db).as_sql()
        except EmptyResultSet:
            continue
        parts.append(f"SELECT * FROM ({sql}) AS b{len(parts)}")  # noqa: S608 - our own SQL
        params += its_params
    return " UNION ALL ".join(parts), params


def _converted(field: Any, value: Any, connection: Any) -> Any:
    """Return a value that SQL of our own read as a query set would have it."""
    column = field.get_col(field.model._meta.db_table)
    for convert in (*connection.ops.get_db_converters(column), *field.get_db_converters(connection)):
        value = convert(value, column, connection)
    return value


def _edge(end: Any, keys: Sequence[str], *, newer: bool) -> str:
    """Return the bookmark behind all rows that have this value of the first column."""
    extreme = UUID(int=(1 << 128) - 1 if newer else 0)
    first = end.isoformat() if isinstance(end, datetime) else str(end)
    return "~".join([first, *(str(extreme) for _key in keys[1:])])


def _written(row: models.Model, keys: Sequence[str]) -> str:
    values = [getattr(row, key) for key in keys]
    return "~".join(value.isoformat() if isinstance(value, datetime) else str(value) for value in values)


@contextmanager
def _postgresql_limit(connection: Any, seconds: float) -> Iterator[None]:
    nested = connection.in_atomic_block
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('statement_timeout'), set_config('statement_timeout', %s, true)",
            [f"{seconds * 1000:.0f}ms"],
        )
        before = cursor.fetchone()[0]
        yield
        if nested:  # else the end of the transaction resets it
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])


@contextmanager
def _mysql_limit(connection: Any, seconds: float) -> Iterator[None]:
    if connection.mysql_is_mariadb:
        setting, value = "max_statement_time", f"{seconds:.3f}"
    else:
        setting, value = "max_execution_time", f"{seconds * 1000:.0f}"
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION {setting} = {value}")
        try:
            yield
        finally:
            cursor.execute(f"SET SESSION {setting} = DEFAULT")


@contextmanager
def _sqlite_limit(connection: Any, seconds: float) -> Iterator[None]:
    connection.ensure_connection()
    end = time.monotonic() + seconds
    raw = connection.connection
    raw.set_progress_handler(lambda: time.monotonic() > end, _SQLITE_STEPS)
    try:
        yield
    finally:
        raw.set_progress_handler(None, 0)


def _is_cancelled(error: DatabaseError, vendor: str) -> bool:
    if vendor == "postgresql":
        cause = error.__cause__
        return _POSTGRESQL_CANCELLED in (getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None))
    return error.args[0] in _MYSQL_CANCELLED if vendor == "mysql" else "interrupted" in str(error)
