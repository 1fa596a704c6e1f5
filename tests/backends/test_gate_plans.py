"""What the gatekeeper costs with 100,000 tasks held back: it reads the heads, the places and what it lets through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.database.heads import HEADS
from django_tasks.backends.message import Holder
from django_tasks.models import Limit
from tests.backends.calls import ALL, claim
from tests.backends.test_plans import ROWS, Plans, fill, pages, rows_read, run, scans
from tests.databases import TestDatabase

#: All due, a second apart.
DUE = -200_000
#: Pages of 8 kB that one statement may touch.
PAGES = 800
#: Pages for each of many heads: down an index four times, and to the row.
PAGES_PER_HEAD = 30


@pytest.fixture
def broker(database: TestDatabase) -> Iterator[DatabaseBroker]:
    """Give the broker under test itself, to look at its connection; behind it, 100,000 tasks in 20 heads."""
    broker = DatabaseBroker(database.alias)
    fill(database, DUE)
    run(
        database,
        "UPDATE django_tasks_task SET state = 'LIMITED', limit_key = CASE WHEN priority < 3 THEN 'a' ELSE 'b' END",
    )
    Limit.objects.using(database.alias).create(kind="task", name="app.task", concurrency=10)
    yield broker
    broker.close()


@pytest.mark.databases("postgresql")
def test_postgresql_reads_heads_and_places_by_index(
    database: TestDatabase, broker: DatabaseBroker, holder: Holder
) -> None:
    run(database, "VACUUM ANALYZE django_tasks_task")
    plans = Plans(broker)
    assert broker.admit(ALL).admitted == 10
    assert broker.survey(ALL).limited
    heads, places = plans.of("WITH RECURSIVE h"), plans.of("GROUP BY queue, name, limit_key")
    first, look = plans.of("AS expired"), plans.of("WITH RECURSIVE b")
    assert scans(heads) == {"djt_task_limited", "django_tasks_task_pkey"}
    assert scans(places) == {"djt_task_limited"}
    assert "djt_task_limited" in scans(first)
    assert "Seq Scan on django_tasks_task" not in scans(first)
    for plan in (heads, places, first, look):
        assert pages(plan) < PAGES
    assert len(claim(broker, holder)) == 10


@pytest.mark.databases("postgresql")
def test_postgresql_goes_on_behind_the_last_head_by_index(database: TestDatabase, broker: DatabaseBroker) -> None:
    run(
        database,
        "UPDATE django_tasks_task SET limit_key = 'a', name = 'app.' || abs(hashtext(id::text)) % 1000",
        "VACUUM ANALYZE django_tasks_task",
    )
    Limit.objects.using(database.alias).create(kind="queue", name="default", concurrency=1)
    Limit.objects.using(database.alias).create(kind="queue", name="other", concurrency=1)
    plans = Plans(broker)
    for _ in range(3):
        broker.admit(ALL)
        heads = plans.of("WITH RECURSIVE h")
        assert scans(heads) == {"djt_task_limited", "django_tasks_task_pkey"}
        assert pages(heads) < HEADS * PAGES_PER_HEAD


@pytest.mark.databases("sqlite")
def test_sqlite_reads_heads_and_places_by_index(database: TestDatabase, broker: DatabaseBroker, holder: Holder) -> None:
    statements: list[str] = []
    with broker.engine.session() as connection:
        raw = connection.connection
        raw.set_trace_callback(statements.append)
    assert broker.admit(ALL).admitted == 10
    raw.set_trace_callback(None)
    hot = [sql for sql in statements if sql.split()[0] in {"SELECT", "UPDATE", "WITH"}]
    lines = [row[3] for sql in hot for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert not [
        line for line in lines if line.startswith("SCAN") and "django_tasks_task" in line and "INDEX" not in line
    ]
    of_tasks = {line for line in lines if "djt_task_limited" in line}
    assert of_tasks
    assert all(line.startswith("SEARCH") and "state=?" in line for line in of_tasks)
    assert len(claim(broker, holder)) == 10


@pytest.mark.databases("mariadb")
def test_mariadb_reads_only_the_rows_it_wants(database: TestDatabase, broker: DatabaseBroker, holder: Holder) -> None:
    run(database, "ANALYZE TABLE django_tasks_task")
    rows_read(broker)
    assert broker.admit(ALL).admitted == 10
    assert rows_read(broker) < ROWS
    assert len(claim(broker, holder)) == 10
