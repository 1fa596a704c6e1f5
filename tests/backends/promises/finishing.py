"""What becomes of an outcome, and of a task that is given back."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import time_machine

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.backends.message import Holder, Outcome, Return
from django_tasks.backends.results import Record
from tests.backends.bench import Bench
from tests.backends.calls import ALL, a_message, a_worker, claim, claim_one, finish, ids, send, success

STRANGE = "Ω 𝄞 '; -- %s {x} \\ \t\n"
#: What some or all databases cannot store.
UNSTORABLE = {
    "a NUL byte in the traceback": {"traceback": "a\x00b"},
    "a lone surrogate in the result": {"result": '"\ud800"'},
    "an exception's line that is too long": {"exception": "x" * 300},
    "an encoding that is too long": {"result_encoding": "x" * 300},
    "a result that no packet holds": {"result": '"' + "x" * 17_000_000 + '"'},
}


def record_of(bench: Bench, task_id: str) -> Record:
    """Return a record that must be there."""
    record = bench.record(task_id)
    assert record is not None
    return record


def lose(broker: Broker, bench: Bench, holder: Holder) -> None:
    """Let a worker's lease run out and everything it holds be taken back."""
    bench.let_pass(7_200)
    assert broker.rescue(max_losses=99) > 0


class Finishing:
    """step(done)"""

    def test_an_outcome_becomes_a_line_of_the_ledger(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        send(broker, a_message(body='[["x"],{}]', custom_id="order 1", queue="q", options='{"shadow":"s"}'))
        delivery = claim_one(broker, holder)
        done = Outcome(
            delivery.id,
            delivery.attempt,
            states.FAILURE,
            result=json.dumps({"exc_message": STRANGE}),
            result_encoding="json",
            exception=f"ValueError: {STRANGE}",
            traceback=f"Traceback …\n{STRANGE}",
            runtime=2.5,
            history='[{"attempt":0}]',
        )
        assert finish(broker, holder, done) == frozenset()
        record = record_of(bench, delivery.id)
        assert (record.state, record.task_id, record.name, record.queue) == ("FAILURE", "order 1", delivery.name, "q")
        assert (record.result, record.result_encoding, record.traceback) == (done.result, "json", done.traceback)
        assert (record.worker, record.attempt, record.retries) == ("worker@test", 1, 0)
        assert (record.body, record.options, record.history) == (delivery.body, delivery.options, done.history)
        assert broker.held(holder.worker) == []

    def test_the_ledger_is_dated_by_the_brokers_clock(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """R25"""
        send(broker)
        delivery = claim_one(broker, holder)
        with time_machine.travel(broker.now() + timedelta(hours=5)):
            finish(broker, holder, success(delivery))
        finished_at = record_of(bench, delivery.id).finished_at
        assert finished_at is not None
        assert abs(broker.now() - finished_at) < timedelta(minutes=1)

    def test_an_outcome_that_nobody_wants_leaves_no_trace(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        send(broker)
        delivery = claim_one(broker, holder)
        assert finish(broker, holder, success(delivery, keep=False)) == frozenset()
        assert bench.record(delivery.id) is None
        assert finish(broker, holder, success(delivery, keep=False)) == {delivery.id}

    def test_one_step_finishes_and_claims(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, second = send(broker, a_message(priority=1), a_message())
        step = broker.step([success(claim_one(broker, holder))], holder=holder, limit=5)
        assert ids(step.deliveries) == [second]
        assert bench.state(first) == states.SUCCESS

    def test_what_is_final_never_changes(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """R4"""
        send(broker)
        delivery = claim_one(broker, holder)
        finish(broker, holder, success(delivery))
        told = record_of(bench, delivery.id)
        again = [
            success(delivery, result='"other"'),
            success(delivery, keep=False),
            Outcome(delivery.id, delivery.attempt, states.FAILURE),
            Return(delivery.id, delivery.attempt),
            Return(delivery.id, delivery.attempt, states.RETRY, delay=0),
        ]
        for done in again:
            assert finish(broker, holder, done) == {delivery.id}
        assert broker.revoke([delivery.id]) == 0
        assert bench.record(delivery.id) == told

    @pytest.mark.parametrize("claimed_again", [False, True])
    def test_a_lost_attempt_can_change_nothing(self, broker: Broker, bench: Bench, claimed_again: bool) -> None:
        """R5: whoever lost its lease has no say any more, whether somebody else has the task by now or not yet."""
        for how in ("rescued", "given back", "taken from a dead slot", "returned"):
            holder = a_worker(broker)
            send(broker)
            lost = claim_one(broker, holder)
            if how == "rescued":
                lose(broker, bench, holder)
            elif how == "given back":
                assert broker.give_back(holder, [lost.id]) == 1
            elif how == "returned":
                assert not finish(broker, holder, Return(lost.id, lost.attempt))
            else:
                assert broker.lose(holder, [], max_losses=9, reason="it died") == 1
            others = bench.new_broker()
            other = a_worker(others)
            if claimed_again:
                found = claim_one(others, other)
                assert found.attempt == lost.attempt + 1
            before = bench.record(lost.id)
            retry = Return(lost.id, lost.attempt, states.RETRY, delay=9)
            for zombie in (success(lost), success(lost, keep=False), retry):
                assert finish(broker, holder, zombie) == {lost.id}, how
            assert not broker.report(lost.id, lost.attempt, "PROGRESS", "{}")
            assert broker.is_revoked(lost.id, lost.attempt)
            broker.mark_started({(lost.id, lost.attempt): 1.0})
            assert bench.record(lost.id) == before
            if not claimed_again:
                found = claim_one(others, other)
            assert finish(others, other, success(found)) == frozenset()
            assert bench.state(lost.id) == states.SUCCESS

    def test_a_refused_outcome_leaves_its_neighbours_alone(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        sent = send(broker, *(a_message(priority=-number) for number in range(4)))
        first, lost, third, fourth = claim(broker, holder)
        broker.give_back(holder, [lost.id])
        done = [success(first), success(lost), success(third, keep=False), Return(fourth.id, 99)]
        assert finish(broker, holder, *done) == {lost.id, fourth.id}
        assert [bench.state(one) for one in sent] == ["SUCCESS", "PENDING", None, "STARTED"]

    def test_an_outcome_that_cannot_be_stored_takes_nobody_along(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """Neighbours are stored and new tasks claimed; the offender ends as FAILURE if it cannot be stored as it is."""
        for what, fields in UNSTORABLE.items():
            send(broker, *(a_message() for _ in range(3)))
            first, offender, last = claim(broker, holder)
            [waiting] = send(broker)
            wrong = Outcome(offender.id, offender.attempt, states.SUCCESS, **fields)  # type: ignore[arg-type]
            step = broker.step([success(first), wrong, success(last)], holder=holder, limit=5)
            assert step.refused == frozenset()
            assert ids(step.deliveries) == [waiting]
            assert bench.state(first.id) == bench.state(last.id) == states.SUCCESS, what
            told = record_of(bench, offender.id)
            if told.state == states.SUCCESS:
                assert told.result == wrong.result
            else:
                assert told.state == states.FAILURE
                assert "EncodeError" in (told.result or ""), what

    def test_a_batch_of_large_results_is_stored(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """Each is within ``PAYLOAD_LIMIT``; together they are more than some servers take in one statement."""
        sent = send(broker, *(a_message() for _ in range(20)))
        large = '"' + "x" * 1_000_000 + '"'
        step = broker.step([success(one, result=large) for one in claim(broker, holder)], holder=holder, limit=1)
        assert step.refused == frozenset()
        assert {record_of(bench, one).result for one in sent} == {large}


class Returning:
    """step([Return(…)])"""

    def test_a_task_given_back_keeps_its_place(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, second = send(broker, a_message(eta=broker.now() - timedelta(minutes=1)), a_message())
        delivery = claim_one(broker, holder)
        assert finish(broker, holder, Return(delivery.id, delivery.attempt)) == frozenset()
        assert bench.state(first) == states.PENDING
        found = claim(broker, holder)
        assert ids(found) == [first, second]
        assert (found[0].attempt, found[0].losses) == (2, 0)
        assert found[0].due == pytest.approx(delivery.due, abs=0.001)

    def test_a_retry_waits_for_its_delay(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """R27: the end of one attempt and the order for the next are one step."""
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        entry = '[{"attempt":1,"outcome":"RETRY","error":{"exc_type":"E"},"traceback":"t"}]'
        back = Return(task_id, delivery.attempt, states.RETRY, delay=600, retries=1, history=entry)
        assert finish(broker, holder, back) == frozenset()
        record = record_of(bench, task_id)
        assert (record.state, record.retries, record.history, record.traceback) == ("RETRY", 1, entry, "t")
        assert broker.held(holder.worker) == []
        assert claim(broker, holder) == []
        assert broker.survey(ALL).next_due == pytest.approx(600, abs=60)
        bench.let_pass(601)
        [again] = claim(bench.new_broker(), holder)
        assert (again.id, again.attempt, again.retries, again.history) == (task_id, 2, 1, entry)

    def test_what_comes_back_expires_when_it_would_have(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        send(broker, a_message(expires_in=60))
        delivery = claim_one(broker, holder)
        for ended in range(1, 3):
            bench.let_pass(20)
            finish(broker, holder, Return(delivery.id, delivery.attempt, states.RETRY, delay=0, retries=ended))
            delivery = claim_one(broker, holder)
            assert 0 < (delivery.expires_in or 0) <= 60
        bench.let_pass(20)
        lose(broker, bench, holder)
        another = bench.new_broker()
        assert (claim_one(another, a_worker(another)).expires_in or 0) <= 0

    def test_a_retry_may_name_its_moment_and_change_the_call(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        [task_id] = send(broker, a_message(body='[["old"],{}]', options='{"shadow":"old"}'))
        delivery = claim_one(broker, holder)
        back = Return(
            task_id,
            delivery.attempt,
            states.RETRY,
            eta=broker.now() + timedelta(minutes=10),
            body='[["new Ω"],{}]',
            encoding="json",
            options='{"shadow":"new"}',
            queue="other",
            priority=42,
        )
        finish(broker, holder, back)
        bench.let_pass(540)
        assert claim(broker, holder) == []
        bench.let_pass(61)
        [again] = claim(bench.new_broker(), holder, "other")
        assert (again.body, again.encoding, again.options) == (back.body, "json", back.options)
        assert (again.queue, again.priority) == ("other", 42)

    def test_a_task_set_aside_waits_for_a_worker_that_knows_it(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """R16"""
        for name in ("x.new", "x.newer"):
            send(broker, a_message(name))
        mine = claim(broker, holder)
        finish(broker, holder, *(Return(one.id, one.attempt, states.UNROUTABLE) for one in mine))
        assert {bench.state(one.id) for one in mine} == {states.PENDING}
        assert not broker.survey(ALL).due
        assert claim(broker, holder) == []
        assert broker.adopt(["x.other"]) == 0
        assert broker.adopt(["x.new", "x.other"]) == 1
        assert [one.name for one in claim(broker, holder)] == ["x.new"]

    def test_a_revoked_task_that_comes_back_ends(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """R12"""
        sent = send(broker, *(a_message() for _ in range(3)))
        mine = claim(broker, holder)
        assert broker.revoke(sent) == 3
        ends = zip(mine, (states.PENDING, states.RETRY, states.UNROUTABLE), strict=True)
        returns = [Return(one.id, one.attempt, state, delay=0) for one, state in ends]
        assert finish(broker, holder, *returns) == frozenset()
        assert [bench.state(one) for one in sent] == [states.REVOKED] * 3

    def test_a_return_that_cannot_be_stored_takes_nobody_along(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        wrongs: list[dict[str, Any]] = [{"history": "a\x00\ud800"}, {"queue": "x" * 300}, {"priority": 10**9}]
        for wrong in wrongs:
            send(broker, a_message(), a_message(), a_message())
            first, offender, last = claim(broker, holder)
            back = Return(offender.id, offender.attempt, states.RETRY, delay=60, **wrong)
            assert finish(broker, holder, Return(first.id, first.attempt), back, success(last)) == frozenset()
            assert (bench.state(first.id), bench.state(last.id)) == (states.PENDING, states.SUCCESS)
            assert bench.state(offender.id) in {states.RETRY, states.FAILURE}
            assert broker.held(holder.worker) == []
            broker.purge(ALL)
