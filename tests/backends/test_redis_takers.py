"""How a process without work is handed its next task by Redis."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing

import pytest

from django_tasks.backends.base import Handed, Queues
from django_tasks.backends.database.plan import SURVEY_EVERY
from django_tasks.backends.message import Holder
from django_tasks.backends.redis import RedisBroker
from django_tasks.backends.redis.takers import RedisTaker
from django_tasks.exceptions import OperationalError
from tests.backends.bench import Bench, redis_bench
from tests.backends.calls import ALL, a_message, a_worker, claim, finish, ids, send, success
from tests.databases import TestDatabase
from tests.eventually import eventually

pytestmark = pytest.mark.databases("sqlite")

#: Far longer than anything here should take, in seconds.
LONG = 60.0


@pytest.fixture
def bench(database: TestDatabase, redis_url: str) -> Iterator[Bench]:
    """Give a Redis in front of the database under test."""
    with redis_bench(database.alias, redis_url) as bench:
        yield bench


@pytest.fixture
def taker(broker: RedisBroker, holder: Holder) -> Iterator[RedisTaker]:
    """Give what waits for a process; all know the queue ``default``, which is empty."""
    send(broker)
    finish(broker, holder, *map(success, claim(broker, holder)))
    broker.server.command("DEL", *tokens(broker))
    taker = broker.taker()
    assert isinstance(taker, RedisTaker)
    with closing(taker):
        yield taker


def tokens(broker: RedisBroker) -> list[str]:
    """Return the keys of the tokens of the queue ``default``, and of queues that are new."""
    return [f"{broker.server.queue('default')}:k", broker.server.shared("new")]


def wait_until_it_waits(taker: RedisTaker, broker: RedisBroker) -> None:
    """Return once Redis knows that it waits."""
    eventually(lambda: taker._number in blocked(broker))


def blocked(broker: RedisBroker) -> set[int]:
    """Return the numbers of connections that wait."""
    return {int(one["id"]) for one in broker.server.client().client_list() if one["cmd"] == "blpop"}


def answer(taker: RedisTaker) -> Handed:
    """Return what came by itself."""
    assert select.select([taker], [], [], LONG)[0]
    return taker.answer()


def test_the_next_task_is_handed_to_who_waits(
    broker: RedisBroker, holder: Holder, taker: RedisTaker, bench: Bench
) -> None:
    for _ in range(2):
        assert taker.ask(holder, ALL, ())
        assert not select.select([taker], [], [], 0)[0]
        sent = send(bench.new_broker(), a_message())
        deliveries, new_queue = answer(taker)
        assert (ids(deliveries), new_queue) == (sent, False)
        assert [(one.id, one.slot) for one in broker.held(holder.worker)] == [(sent[0], holder.slot)]
        assert not finish(broker, holder, success(deliveries[0]))


def test_of_many_tasks_each_who_waits_is_handed_one(
    broker: RedisBroker, holder: Holder, taker: RedisTaker, bench: Bench
) -> None:
    other = bench.new_broker()
    assert isinstance(other, RedisBroker)
    another = RedisTaker(other)
    with closing(another):
        assert taker.ask(holder, ALL, ())
        assert another.ask(holder._replace(slot=2), ALL, ())
        sent = send(bench.new_broker(), *(a_message() for _ in range(3)))
        both = [*answer(taker).deliveries, *answer(another).deliveries]
    assert len(both) == 2
    assert set(ids(both)) < set(sent)


def test_a_wait_that_is_ended_takes_what_came_meanwhile(
    broker: RedisBroker, holder: Holder, taker: RedisTaker, bench: Bench
) -> None:
    """Then nothing is taken in its name any more."""
    assert taker.ask(holder, ALL, ())
    assert taker.answer() == ([], False)
    assert taker.ask(holder, ALL, ())
    wait_until_it_waits(taker, broker)
    assert taker.answer() == ([], False)
    send(bench.new_broker())
    assert broker.held(holder.worker) == []
    assert broker.server.command("EXISTS", tokens(broker)[0]) == 1
    assert taker.ask(holder, ALL, ())
    assert len(answer(taker).deliveries) == 1


def test_who_is_told_to_do_something_else_hands_a_token_on(
    broker: RedisBroker, holder: Holder, taker: RedisTaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of something that limits let through, and somebody else's to find out."""
    assert taker.ask(holder, ALL, ())
    end = taker._end

    def end_too_late() -> None:
        broker.leases.wake(["default"])
        end()

    monkeypatch.setattr(taker, "_end", end_too_late)
    assert taker.answer() == ([], False)
    assert broker.server.command("LLEN", tokens(broker)[0]) == 1


