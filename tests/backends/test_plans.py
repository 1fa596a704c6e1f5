"""The plans of the hot statements, with 100,000 tasks in the table: an index to the rows wanted, and nothing else.

Each test runs the broker's own method and looks at the plans of the statements that it sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from django_tasks import states
from django_tasks.backends.base import Queues
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.message import Edge, Holder
from tests.backends.calls import ALL, a_message, a_worker, success
from tests.databases import TestDatabase

TASKS = 100_000
#: Three quarters of the tasks in the first one.
QUEUES = Queues(("default", "other"))
#: What differs between the databases in a statement that makes many tasks: ids, moments in so many seconds, numbers.
SPELLINGS = {
    "postgresql": ("gen_random_uuid()", "now() + ({}) * interval '1 s'", f"generate_series(1, {TASKS}) AS s(n)"),
    "sqlite": (
        "lower(hex(randomblob(16)))",
        "strftime('%Y-%m-%d %H:%M:%f', 'now', ({}) || ' seconds')",
        f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {TASKS}) SELECT n FROM s)",
    ),
    "mysql": (
        "replace(uuid(), '-', '')",
        "utc_timestamp(6) + INTERVAL ({}) SECOND",
        f"(SELECT CAST(seq AS SIGNED) AS n FROM seq_1_to_{TASKS}) s",
    ),
}
#: Offsets: all due, none due.
DUE, LATER = -2 * TASKS, 3_600
#: Pages of 8 kB that a claim of ten tasks may touch: some for each row and index, none for what it does not want.
PAGES = 600
#: Rows and index entries that a step of MariaDB may read, for the same reason.
ROWS = 500


def fill(database: TestDatabase, offset: int) -> None:
    """Make the tasks, in five priorities, due a second apart from ``offset`` seconds from now on."""
    id_, moment, numbers = SPELLINGS[database.vendor]
    run(
        database,
        "INSERT INTO django_tasks_task (id, name, queue, priority, created_at, due_at, body, encoding, state, attempt,"
        f" retries, losses, at_most_once, awaited) SELECT {id_}, 'app.task', CASE WHEN n % 4 = 0 THEN 'other' ELSE"
        f" 'default' END, n % 5, {moment.format(0)}, {moment.format(f'{offset} + n')}, '[[],{{}}]', '', 'PENDING', 0,"
        f" 0, 0, false, false FROM {numbers}",
    )


def run(database: TestDatabase, *statements: str) -> None:
    """Run statements on the site's own connection."""
    with database.connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def broker(database: TestDatabase) -> Iterator[DatabaseBroker]:
    """Give the broker under test itself, to look at its connection."""
    broker = DatabaseBroker(database.alias)
    yield broker
    broker.close()


# PostgreSQL -----------------------------------------------------------------------------------------------------------


