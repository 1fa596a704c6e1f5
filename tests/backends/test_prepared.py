"""One task is sent to PostgreSQL by a prepared statement on the caller's own connection, wherever that is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DataError, connections, transaction
from django.db.backends.utils import CursorWrapper
from django.test.utils import CaptureQueriesContext

from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.database.prepared import LOSSES_MOST, Statement
from django_tasks.backends.message import Message
from django_tasks.exceptions import OperationalError
from django_tasks.ids import new_id
from django_tasks.models import Task
from tests.app.tasks import add
from tests.backends.calls import a_message, send
from tests.databases import TestDatabase, attached
from tests.eventually import eventually
from tests.servers import execute

pytestmark = pytest.mark.databases("postgresql")

#: How often the session's prepared statements of ours ran, by name.
RUNS = "SELECT name, generic_plans + custom_plans FROM pg_prepared_statements WHERE name LIKE 'django_tasks_%'"
STRANGE = '[["\'; -- %s %(x)s {y} \\\\ \\u0000 \\ud834\\udd1e ?1 $1 :a\t\\n", "Ω 𝄞 é", "%%"],{}]'


def run_sql(statement: str, alias: str = "default") -> list[tuple[Any, ...]]:
    """Run SQL through Django's cursor; return its rows."""
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def prepared_runs(alias: str = "default") -> int:
    """Return how often prepared statements that are still there ran on this connection."""
    return sum(runs for _, runs in run_sql(RUNS, alias))


@pytest.fixture
def prepared(database: TestDatabase, broker: Broker) -> Broker:
    """Give a broker whose caller's connection has the statement ready."""
    send(broker)
    send(broker)
    assert prepared_runs() == 1
    return broker


def stored() -> set[str]:
    """Return the ids in the to-do list."""
    return {str(pk) for pk in Task.objects.values_list("pk", flat=True)}


def a_full_message(**fields: Any) -> Message:
    return a_message(
        **{
            "name": "tests.strange Ω",
            "queue": "some.queue:1",
            "body": STRANGE,
            "priority": -7,
            "custom_id": "order-Ω-%s-1",
            "encoding": "json",
            "options": '{"headers":{"a":"b"}}',
            "at_most_once": True,
            "root_id": new_id(),
            "parent_id": new_id(),
            **fields,
        }
    )


def test_a_connection_that_sends_again_does_it_by_a_prepared_statement(database: TestDatabase, broker: Broker) -> None:
    send(broker)
    assert run_sql(RUNS) == []  # what is closed after one task had better not prepare anything
    sent = [send(broker)[0] for _ in range(3)]
    assert prepared_runs() == 3
    assert set(sent) <= stored()


@pytest.mark.parametrize(
    "fields",
    [
        {"eta": datetime(2031, 2, 3, 4, 5, 6, 789, UTC), "expires_at": datetime(2032, 1, 1, tzinfo=UTC)},
        {"delay": 1e-07, "expires_in": -0.5},
        {"delay": 3e9, "expires_in": 0.0},
        {"custom_id": None, "options": None, "root_id": None, "parent_id": None, "at_most_once": False, "priority": 0},
    ],
)
def test_a_prepared_statement_stores_what_djangos_cursor_would(prepared: Broker, fields: dict[str, Any]) -> None:
    with CaptureQueriesContext(connections["default"]):
        [plain] = send(prepared, a_full_message(**fields, id=new_id()))
    before = prepared_runs()
    with transaction.atomic():
        send(prepared)  # from the second one on
        [within] = send(prepared, a_full_message(**fields, id=new_id()))
    [outside] = send(prepared, a_full_message(**fields, id=new_id()))
    assert prepared_runs() == before + 2
    rows: dict[str, Any] = {
        str(row["id"]): row for row in Task.objects.filter(pk__in=[plain, within, outside]).values()
    }
    moments = ("created_at", "due_at", "expires_at")
    for moment in moments:
        column = [rows[one][moment] for one in (plain, within, outside)]
        assert (column[0] is None) == (column[1] is None) == (column[2] is None)
        if column[0] is not None:
            assert (max(column) - min(column)).total_seconds() < 60
    own = {"id", *moments, *(name for name in ("root_id", "parent_id") if name not in fields)}
    first, *others = ({key: value for key, value in row.items() if key not in own} for row in rows.values())
    assert others == [first, first]
    if "eta" in fields:
        assert {row["due_at"] for row in rows.values()} == {fields["eta"]}
        assert {row["expires_at"] for row in rows.values()} == {fields["expires_at"]}


