"""Different values of a column, however many rows have them."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks.distinct import STEPS, sql_of, values_of
from django_tasks.models import TaskResult
from tests.databases import TestDatabase
from tests.rows import finished, saved

NAMES = [f"shop.{n:02}" for n in range(2 * STEPS + 1)]


def names(database: TestDatabase, **wanted: Any) -> list[str]:
    return values_of(database.connection.alias, TaskResult._meta.db_table, "name", **{"most": 1_000, **wanted})


@pytest.fixture
def _many(database: TestDatabase) -> None:
    saved(finished(name=name) for name in NAMES for _ in range(3))


@pytest.mark.usefixtures("_many")
def test_each_value_is_told_once_in_order(database: TestDatabase) -> None:
    assert names(database) == NAMES
    assert names(database, descending=True) == NAMES[::-1]
    assert names(database, most=5) == NAMES[:5]
    assert names(database, most=STEPS + 1, descending=True) == NAMES[::-1][: STEPS + 1]


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize("at", [0, 3, len(NAMES) - 1])
def test_what_is_behind_a_value_is_told(database: TestDatabase, at: int) -> None:
    assert names(database, behind=NAMES[at]) == NAMES[at + 1 :]
    assert names(database, behind=NAMES[at], descending=True) == NAMES[:at][::-1]


def test_there_may_be_no_values(database: TestDatabase) -> None:
    assert names(database) == names(database, descending=True) == []


@pytest.mark.usefixtures("_many")
@pytest.mark.databases("sqlite", "postgresql")
def test_rows_can_be_left_out(database: TestDatabase) -> None:
    table, where = TaskResult._meta.db_table, "name <> 'shop.01'"
    expected = [name for name in NAMES if name != "shop.01"]
    assert names(database, where=where) == expected
    with database.connection.cursor() as cursor:
        cursor.execute(sql_of(database.connection.alias, table, "name", where=where, most=1_000))
        assert [value for (value,) in cursor.fetchall()] == expected