def test_nothing_is_handed_to_a_worker_without_a_lease(
    broker: RedisBroker, holder: Holder, taker: RedisTaker, bench: Bench
) -> None:
    """R1: its machine may be cut off while its connection lasts. What it was told is for somebody else."""
    assert taker.ask(holder, ALL, ())
    wait_until_it_waits(taker, broker)
    broker.leases.end(holder.worker)
    sent = send(bench.new_broker())
    assert answer(taker) == ([], False)
    assert broker.held(holder.worker) == []
    assert broker.server.command("LLEN", tokens(broker)[0]) == 1
    assert taker.ask(a_worker(broker, name="another@test"), ALL, ())
    assert ids(answer(taker).deliveries) == sent


def test_what_is_paused_meanwhile_is_not_handed_out(
    broker: RedisBroker, holder: Holder, taker: RedisTaker, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_tasks.backends.redis.stepping.SURVEY_EVERY", -SURVEY_EVERY)  # each look is too old
    assert taker.ask(holder, ALL, ())
    bench.limit("queue", "default", paused_at=broker.now())
    send(bench.new_broker())
    assert answer(taker).deliveries == []
    assert broker.held(holder.worker) == []
    assert taker.ask(holder, ALL, ())
    send(bench.new_broker())
    assert answer(taker).deliveries == []
    assert broker.held(holder.worker) == []


def test_it_takes_only_what_it_was_asked_for(
    broker: RedisBroker, holder: Holder, taker: RedisTaker, bench: Bench
) -> None:
    sender = bench.new_broker()
    send(sender, a_message(queue="other"))
    assert not taker.ask(holder, Queues(("a",), frozenset({"a"})), ())
    assert taker.ask(holder, Queues(("a", "b")), ["tests.strange"])
    send(sender, a_message())
    send(sender, a_message("tests.strange", queue="b"))
    assert answer(taker) == ([], False)
    assert taker.ask(holder, Queues(("a", "b")), ["tests.strange"])
    sent = send(sender, a_message(queue="a"))
    assert ids(answer(taker).deliveries) == sent


def test_whoever_hears_of_a_new_queue_says_so_and_the_others_learn_of_it(
    broker: RedisBroker, holder: Holder, taker: RedisTaker, bench: Bench
) -> None:
    with closing(broker.waker()) as waker:
        waker.outdated()
        assert not waker.outdated()
        assert taker.ask(holder, ALL, ())
        sent = send(bench.new_broker(), a_message(queue="new"))
        assert answer(taker) == ([], True)
        assert ids(claim(broker, holder)) == sent
        assert waker.outdated()
        assert not waker.outdated()


def test_a_connection_that_is_cut_while_it_waits_is_told(
    broker: RedisBroker, holder: Holder, taker: RedisTaker
) -> None:
    """R19"""
    assert taker.ask(holder, ALL, ())
    broker.server.command("CLIENT", "KILL", "ID", taker._number)
    with pytest.raises(OperationalError):
        answer(taker)


def test_a_server_that_forgot_the_script_is_told(broker: RedisBroker, holder: Holder, taker: RedisTaker) -> None:
    """Whoever takes a step after that has it learn the script again."""
    assert taker.ask(holder, ALL, ())
    wait_until_it_waits(taker, broker)
    broker.server.command("SCRIPT", "FLUSH")
    send(broker)
    with pytest.raises(OperationalError, match="refused"):
        answer(taker)
    assert len(claim(broker, holder)) == 1
