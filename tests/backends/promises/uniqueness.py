"""What is promised about unique calls: when one like it is there already."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.backends.message import Delivery, Holder, Message, Outcome, Return, Unique
from django_tasks.exceptions import AlreadyEnqueued
from tests.backends.bench import Bench
from tests.backends.calls import ALL, a_message, claim, claim_one, finish, ids, send, success

KEY = "0123456789abcdef0123456789abcdef"


def unique(key: str = KEY, *, body: str = "[[],{}]", fields: Any = None, **how: Any) -> Message:
    """Return a unique call."""
    return a_message(body=body, unique=Unique(key, **how), **(fields or {}))


def met(broker: Broker, message: Message) -> tuple[str, bool]:
    """Send a call; return the id that its sender gets, and whether there was one like it."""
    broker.publish([message])
    return message.id, message.conflict


class Skipping:
    """on_conflict="skip" and "raise" """

    def test_a_second_one_is_not_stored_while_the_first_is_not_done(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        first = unique()
        assert met(broker, first) == (first.id, False)
        assert met(broker, unique(fields={"custom_id": "mine"})) == (first.id, True)
        delivery = claim_one(broker, holder)
        assert met(broker, unique()) == (first.id, True)
        finish(broker, holder, Return(first.id, delivery.attempt, states.RETRY, delay=0, retries=1))
        assert met(broker, unique()) == (first.id, True)
        finish(broker, holder, success(claim_one(broker, holder)))
        assert claim(broker, holder) == []
        second = unique()
        assert met(broker, second) == (second.id, False)

    def test_another_key_is_in_nobodys_way(self, broker: Broker, holder: Holder) -> None:
        sent = send(broker, unique(), unique("f" * 32), a_message())
        assert sorted(ids(claim(broker, holder))) == sorted(sent)

    def test_the_sender_gets_the_id_that_its_caller_chose(self, broker: Broker) -> None:
        first = unique(fields={"custom_id": "order 1"})
        broker.publish([first])
        second = unique()
        broker.publish([second])
        assert (second.id, second.custom_id) == (first.id, "order 1")

    def test_many_senders_at_a_time_store_one(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        def work(_: int) -> str:
            try:
                return met(bench.new_broker(), unique())[0]
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(work, range(40)))
        assert found == set(ids(claim(broker, holder)))
        assert len(found) == 1

    def test_of_many_in_one_call_one_is_stored(self, broker: Broker, holder: Holder) -> None:
        messages = [unique(key * 32) for key in "abca"]
        broker.publish(messages)
        assert [one.conflict for one in messages].count(True) == 1
        assert sorted({one.id for one in messages}) == sorted(ids(claim(broker, holder)))

    def test_a_rollback_leaves_nothing_in_the_way(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        with bench.rolled_back():
            send(broker, unique())
            send(broker, unique("e" * 32, period=60.0))
        again = [unique(), unique("e" * 32, period=60.0)]
        broker.publish(again)
        assert [one.conflict for one in again] == [False, False]

    def test_what_is_revoked_or_purged_is_out_of_the_way(self, broker: Broker, bench: Bench) -> None:
        for revoke in (True, False, True):
            message = unique()
            assert met(broker, message) == (message.id, False)
            assert (broker.revoke([message.id]) if revoke else broker.purge(ALL)) == 1

    def test_a_conflict_can_be_an_error(self, broker: Broker, holder: Holder) -> None:
        first = unique(on_conflict="raise")
        broker.publish([first])
        with pytest.raises(AlreadyEnqueued) as caught:
            broker.publish([a_message(), unique(on_conflict="raise")])
        assert caught.value.task_id == first.id
        assert ids(claim(broker, holder)) == [first.id], "all or none"

    def test_a_limited_call_may_be_unique(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", "tests.noop", concurrency=1)
        first = unique(fields={"limit_key": ""})
        broker.publish([first])
        assert met(broker, unique(fields={"limit_key": ""})) == (first.id, True)
        assert broker.admit(ALL).admitted == 1
        finish(broker, holder, success(claim_one(broker, holder)))
        assert not met(broker, unique(fields={"limit_key": ""}))[1]


class UntilTheStart:
    """until_start=True"""

    def test_what_has_started_is_in_nobodys_way(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, second = unique(until_start=True), unique(until_start=True)
        broker.publish([first])
        claim_one(broker, holder)
        assert met(broker, second) == (second.id, False)
        assert met(broker, unique(until_start=True)) == (second.id, True)
        assert ids(claim(broker, holder)) == [second.id]

    def test_one_that_waits_for_its_next_attempt_is_in_the_way(self, broker: Broker, holder: Holder) -> None:
        first = unique(until_start=True)
        broker.publish([first])
        delivery = claim_one(broker, holder)
        finish(broker, holder, Return(first.id, delivery.attempt, states.RETRY, delay=60, retries=1))
        assert met(broker, unique(until_start=True)) == (first.id, True)


class Replacing:
    """on_conflict="replace" and debouncing"""

    def test_a_waiting_one_takes_over_the_new_call(self, broker: Broker, holder: Holder) -> None:
        first = unique(on_conflict="replace", body="[[1],{}]")
        broker.publish([first])
        new = unique(on_conflict="replace", body="[[2],{}]", fields={"queue": "other", "priority": 3, "delay": 60.0})
        assert met(broker, new) == (first.id, True)
        assert claim(broker, holder) == []
        newest = unique(on_conflict="replace", body="[[3],{}]", fields={"queue": "other", "expires_in": 60.0})
        assert met(broker, newest) == (first.id, True)
        [found] = claim(broker, holder)
        assert (found.id, found.body, found.queue, found.expires_in is not None) == (
            first.id,
            "[[3],{}]",
            "other",
            True,
        )

    def test_a_change_that_comes_while_one_runs_is_not_swallowed(self, broker: Broker, holder: Holder) -> None:
        first, second = unique(on_conflict="replace"), unique(on_conflict="replace", body="[[2],{}]")
        broker.publish([first])
        running = claim_one(broker, holder)
        assert met(broker, second) == (second.id, False)
        assert met(broker, unique(on_conflict="replace", body="[[3],{}]")) == (second.id, True)
        assert (broker.admit(ALL).admitted, claim(broker, holder)) == (0, [])
        finish(broker, holder, success(running))
        assert broker.admit(ALL).admitted == 1
        assert claim_one(broker, holder).body == "[[3],{}]"

    def test_the_last_of_a_flurry_runs_once_it_is_over(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        def debounced(number: int) -> Message:
            return unique(
                on_conflict="replace", until_start=True, debounce=10.0, debounce_max=25.0, body=f"[[{number}],{{}}]"
            )

        first = debounced(1)
        broker.publish([first])
        for number in (2, 3):
            bench.let_pass(9)
            assert claim(broker, holder) == []
            assert met(broker, debounced(number)) == (first.id, True)
        bench.let_pass(6)
        assert claim(broker, holder) == []
        bench.let_pass(2)
        assert claim_one(broker, holder).body == "[[3],{}]", "no later than 25 seconds after the first"
        assert not met(broker, debounced(4))[1]
        bench.let_pass(11)
        assert claim_one(broker, holder).body == "[[4],{}]"

    def test_without_a_most_each_call_puts_it_off(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        how: dict[str, Any] = {"on_conflict": "replace", "until_start": True, "debounce": 10.0}
        broker.publish([unique(**how)])
        for _ in range(5):
            bench.let_pass(9)
            assert met(broker, unique(**how))[1]
        assert claim(broker, holder) == []
        bench.let_pass(11)
        claim_one(broker, holder)


class Again:
    """on_conflict="again" """

    def again(self, **fields: Any) -> Message:
        return unique(on_conflict="again", fields=fields)

    def running(self, broker: Broker, holder: Holder) -> Delivery:
        """Return one that runs, and behind which one more waits."""
        broker.publish([self.again()])
        delivery = claim_one(broker, holder)
        broker.publish([self.again()])
        return delivery

    def test_it_runs_once_more_after_the_one_that_runs(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, second, third = self.again(), self.again(), self.again()
        broker.publish([first])
        assert met(broker, self.again()) == (first.id, True), "it waits, so it will see what changed"
        delivery = claim_one(broker, holder)
        assert met(broker, second) == (second.id, False)
        assert met(broker, third) == (second.id, True)
        assert broker.survey(ALL).limited
        assert (broker.admit(ALL).admitted, claim(broker, holder)) == (0, [])
        finish(broker, holder, success(delivery))
        assert broker.admit(ALL).admitted == 1
        assert claim_one(broker, holder).id == second.id
        fourth = self.again()
        assert met(broker, fourth) == (fourth.id, False)
        assert met(broker, self.again()) == (fourth.id, True)
        finish(broker, holder, Outcome(second.id, 1, states.FAILURE))
        assert broker.admit(ALL).admitted == 1
        assert claim_one(broker, holder).id == fourth.id

    def test_it_waits_through_the_retries_of_the_one_before(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        delivery = self.running(broker, holder)
        finish(broker, holder, Return(delivery.id, delivery.attempt, states.RETRY, delay=0, retries=1))
        assert broker.admit(ALL).admitted == 0
        again = claim_one(broker, holder)
        assert again.id == delivery.id
        assert broker.admit(ALL).admitted == 0
        finish(broker, holder, success(again))
        assert broker.admit(ALL).admitted == 1

    def test_a_limited_one_does_not_wait_for_the_one_that_waits_for_it(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("task", "tests.noop", concurrency=1)
        first, second = self.again(limit_key=""), self.again(limit_key="")
        broker.publish([first])
        broker.admit(ALL)
        delivery = claim_one(broker, holder)
        broker.publish([second])
        finish(broker, holder, Return(first.id, delivery.attempt, states.RETRY, delay=0, retries=1))
        assert broker.admit(ALL).admitted == 1
        delivery = claim_one(broker, holder)
        assert delivery.id == first.id
        finish(broker, holder, success(delivery))
        assert broker.admit(ALL).admitted == 1
        assert claim_one(broker, holder).id == second.id

    def test_a_worker_that_dies_does_not_let_it_run_beside(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        delivery = self.running(broker, holder)
        broker.lose(holder, [delivery.id], max_losses=3, reason="killed")
        assert broker.admit(ALL).admitted == 0
        assert ids(claim(broker, holder)) == [delivery.id]


class Periods:
    """period="""

    def test_others_are_kept_away_for_the_period_also_after_the_end(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        first = unique(period=60.0)
        broker.publish([first])
        finish(broker, holder, success(claim_one(broker, holder)))
        assert met(broker, unique(period=60.0)) == (first.id, True)
        with pytest.raises(AlreadyEnqueued, match=first.id):
            broker.publish([unique(period=60.0, on_conflict="raise")])
        bench.let_pass(61)
        second = unique(period=60.0)
        assert met(broker, second) == (second.id, False)
        assert met(broker, unique(period=60.0)) == (second.id, True)

    def test_a_period_that_is_over_is_forgotten(self, broker: Broker, bench: Bench) -> None:
        broker.publish([unique(period=60.0), unique("d" * 32, period=600.0)])
        bench.let_pass(100)
        broker.prune({})
        assert not met(broker, unique(period=60.0))[1]
        assert met(broker, unique("d" * 32, period=600.0))[1]

    def test_many_senders_at_a_time_store_one_in_a_period(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        def work(_: int) -> str:
            try:
                return met(bench.new_broker(), unique(period=60.0))[0]
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(work, range(40)))
        assert found == set(ids(claim(broker, holder)))
        assert len(found) == 1


class Uniqueness(Skipping, UntilTheStart, Replacing, Again, Periods):
    """All of it."""
