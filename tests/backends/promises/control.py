"""What is promised to those who watch, cancel and tidy up."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django_tasks import states
from django_tasks.backends.base import Broker, Queues
from django_tasks.backends.message import Holder, Outcome, Return
from tests.backends.bench import Bench
from tests.backends.calls import ALL, a_message, a_worker, claim, claim_one, finish, ids, send, success
from tests.backends.promises.finishing import record_of


def waiting(broker: Broker, holder: Holder) -> str:
    """Return a task that could be claimed now."""
    return send(broker)[0]


def scheduled(broker: Broker, holder: Holder) -> str:
    """Return a task that is due in an hour."""
    return send(broker, a_message(delay=3_600))[0]


def retried(broker: Broker, holder: Holder) -> str:
    """Return a task that waits for its second attempt."""
    send(broker)
    delivery = claim_one(broker, holder)
    finish(broker, holder, Return(delivery.id, delivery.attempt, states.RETRY, delay=0, retries=1))
    return delivery.id


def unroutable(broker: Broker, holder: Holder) -> str:
    """Return a task that was set aside."""
    send(broker, a_message("x.unknown"))
    delivery = claim_one(broker, holder)
    finish(broker, holder, Return(delivery.id, delivery.attempt, states.UNROUTABLE))
    return delivery.id


class Watching:
    """mark_started(), report(), is_revoked()"""

    def test_a_running_attempt_is_made_visible(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        sent = send(broker, a_message(), a_message())
        first, second = claim(broker, holder)
        broker.mark_started({(first.id, first.attempt): 3.0, (second.id, 99): 3.0})
        assert [bench.state(one) for one in sent] == [states.STARTED] * 2
        finish(broker, holder, success(first))
        assert bench.state(first.id) == states.SUCCESS

    def test_a_custom_state_is_shown_until_the_attempt_ends(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        assert broker.report(task_id, 1, "PROGRESS", '{"done":1}')
        record = record_of(bench, task_id)
        assert (record.state, record.result) == ("PROGRESS", '{"done":1}')
        assert not broker.report(task_id, 2, "PROGRESS", None)
        finish(broker, holder, Return(task_id, delivery.attempt))
        record = record_of(bench, task_id)
        assert (record.state, record.result) == (states.PENDING, None)
        delivery = claim_one(broker, holder)
        assert bench.state(task_id) == states.STARTED
        finish(broker, holder, success(delivery))
        assert not broker.report(task_id, delivery.attempt, "PROGRESS", None)
        assert bench.state(task_id) == states.SUCCESS

    def test_an_attempt_learns_that_it_was_revoked(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        assert not broker.is_revoked(task_id, 1)
        assert broker.is_revoked(task_id, 0)
        bench.new_broker().revoke([task_id])
        assert broker.is_revoked(task_id, 1)
        assert bench.state(task_id) == states.STARTED
        finish(broker, holder, success(delivery))
        assert broker.is_revoked(task_id, 1)


class Cancelling:
    """revoke() and purge()"""

    def test_what_waits_ends_at_once(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """R12: it never starts, over restarts of every worker."""
        for make in (waiting, scheduled, retried, unroutable):
            task_id = make(broker, holder)
            attempts = record_of(bench, task_id).attempt
            assert broker.revoke([task_id]) == 1
            record = record_of(bench, task_id)
            assert (record.state, record.finished) == (states.REVOKED, True)
            assert "TaskRevokedError" in (record.result or "")
            assert record.attempt >= attempts
            bench.let_pass(7_200)
            others = bench.new_broker()
            others.adopt(["x.unknown"])
            others.rescue(max_losses=9)
            assert claim(others, a_worker(others)) == []
            assert others.revoke([task_id]) == 0
            assert record_of(bench, task_id).state == states.REVOKED, make.__name__

    def test_revoke_counts_what_was_found_unfinished(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        done, runs, waits = send(broker, *(a_message(priority=9 - n) for n in range(3)))
        first, _ = claim(broker, holder, limit=2)
        finish(broker, holder, success(first))
        assert broker.revoke([]) == 0
        assert broker.revoke([done, runs, waits, a_message().id]) == 2
        assert [bench.state(one) for one in (done, runs, waits)] == ["SUCCESS", "STARTED", "REVOKED"]
        assert broker.revoke([done, runs, waits]) == 1

    def test_what_was_claimed_and_revoked_is_started_by_nobody_else(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """R12"""
        [task_id] = send(broker)
        claim_one(broker, holder)
        broker.revoke([task_id])
        broker.unregister(holder.worker)
        others = bench.new_broker()
        assert claim(others, a_worker(others)) == []
        assert bench.state(task_id) == states.REVOKED

    def test_a_worker_is_told_what_of_its_own_to_stop(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, second, third = send(broker, *[a_message() for _ in range(3)])
        claimed = claim(broker, holder)
        other = a_worker(broker, name="other@test")
        assert broker.to_stop(holder.worker) == []
        broker.revoke([first])
        broker.revoke([second], terminate="SIGKILL")
        broker.revoke([second])  # asking again takes nothing back
        found = {one.id: one for one in broker.to_stop(holder.worker)}
        assert found.keys() == {first, second}
        assert (found[first].attempt, found[first].slot, found[first].signal) == (1, holder.slot, None)
        assert found[second].signal == "SIGKILL"
        assert broker.to_stop(other.worker) == []
        finish(broker, holder, *[success(one) for one in claimed if one.id != third])
        assert broker.to_stop(holder.worker) == []

    def test_a_revoke_is_part_of_the_callers_transaction(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        [task_id] = send(broker)
        with bench.rolled_back():
            assert broker.revoke([task_id]) == 1
        assert bench.state(task_id) == states.PENDING
        with bench.transaction():
            [sent_here] = send(broker)
            assert broker.revoke([sent_here]) == 1
        assert bench.state(sent_here) == states.REVOKED
        assert ids(claim(broker, holder)) == [task_id]

    def test_purge_deletes_what_waits_in_these_queues(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        [runs] = send(broker, a_message(queue="a", priority=9))
        claim_one(broker, holder)
        a, later, b, c = send(
            broker, a_message(queue="a"), a_message(queue="a", delay=60), a_message(queue="b"), a_message(queue="c")
        )
        assert broker.purge(Queues(("a",))) == 2
        assert broker.purge(Queues((), frozenset({"c"}))) == 1
        assert [bench.state(one) for one in (runs, a, later, b, c)] == ["STARTED", None, None, None, "PENDING"]
        assert broker.purge(ALL) == 1
        assert broker.purge(ALL) == 0
        assert bench.state(runs) == states.STARTED

    def test_purge_deletes_what_was_set_aside(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        aside = unroutable(broker, holder)
        assert broker.purge(Queues(("another",))) == 0
        assert broker.purge(Queues((), frozenset({"default"}))) == 0
        assert bench.state(aside) is not None
        assert broker.purge(Queues(("default",))) == 1
        assert bench.state(aside) is None


class Finding:
    """find()"""

    def test_what_is_not_done_is_found_by_what_it_is(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        named, there, tagged, stamped, several = send(
            broker,
            a_message("x.y"),
            a_message(queue="mail", delay=60),
            a_message(tags=("a", "b"), limit_key="mail"),
            a_message(options=json.dumps({"stamps": {"customer": 7}})),
            a_message("x.y", queue="mail", tags=("a",), options=json.dumps({"stamps": {"customer": [8, 9], "run": 1}})),
        )

        def found(**what: Any) -> set[str]:
            return set(broker.find(**what, limit=10))

        assert found() == {named, there, tagged, stamped, several}
        assert found(name="x.y") == {named, several}
        assert found(queue="mail") == {there, several}
        assert found(tag="a") == {tagged, several}
        assert found(stamps={"customer": ["7"]}) == {stamped}
        assert found(stamps={"customer": ["7", "9"]}) == {stamped, several}
        assert found(stamps={"customer": ["0"], "run": ["1"]}) == {several}
        assert found(stamps={"run": ["7"]}) == set()
        assert found(name="x.y", queue="mail", tag="a", stamps={"run": ["1"]}) == {several}
        assert found(name="x.y", tag="b") == set()
        broker.revoke([several])
        assert found(queue="mail") == {there}

    def test_what_is_found_is_told_page_by_page(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        options = [json.dumps({"stamps": {"even": str(number % 2 == 0)}}) for number in range(9)]
        sent = send(broker, *[a_message(options=each) for each in options])
        for stamps, expected in ((None, sent), ({"even": ["True"]}, sent[::2]), ({"even": ["False"]}, sent[1::2])):
            told: list[str] = []
            while page := broker.find(stamps=stamps, after=told[-1] if told else "", limit=2):
                assert len(page) <= 2
                told += page
            assert sorted(told) == sorted(expected)

    def test_what_runs_is_found_until_it_is_asked_to_stop(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        with bench.transaction():
            [task_id] = send(broker)
            assert broker.find(limit=1) == [task_id]
        delivery = claim_one(broker, holder)
        assert broker.find(limit=1) == [task_id]
        broker.revoke([task_id])
        assert broker.find(limit=1) == []
        finish(broker, holder, success(delivery))
        assert broker.find(limit=1) == []


class Tidying:
    """prune() and now()"""

    def test_each_state_is_kept_for_its_own_time(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """R29: pruning never touches live work."""
        done = {}
        for state in (states.SUCCESS, states.FAILURE, states.REVOKED):
            send(broker)
            delivery = claim_one(broker, holder)
            finish(broker, holder, Outcome(delivery.id, delivery.attempt, state))
            done[state] = delivery.id
        live = [scheduled(broker, holder), retried(broker, holder), unroutable(broker, holder), waiting(broker, holder)]
        hour, day = timedelta(hours=1), timedelta(days=1)
        bench.let_pass(3_000)
        assert broker.prune({states.SUCCESS: hour, states.FAILURE: hour, states.REVOKED: hour}) == 0
        bench.let_pass(1_000)
        assert broker.prune({states.SUCCESS: hour, states.FAILURE: None, states.REVOKED: day}) == 1
        assert [bench.state(one) for one in done.values()] == [None, states.FAILURE, states.REVOKED]
        assert broker.prune({}) == 0
        bench.let_pass(90_000)
        assert broker.prune({states.SUCCESS: hour, states.FAILURE: None, states.REVOKED: day}) == 1
        assert [bench.state(one) for one in done.values()] == [None, states.FAILURE, None]
        assert all(bench.record(one) is not None for one in live)

    def test_a_worker_that_stopped_is_forgotten_after_a_day(self, broker: Broker, bench: Bench) -> None:
        stopped, lost = a_worker(broker), a_worker(broker)
        broker.unregister(stopped.worker)
        bench.let_pass(40_000)
        broker.rescue(max_losses=9)
        online = a_worker(broker, lease=200_000)
        bench.let_pass(40_000)
        broker.prune({})
        assert [bench.worker(one.worker) is None for one in (stopped, lost, online)] == [False, False, False]
        bench.let_pass(50_000)
        broker.prune({})
        assert [bench.worker(one.worker) is None for one in (stopped, lost, online)] == [True, True, False]

    def test_the_clock_is_one_for_all(self, broker: Broker, bench: Bench) -> None:
        first = broker.now()
        second = bench.new_broker().now()
        assert first.tzinfo is not None
        assert timedelta(0) <= second - first < timedelta(minutes=1)

    def test_a_broker_that_was_closed_opens_again(self, broker: Broker, holder: Holder) -> None:
        before = broker.generation
        send(broker)
        broker.close()
        broker.close()
        assert len(claim(broker, holder)) == 1
        assert broker.generation > before