def test_a_rollback_takes_back_what_was_sent_by_a_prepared_statement(prepared: Broker) -> None:
    before, runs = stored(), prepared_runs()
    with transaction.atomic():
        for _ in range(4):
            send(prepared)
        assert len(stored()) == len(before) + 4
        transaction.set_rollback(True)
    assert stored() == before
    assert prepared_runs() == runs + 3  # the first one of a transaction goes through Django's cursor


def test_a_savepoint_takes_back_only_what_was_sent_within_it(prepared: Broker) -> None:
    before = stored()
    with transaction.atomic():
        kept = [send(prepared)[0] for _ in range(2)]
        with transaction.atomic():
            send(prepared)
            send(prepared)
            transaction.set_rollback(True)
        kept += [send(prepared)[0] for _ in range(2)]
    assert stored() == before | set(kept)


def test_an_id_that_is_there_already_is_not_stored_again(prepared: Broker) -> None:
    message = a_message(name="first")
    send(prepared, message)
    send(prepared, a_message(name="second", id=message.id))
    assert Task.objects.get(pk=message.id).name == "first"


@pytest.mark.parametrize("field", ["name", "body", "custom_id"])
def test_a_nul_byte_is_refused_before_it_breaks_the_callers_transaction(prepared: Broker, field: str) -> None:
    with transaction.atomic():
        send(prepared)
        send(prepared)
        with pytest.raises((DataError, ValueError)):
            send(prepared, a_message(**{field: "a\x00b"}))
        [sent] = send(prepared)
    assert sent in stored()


# Who watches queries sees them all


def test_a_query_log_tells_of_each_task_that_is_sent(prepared: Broker) -> None:
    runs = prepared_runs()
    with CaptureQueriesContext(connections["default"]) as queries:
        [sent] = send(prepared)
    assert len(queries) == 1
    assert sent in queries[0]["sql"]
    assert prepared_runs() == runs


def test_an_execute_wrapper_sees_each_task_that_is_sent(prepared: Broker) -> None:
    seen = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(watch):
        send(prepared)
    assert ["INSERT INTO django_tasks_task" in sql for sql in seen] == [True]


