"""How an idle worker hears of new tasks, and a waiting caller of the end of its own."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from django.db import transaction

from django_tasks import states
from django_tasks.backends.base import Broker, ResultWaker, Waker
from django_tasks.backends.database.engine import Engine
from django_tasks.backends.database.sqlite import SQLite
from django_tasks.backends.database.wakers import CALM, LOOK, FileWatcher, ListeningCaller
from django_tasks.backends.message import Delivery, Holder, Return
from django_tasks.exceptions import OperationalError
from tests.backends.bench import Bench
from tests.backends.calls import a_message, a_worker, claim_one, finish, send, success
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.servers import execute

#: Far longer than anything here should take, in seconds.
LONG = 60.0


@pytest.fixture
def waker(broker: Broker, holder: Holder) -> Iterator[Waker]:
    """Give what wakes a worker that has said that it is idle."""
    broker.set_idle(holder.worker, True)
    with closing(broker.waker()) as waker:
        waker.woken()
        yield waker


def readable(descriptor: int | None, timeout: float) -> bool:
    """Does a descriptor become readable within ``timeout`` seconds?"""
    assert descriptor is not None
    return select.select([descriptor], [], [], timeout)[0] == [descriptor]


def calm(waker: Waker) -> bool:
    """Is there no hint, at two looks in a row?"""
    return not waker.woken() and not waker.woken()


@pytest.mark.parametrize("count", [1, 2, 1_001])
def test_an_idle_worker_is_woken_by_a_new_task(waker: Waker, bench: Bench, count: int) -> None:
    send(bench.new_broker(), *(a_message() for _ in range(count)))
    assert eventually(waker.woken)


def test_a_waker_says_how_it_wants_to_be_asked(waker: Waker, database: TestDatabase) -> None:
    assert (waker.fileno() is not None) == (database.kind == "postgresql")
    # R9: late by two seconds at most, where nothing but asking helps.
    most = 5.0 if waker.fileno() is not None else 1.0
    assert all(0 < waker.interval(idle_for) <= most for idle_for in (0.0, 1.0, 11.0, 10_000.0))


@pytest.mark.databases("sqlite", "postgresql")
def test_a_transaction_wakes_when_it_commits(waker: Waker, bench: Bench) -> None:
    sender = bench.new_broker()
    eventually(lambda: calm(waker))
    with bench.rolled_back():
        send(sender)
    assert calm(waker)
    with transaction.atomic():
        send(sender)
        send(sender, a_message(), a_message())
        assert calm(waker)
    assert eventually(waker.woken)


@pytest.mark.databases("postgresql")
def test_the_descriptor_becomes_readable_at_a_hint(waker: Waker, bench: Bench) -> None:
    descriptor = waker.fileno()
    assert not readable(descriptor, 0)
    send(bench.new_broker())
    assert readable(descriptor, LONG)
    assert waker.woken()
    assert not readable(descriptor, 0)


def _give_back(broker: Broker, busy: Holder, delivery: Delivery) -> None:
    assert broker.give_back(busy, [delivery.id]) == 1


def _retry_later(broker: Broker, busy: Holder, delivery: Delivery) -> None:
    assert not finish(broker, busy, Return(delivery.id, delivery.attempt, states.RETRY, delay=5.0, retries=1))


def _lose_child(broker: Broker, busy: Holder, delivery: Delivery) -> None:
    assert broker.lose(busy, [delivery.id], max_losses=9, reason="It died") == 1


def _end_worker(broker: Broker, busy: Holder, delivery: Delivery) -> None:
    broker.unregister(busy.worker)


def _set_aside_and_adopt(broker: Broker, busy: Holder, delivery: Delivery) -> None:
    assert not finish(broker, busy, Return(delivery.id, delivery.attempt, states.UNROUTABLE))
    assert broker.adopt([delivery.name]) == 1


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("way", [_give_back, _retry_later, _lose_child, _end_worker, _set_aside_and_adopt])
def test_what_a_busy_worker_puts_back_wakes_an_idle_one(
    way: Callable[[Broker, Holder, Delivery], None], waker: Waker, bench: Bench
) -> None:
    """R9, R28: it may be due before the busy one has time for it."""
    other = bench.new_broker()
    busy = a_worker(other, name="busy@test")
    send(other)
    delivery = claim_one(other, busy)
    eventually(lambda: calm(waker))
    way(other, busy, delivery)
    assert eventually(waker.woken)


@pytest.mark.databases("postgresql")
def test_what_a_rescue_takes_back_wakes_an_idle_worker(
    broker: Broker, holder: Holder, waker: Waker, bench: Bench
) -> None:
    """R1: whoever rescues it may be busy."""
    other = bench.new_broker()
    dead = a_worker(other, name="dead@test", lease=60)
    send(other)
    claim_one(other, dead)
    bench.let_pass(120)
    broker.set_idle(holder.worker, True)
    eventually(lambda: calm(waker))
    assert other.rescue(max_losses=9) == 1
    assert eventually(waker.woken)


@pytest.mark.databases("postgresql")
def test_nobody_is_told_when_nobody_is_idle(broker: Broker, holder: Holder, waker: Waker, bench: Bench) -> None:
    """NOTIFY takes a lock that all committing transactions share."""
    broker.set_idle(holder.worker, False)
    sender = bench.new_broker()
    send(sender)
    send(sender, a_message(), a_message())
    assert calm(waker)
    broker.set_idle(holder.worker, True)
    send(sender)
    assert eventually(waker.woken)


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("end", ["unregistered", "lost"])
def test_a_worker_that_ended_is_not_told_any_more(
    broker: Broker, holder: Holder, waker: Waker, bench: Bench, end: str
) -> None:
    if end == "lost":
        bench.let_pass(7_200)
        broker.rescue(max_losses=9)
    else:
        broker.unregister(holder.worker)
    send(bench.new_broker())
    assert calm(waker)


@pytest.mark.databases("postgresql")
def test_a_waker_whose_connection_broke_says_so(waker: Waker, broker: Broker, database: TestDatabase) -> None:
    """R19"""
    assert engine_connections(database, "count(pg_terminate_backend(pid))")
    with pytest.raises(OperationalError):
        eventually(waker.woken)
    with closing(broker.waker()) as another:
        assert calm(another)


@pytest.mark.databases("postgresql")
def test_a_closed_waker_gives_its_connection_back(broker: Broker, database: TestDatabase) -> None:
    with closing(broker.waker()), closing(broker.result_waker(a_message().id)):
        assert engine_connections(database, "count(*)") == 2
    assert eventually(lambda: engine_connections(database, "count(*)") == 0)


#: Over the connections of brokers and wakers to one database.
ENGINES = "FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'django_tasks'"


def engine_connections(database: TestDatabase, value: str) -> int:
    """Return an aggregate over the connections of brokers and wakers."""
    sql = f"SELECT {value} {ENGINES}"
    return int(execute(database.url, sql.format(database.connection.settings_dict["NAME"]))[0][0])


def wait_until_done(waker: ResultWaker, bench: Bench, task_id: str) -> float:
    """Wait as a caller does; return how long it took in seconds."""
    began = time.monotonic()
    while bench.state(task_id) != states.SUCCESS:
        assert time.monotonic() - began < LONG
        waker.wait(LONG)
    return time.monotonic() - began


def test_a_waiting_caller_is_woken_when_its_task_ends(broker: Broker, holder: Holder, bench: Bench) -> None:
    [task_id] = send(broker)
    delivery = claim_one(broker, holder)
    with ThreadPoolExecutor(1) as pool, closing(bench.new_broker().result_waker(task_id)) as waker:
        finishing = pool.submit(finish, broker, holder, success(delivery))
        assert wait_until_done(waker, bench, task_id) < LONG
        assert finishing.result() == frozenset()


def test_a_caller_that_came_too_late_or_too_early_does_not_wait_long(
    broker: Broker, holder: Holder, bench: Bench
) -> None:
    """For a task that ended already, or one that is not committed yet, there is nothing to be told."""
    [task_id] = send(broker)
    finish(broker, holder, success(claim_one(broker, holder)))
    for known in (task_id, a_message().id):
        with closing(broker.result_waker(known)) as waker:
            began = time.monotonic()
            waker.wait(LONG)
            assert time.monotonic() - began < LONG / 2


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("how", ["finished", "finished in its own transaction", "revoked", "lost too often"])
def test_whichever_way_a_task_ends_its_caller_is_told(broker: Broker, holder: Holder, bench: Bench, how: str) -> None:
    [task_id] = send(broker)
    delivery = claim_one(broker, holder)
    with closing(bench.new_broker().result_waker(task_id)) as waker:
        assert isinstance(waker, ListeningCaller)
        descriptor = waker._listener.fileno()  # to see that it is the notification
        if how == "finished":
            finish(broker, holder, success(delivery))
        elif how == "revoked":
            broker.unregister(holder.worker)
            assert broker.revoke([task_id]) == 1
        elif how == "lost too often":
            assert broker.lose(holder, [task_id], max_losses=1, reason="it died") == 1
        else:
            with transaction.atomic():
                assert broker.finish_within(success(delivery), "w")  # type: ignore[attr-defined]
                assert not readable(descriptor, 0)
        assert readable(descriptor, LONG)


@pytest.mark.databases("sqlite")
def test_a_change_of_the_log_is_followed_closely_until_its_commit_is_seen(
    database: TestDatabase, waker: Waker, bench: Bench
) -> None:
    """A commit changes the file before it can be seen, by as long as the disk takes."""
    eventually(lambda: waker.interval(0.0) == LOOK)
    log = Path(f"{database.connection.settings_dict['NAME']}-wal")
    os.utime(log)
    assert not waker.woken(), "nothing is committed"
    assert waker.interval(0.0) < LOOK
    assert waker.interval(CALM) < LOOK
    send(bench.new_broker())
    assert waker.woken()
    assert not waker.woken()
    eventually(lambda: waker.interval(0.0) == LOOK)


@pytest.mark.databases("sqlite")
def test_a_worker_is_not_woken_by_what_it_writes_itself_with_its_waker(broker: Broker, database: TestDatabase) -> None:
    engine = Engine(database.alias, SQLite())
    with closing(FileWatcher(str(database.connection.settings_dict["NAME"]), engine)) as waker:
        a_worker(broker)
        assert eventually(waker.woken)
        engine.execute("UPDATE django_tasks_worker SET processed = processed + 1")
        assert calm(waker)
