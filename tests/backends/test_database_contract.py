"""The database broker keeps the contract, on each kind of database, whatever else happens in it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.backends.database.broker import DatabaseBroker
from django_tasks.backends.message import Holder, Outcome
from django_tasks.exceptions import OperationalError
from django_tasks.ids import dashed
from django_tasks.models import Task
from tests.backends.bench import Bench, DatabaseBench
from tests.backends.calls import ALL, LEASE, a_message, a_worker, claim, finish, ids, send, success
from tests.backends.contract import BrokerContract
from tests.databases import TestDatabase, attached
from tests.eventually import eventually
from tests.servers import execute

#: Connections whose clock shows another hour than the server's.
ELSEWHERE = {
    "sqlite": "",
    "postgresql": "?options=-c%20TimeZone%3DAsia/Tokyo",
    "mariadb": "?init_command=SET%20time_zone%3D%27%2B05%3A30%27",
}
#: Break every connection of a broker.
HANG_UP = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'django_tasks'"


class TestDatabaseBroker(BrokerContract):
    """On SQLite, PostgreSQL and MariaDB."""


@pytest.mark.databases(alias="tasks")
def test_the_broker_may_live_in_another_database_than_the_default(broker: Broker, bench: Bench, holder: Holder) -> None:
    with transaction.atomic(using="tasks"):
        [task_id] = send(broker)
    finish(broker, holder, success(claim(broker, holder)[0]))
    [revoked] = send(broker)
    assert broker.revoke([revoked]) == 1
    assert [bench.state(one) for one in (task_id, revoked)] == [states.SUCCESS, states.REVOKED]


def test_the_time_zone_of_a_connection_does_not_matter(database: TestDatabase) -> None:
    """R25"""
    with attached("elsewhere", database.url + ELSEWHERE[database.kind]):
        here, there = DatabaseBench(database.alias), DatabaseBench("elsewhere")
        mine, theirs = here.new_broker(), there.new_broker()
        assert abs(mine.now() - theirs.now()) < timedelta(minutes=1)
        sent = send(theirs, a_message(), a_message(eta=mine.now() + timedelta(minutes=10), expires_in=3_600))
        holder = a_worker(mine)
        assert ids(claim(mine, holder)) == sent[:1]
        assert theirs.rescue(max_losses=9) == 0
        here.let_pass(700)
        [found] = claim(here.new_broker(), holder)
        assert found.id == sent[1]
        assert 2_000 < (found.expires_in or 0) < 2_901
        here.close()
        there.close()


@pytest.mark.databases("postgresql", "mariadb")
def test_what_the_caller_breaks_or_holds_does_not_touch_the_queue(
    database: TestDatabase, broker: Broker, holder: Holder
) -> None:
    [first, second] = send(broker, a_message(priority=1), a_message())
    with transaction.atomic():
        Task.objects.select_for_update().get(pk=first)
        # What somebody else has locked is stepped over, not waited for.
        assert ids(claim(broker, holder)) == [second]
        with pytest.raises(Exception, match="nowhere"), transaction.atomic():
            database.connection.cursor().execute("SELECT * FROM nowhere")
        assert broker.renew(holder.worker, processed=1)
        transaction.set_rollback(True)
    assert ids(eventually(lambda: claim(broker, holder))) == [first]


@pytest.mark.databases("mariadb")
def test_a_deadlock_is_tried_again(database: TestDatabase, broker: Broker, holder: Holder, bench: Bench) -> None:
    """What somebody else locks in another order is found out by the server; the step is simply repeated."""
    low, high = sorted(send(broker, a_message(), a_message()))
    send(broker, *(a_message(queue="ballast") for _ in range(50)))
    mine = claim(broker, holder, "default")
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        # The server chooses the transaction that wrote less as its victim: the broker's.
        Task.objects.filter(queue="ballast").update(priority=1)
        Task.objects.filter(pk=high).update(meta="x")
        stepping = pool.submit(finish, broker, holder, *(success(one) for one in mine))
        waiting = "SELECT trx_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        eventually(lambda: execute(database.url, waiting))
        before = deadlocks(database)
        Task.objects.filter(pk=low).update(meta="x")
        eventually(lambda: deadlocks(database) > before)
    assert stepping.result(timeout=60) == frozenset()
    assert [bench.state(low), bench.state(high)] == [states.SUCCESS] * 2


def deadlocks(database: TestDatabase) -> int:
    """Return how many deadlocks the server has seen."""
    [(_, count)] = execute(database.url, "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
    return int(count)


@pytest.mark.databases("sqlite")
def test_a_step_waits_for_another_writer(database: TestDatabase, broker: Broker, holder: Holder) -> None:
    sent = send(broker)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            stepping = pool.submit(claim, broker, holder)
            with pytest.raises(TimeoutError):
                stepping.result(timeout=0.3)
        assert ids(stepping.result(timeout=60)) == sent


@pytest.mark.databases("postgresql", "mariadb", private=True)
def test_a_server_that_is_away_is_told_and_come_back_to(database: TestDatabase, broker: Broker, bench: Bench) -> None:
    """R19: every method may be called again, and what the server acknowledged is still there."""
    assert database.server
    holder = a_worker(broker)
    [task_id] = send(broker)
    [delivery] = claim(broker, holder)
    before = broker.generation
    database.server.kill()
    for call in (
        lambda: broker.step([success(delivery)], holder=holder, limit=1),
        lambda: broker.publish([a_message()]),
        lambda: broker.renew(holder.worker, processed=0),
        lambda: broker.rescue(max_losses=9),
        lambda: broker.survey(ALL),
        lambda: broker.revoke([task_id]),
    ):
        with pytest.raises(OperationalError):
            call()
    database.server.start()
    connections[database.alias].close()
    if not broker.held(holder.worker):  # a claim alone is not waited for: the crash may undo it
        [delivery] = claim(broker, holder)
    assert delivery.id == task_id
    assert broker.generation > before
    assert finish(broker, holder, success(delivery)) == frozenset()
    assert bench.state(task_id) == states.SUCCESS


@pytest.mark.databases("postgresql")
def test_an_outcome_that_was_stored_unheard_is_refused_the_second_time(
    database: TestDatabase, broker: Broker, holder: Holder, bench: Bench
) -> None:
    """R4: a step may be repeated when its answer was lost."""
    [task_id] = send(broker)
    [delivery] = claim(broker, holder)
    assert finish(broker, holder, success(delivery)) == frozenset()
    execute(database.url, HANG_UP)
    with pytest.raises(OperationalError):
        broker.held(holder.worker)
    assert broker.held(holder.worker) == []
    assert finish(broker, holder, Outcome(task_id, delivery.attempt, states.FAILURE)) == {task_id}
    assert bench.state(task_id) == states.SUCCESS


@pytest.mark.parametrize("died", ["child", "worker"])
@pytest.mark.databases("sqlite")
def test_one_that_cannot_be_taken_back_keeps_no_other(
    broker: Broker, holder: Holder, bench: Bench, monkeypatch: pytest.MonkeyPatch, died: str
) -> None:
    """R1"""
    assert isinstance(broker, DatabaseBroker)
    sent = send(broker, *(a_message() for _ in range(3)))
    claim(broker, holder)
    end = broker._end

    def end_all_but_the_first(row: Sequence[Any], *args: Any, **kwargs: Any) -> int:
        if dashed(row[0]) == sent[0]:
            raise ValueError("unheard of")
        return end(row, *args, **kwargs)

    monkeypatch.setattr(broker, "_end", end_all_but_the_first)
    if died == "child":
        assert broker.lose(holder, [], max_losses=9, reason="It died") == 2
    else:
        bench.let_pass(LEASE + 1)
        assert broker.rescue(max_losses=9) == 2
    assert [bench.state(one) for one in sent] == [states.STARTED, states.PENDING, states.PENDING]