class Plans:
    """The plans of the statements that a broker sends, told by the server's own auto_explain."""

    def __init__(self, broker: DatabaseBroker) -> None:
        self.found: list[dict[str, Any]] = []
        with broker.engine.session() as connection:
            raw = connection.connection
            try:
                raw.execute("LOAD 'auto_explain'")
            except psycopg.errors.UndefinedFile:
                pytest.skip("this PostgreSQL comes without auto_explain")
            raw.add_notice_handler(self._add)
            for setting in ("auto_explain.log_min_duration = 0", "auto_explain.log_format = json"):
                raw.execute(f"SET {setting}")
            for setting in ("log_analyze", "log_buffers"):
                raw.execute(f"SET auto_explain.{setting} = on")
            raw.execute("SET client_min_messages = log")
        self.found.clear()

    def _add(self, notice: Any) -> None:
        _, found, plan = (notice.message_primary or "").partition("plan:")
        if found:
            self.found.append(json.loads(plan))

    def of(self, words: str) -> dict[str, Any]:
        """Return the last plan of a statement with these words."""
        return next(plan for plan in reversed(self.found) if words in plan["Query Text"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every node of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scans(plan: dict[str, Any]) -> set[str]:
    """Return how tables are read: by the names of indexes, or by a scan of a table that uses none."""
    reading = [node for node in nodes(plan["Plan"]) if "Scan" in node["Node Type"] and "Relation Name" in node]
    return {node.get("Index Name") or f"{node['Node Type']} on {node['Relation Name']}" for node in reading}


def pages(plan: dict[str, Any]) -> int:
    """Return how many pages a statement touched."""
    return int(plan["Plan"]["Shared Hit Blocks"]) + int(plan["Plan"]["Shared Read Blocks"])


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("offset", [DUE, LATER], ids=["due", "later"])
@pytest.mark.parametrize("statistics", ["fresh", "stale"])
def test_postgresql_walks_the_claim_index_only(
    database: TestDatabase, broker: DatabaseBroker, offset: int, statistics: str
) -> None:
    """R10, R28: at a cost independent of what waits or is scheduled, also when the table was empty a moment ago."""
    run(database, "ALTER TABLE django_tasks_task SET (autovacuum_enabled = false)", "ANALYZE django_tasks_task")
    fill(database, offset)
    if statistics == "fresh":
        run(database, "ANALYZE django_tasks_task")
    holder = a_worker(broker)
    plans = Plans(broker)
    step = broker.step([], holder=holder, queues=QUEUES, limit=10)
    assert len(step.deliveries) == (10 if offset == DUE else 0)
    broker.step([success(one) for one in step.deliveries], holder=holder, queues=QUEUES, limit=10)
    assert broker.survey(ALL).due == (offset == DUE)

    claim, bands = plans.of("AS (UPDATE django_tasks_task"), plans.of("WITH RECURSIVE b")
    assert scans(claim) == {"djt_task_claim", "django_tasks_task_pkey"}
    # There are few limits.
    assert scans(bands) == {"djt_task_claim", "djt_task_limited", "Seq Scan on django_tasks_limit"}
    assert pages(claim) < PAGES
    assert pages(bands) < PAGES
    if offset == DUE:
        step_plan = plans.of("done AS (")
        assert scans(step_plan) == {"djt_task_claim", "django_tasks_task_pkey"}
        assert pages(step_plan) < PAGES


@pytest.mark.databases("postgresql")
def test_postgresql_goes_from_task_to_task_of_a_chain_by_index(
    database: TestDatabase, broker: DatabaseBroker, holder: Holder
) -> None:
    """In one statement, at a cost independent of what else is scheduled or waits for others."""
    fill(database, LATER)
    run(
        database,
        "INSERT INTO django_tasks_edge (before_id, after_id, kind) SELECT gen_random_uuid(), gen_random_uuid(), 'after'"
        f" FROM generate_series(1, {TASKS})",
    )
    node = {"options": '{"node": {"out": true}}'}
    first, second = a_message(**node), a_message(waiting=True, **node)
    assert broker.step([], holder=holder, queues=QUEUES, limit=10).deliveries == []  # and it knows the priorities
    broker.publish_workflow([first, second], [Edge(first.id, second.id)])
    [one] = broker.step([], holder=holder, queues=QUEUES, limit=10).deliveries
    plans = Plans(broker)
    [two] = broker.step([success(one, linked=True)], holder=holder, queues=QUEUES, limit=10).deliveries
    assert two.id == second.id
    plan = plans.of("more AS (")
    own = {"djt_task_claim", "djt_task_aside", "django_tasks_task_pkey"}
    own |= {"djt_edge_before", "djt_edge_after", "djt_edge_open"}
    assert scans(plan) <= own
    assert pages(plan) < PAGES


@pytest.mark.databases("postgresql")
def test_postgresql_prepares_the_hot_statements_once_for_all_values(broker: DatabaseBroker, holder: Holder) -> None:
    """A generic plan is what the other tests here look at, and planning anew would cost more than the claim."""
    for limit in (1, 5, 100):
        broker.step([], holder=holder, limit=limit)
    with broker.engine.session() as connection:
        prepared = connection.connection.execute(
            "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"
        )
        found = {"claim" if "claimed AS" in row[0] else "bands": row[1:] for row in prepared.fetchall()}
    assert found["claim"] == (3, 0)
    assert found["bands"][1] == 0


@pytest.mark.databases("postgresql")
def test_postgresql_rescues_and_prunes_by_index(database: TestDatabase, broker: DatabaseBroker, holder: Holder) -> None:
    fill(database, DUE)
    run(database, "ANALYZE")
    broker.step([], holder=holder, limit=10)
    plans = Plans(broker)
    assert len(broker.held(holder.worker)) == 10
    broker.prune({states.SUCCESS: timedelta(days=1)})
    broker.rescue(max_losses=3)
    assert scans(plans.of("FROM django_tasks_task WHERE worker_id")) == {"djt_task_worker"}
    assert scans(plans.of("FROM django_tasks_taskresult")) == {"djt_result_state"}


# SQLite ---------------------------------------------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("offset", [DUE, LATER], ids=["due", "later"])
def test_sqlite_searches_by_index_only(database: TestDatabase, broker: DatabaseBroker, offset: int) -> None:
    """R10, R28, R29"""
    fill(database, offset)
    holder = a_worker(broker)
    statements: list[str] = []
    with broker.engine.session() as connection:
        raw = connection.connection
        raw.set_trace_callback(statements.append)
    step = broker.step([], holder=holder, queues=QUEUES, limit=10)
    assert len(step.deliveries) == (10 if offset == DUE else 0)
    broker.step([success(one) for one in step.deliveries], holder=holder, queues=ALL, limit=10)
    broker.held(holder.worker)
    broker.prune({states.SUCCESS: timedelta(days=1)})
    raw.set_trace_callback(None)

    hot = [sql for sql in statements if sql.split()[0] in {"SELECT", "UPDATE", "DELETE", "INSERT"}]
    lines = [row[3] for sql in hot for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}")]
    # All outcomes of a batch are read, all limits, of which there are few, and all workers, sets of names, states of
    # limits and marks of failures when some are to be forgotten.
    scanned = {line for line in lines if line.startswith("SCAN")}
    small = {f"SCAN django_tasks_{name}" for name in ("worker", "tasknames", "limit", "limitstate", "failuremark")}
    asked_for_one = ("SCAN django_tasks_tasktag", "SCAN django_tasks_edge")  # is there any?
    scanned = {line for line in scanned if not line.startswith(asked_for_one)}
    assert scanned <= {"SCAN j VIRTUAL TABLE INDEX 1:", *small}
    assert not [line for line in lines if "TEMP B-TREE" in line]
    used = {line.partition("INDEX ")[2].split(" ")[0] for line in lines}
    assert {"djt_task_claim", "djt_task_worker", "djt_result_state"} <= used


# MariaDB --------------------------------------------------------------------------------------------------------------


@pytest.mark.databases("mariadb")
@pytest.mark.parametrize("offset", [DUE, LATER], ids=["due", "later"])
def test_mariadb_reads_only_the_rows_it_wants(database: TestDatabase, broker: DatabaseBroker, offset: int) -> None:
    """R10, R28, R29"""
    fill(database, offset)
    run(database, "ANALYZE TABLE django_tasks_task")
    holder = a_worker(broker)
    statements = spy(broker)
    rows_read(broker)
    step = broker.step([], holder=holder, queues=QUEUES, limit=10)
    assert len(step.deliveries) == (10 if offset == DUE else 0)
    assert rows_read(broker) < ROWS
    broker.step([success(one) for one in step.deliveries], holder=holder, queues=ALL, limit=10)
    assert rows_read(broker) < ROWS
    broker.held(holder.worker)
    broker.prune({states.SUCCESS: timedelta(days=1)})
    assert rows_read(broker) < ROWS

    used = set()
    for sql in statements:
        if sql.split()[0] in {"SELECT", "UPDATE", "DELETE"} and "django_tasks" in sql:
            used |= {line["key"] for line in explained(broker, sql)}
    assert {"djt_task_claim", "djt_task_worker", "djt_result_state"} <= used


def spy(broker: DatabaseBroker) -> list[str]:
    """Return a list to which every statement is added that the broker sends from now on."""
    statements: list[str] = []
    with broker.engine.session() as connection:
        raw = connection.connection
        query = raw.query

        def heard(sql: Any, *args: Any) -> Any:
            statements.append((sql.decode() if isinstance(sql, bytes) else sql).strip())
            return query(sql, *args)

        raw.query = heard
    return statements


def rows_read(broker: DatabaseBroker) -> int:
    """Return how many rows and index entries the broker's session has read since the last call."""
    with broker.engine.session() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        count = sum(int(value) for _, value in cursor.fetchall())
        cursor.execute("FLUSH STATUS")
    return count


def explained(broker: DatabaseBroker, sql: str) -> list[dict[str, Any]]:
    """Return the plan of a statement, a line for each table."""
    with broker.engine.session() as connection, connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