def test_a_replaced_method_cursor_is_asked(prepared: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``SimpleTestCase`` does, to forbid queries."""

    def forbidden() -> None:
        raise AssertionError("no queries here")

    monkeypatch.setattr(connections["default"], "cursor", forbidden, raising=False)
    with pytest.raises(AssertionError, match="no queries here"):
        send(prepared)


def test_a_tool_that_replaces_the_cursors_execute_sees_each_task(
    database: TestDatabase, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = CursorWrapper.execute

    def traced(self: Any, sql: Any, params: Any = None) -> Any:
        seen.append(sql)
        return original(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", traced)
    for _ in range(3):
        send(broker)
    assert len([sql for sql in seen if "INSERT" in sql]) == 3


def test_a_cursor_factory_of_the_sites_own_makes_the_cursors(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Traced(psycopg.ClientCursor[Any]):
        made = 0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            Traced.made += 1
            super().__init__(*args, **kwargs)

    with attached("traced", database.url):
        connections["traced"].settings_dict["OPTIONS"]["cursor_factory"] = Traced
        broker = DatabaseBroker("traced")
        send(broker)
        made = Traced.made
        send(broker)
        send(broker)
        assert Traced.made == made + 2


# What a connection may do to it


def test_a_session_that_forgot_its_statements_loses_no_task(prepared: Broker) -> None:
    run_sql("DISCARD ALL")
    sent = [send(prepared)[0] for _ in range(3)]
    assert set(sent) <= stored()
    assert prepared_runs() == 2  # prepared anew


def test_a_connection_that_forgets_again_and_again_is_left_alone(prepared: Broker) -> None:
    sent = []
    for _ in range(LOSSES_MOST):
        run_sql("DEALLOCATE ALL")
        sent += send(prepared)
        sent += send(prepared)
    assert set(sent) <= stored()
    run_sql("DEALLOCATE ALL")
    send(prepared)
    send(prepared)
    assert run_sql(RUNS) == []


def test_a_transaction_survives_that_the_session_forgot_its_statements(prepared: Broker) -> None:
    with transaction.atomic():
        send(prepared)
        send(prepared)
    run_sql("DISCARD ALL")
    with transaction.atomic():
        sent = [send(prepared)[0] for _ in range(3)]
    assert set(sent) <= stored()


def test_psycopg_may_prepare_statements_of_its_own_and_drop_them_all(database: TestDatabase) -> None:
    with attached("preparing", database.url):
        connections["preparing"].settings_dict["OPTIONS"].update(prepare_threshold=0, server_side_binding=True)
        broker = DatabaseBroker("preparing")
        send(broker)
        send(broker)
        with transaction.atomic(using="preparing"):
            sent = [send(broker)[0] for _ in range(2)]
            run_sql("CREATE TEMPORARY TABLE short_lived ()", "preparing")
            run_sql("DROP TABLE short_lived", "preparing")  # at which psycopg drops all
            sent += [send(broker)[0] for _ in range(2)]
        sent += [send(broker)[0] for _ in range(2)]
        assert set(sent) <= stored()


def test_a_statement_that_another_client_prepared_is_used(database: TestDatabase) -> None:
    """As behind a pooler that Django has not been told of."""
    statement = Statement("INSERT INTO numbers VALUES (%s::int)")
    run_sql("CREATE TABLE numbers (n int)")
    run_sql(f"PREPARE {statement.name.decode()} AS INSERT INTO numbers VALUES ($1::int)")
    ran = [statement.run(connections["default"], [7]) for _ in range(3)]
    assert ran == [False, True, True]
    assert run_sql("SELECT n FROM numbers") == [(7,), (7,)]


def test_a_change_of_the_table_does_not_stop_sending(prepared: Broker) -> None:
    sent = send(prepared)
    for change in (
        "ALTER TABLE django_tasks_task ADD COLUMN later int DEFAULT 7",
        "ALTER TABLE django_tasks_task ALTER COLUMN name TYPE text",
        "ALTER TABLE django_tasks_task DROP COLUMN later",
    ):
        run_sql(change)
        sent += send(prepared)
        with transaction.atomic():
            sent += [*send(prepared), *send(prepared)]
    assert set(sent) <= stored()
    assert prepared_runs() > 5


def test_a_task_goes_to_the_schema_that_is_current_when_it_is_sent(prepared: Broker) -> None:
    """As sites with a schema for each tenant do."""
    run_sql("CREATE SCHEMA tenant")
    for table in ("task", "worker"):
        run_sql(f"CREATE TABLE tenant.django_tasks_{table} (LIKE public.django_tasks_{table} INCLUDING ALL)")
    run_sql("SET search_path = tenant")
    runs = prepared_runs()
    [theirs] = send(prepared)
    assert prepared_runs() == runs + 1
    assert stored() == {theirs}
    run_sql("SET search_path = public")
    [ours] = send(prepared)
    assert ours in stored()
    assert theirs not in stored()


def test_behind_a_pooler_nothing_is_prepared(database: TestDatabase) -> None:
    with attached("pooled", database.url):
        connections["pooled"].settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True
        broker = DatabaseBroker("pooled")
        for _ in range(3):
            send(broker)
        with transaction.atomic(using="pooled"):
            for _ in range(3):
                send(broker)
        assert run_sql(RUNS, "pooled") == []
    assert len(stored()) == 6


def test_a_pipeline_of_the_caller_is_not_disturbed(prepared: Broker) -> None:
    connection: Any = connections["default"].connection
    with connection.pipeline():
        sent = send(prepared)
        sent += send(prepared)
    assert set(sent) <= stored()


def test_without_autocommit_the_task_waits_for_the_callers_commit(prepared: Broker) -> None:
    transaction.set_autocommit(False)
    try:
        sent = [send(prepared)[0] for _ in range(2)]
        transaction.rollback()
        assert not set(sent) & stored()
        transaction.commit()
        [kept] = send(prepared)
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert kept in stored()


def test_a_transaction_that_was_ended_by_hand_is_begun_anew_for_the_next_task(prepared: Broker) -> None:
    """As Django's cursor does: what is sent there must not be committed by itself."""
    with transaction.atomic():
        kept = [send(prepared)[0] for _ in range(2)]
        run_sql("COMMIT")
        [taken_back] = send(prepared)
        transaction.set_rollback(True)
    assert set(kept) <= stored()
    assert taken_back not in stored()


# Django's own checks hold


def test_a_connection_is_checked_at_its_first_use_in_a_request(database: TestDatabase, broker: Broker) -> None:
    connection = connections["default"]
    connection.close()
    connection.settings_dict.update(CONN_HEALTH_CHECKS=True, CONN_MAX_AGE=None)
    send(broker)
    send(broker)
    [(pid,)] = run_sql("SELECT pg_backend_pid()")
    connection.close_if_unusable_or_obsolete()  # a request begins
    execute(database.url, f"SELECT pg_terminate_backend({pid})")
    [sent] = send(broker)
    assert sent in stored()


def test_a_connection_that_broke_is_told_as_ours_and_come_back_from(prepared: Broker, database: TestDatabase) -> None:
    [(pid,)] = run_sql("SELECT pg_backend_pid()")
    execute(database.url, f"SELECT pg_terminate_backend({pid})")
    with pytest.raises(OperationalError):
        send(prepared)
    connections["default"].close_if_unusable_or_obsolete()
    assert send(prepared)[0] in stored()


def test_delay_sends_again_after_its_connection_broke(prepared: Broker, database: TestDatabase) -> None:
    [(pid,)] = run_sql("SELECT pg_backend_pid()")
    execute(database.url, f"SELECT pg_terminate_backend({pid})")
    assert add.delay(1).id in stored()


def test_a_broken_transaction_is_refused_as_django_does(prepared: Broker) -> None:
    with transaction.atomic():
        send(prepared)
        send(prepared)
        transaction.set_rollback(True)
        with pytest.raises(OperationalError, match="until the end of the 'atomic' block"):
            send(prepared)


def test_another_thread_may_not_use_the_connection(prepared: Broker) -> None:
    own = connections["default"]

    def use() -> None:
        connections["default"] = own
        send(prepared)

    with ThreadPoolExecutor(1) as pool, pytest.raises(OperationalError, match="thread"):
        pool.submit(use).result()


def test_an_event_loop_may_not_use_the_connection(prepared: Broker) -> None:
    async def use() -> None:
        send(prepared)

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(use())


def test_a_statement_that_the_server_cancels_is_told_and_leaves_the_connection_in_order(
    prepared: Broker, database: TestDatabase
) -> None:
    [(pid,)] = run_sql("SELECT pg_backend_pid()")
    with locked(database.url), ThreadPoolExecutor(1) as pool:
        cancelled = pool.submit(cancel_when_waiting, database.url, pid)
        with pytest.raises(OperationalError, match="cancel"):
            send(prepared)
        cancelled.result()
    assert send(prepared)[0] in stored()


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Lock the to-do list from another connection."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE django_tasks_task IN EXCLUSIVE MODE")
        yield
        connection.rollback()


def cancel_when_waiting(url: str, pid: int) -> None:
    """Have the server cancel a statement once it waits for a lock."""
    waits = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
    eventually(lambda: execute(url, waits))
    execute(url, f"SELECT pg_cancel_backend({pid})")
