"""What is promised about workers, their leases, and what they hold."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.backends.message import Holder, Return
from tests.backends.bench import Bench
from tests.backends.calls import ALL, LEASE, a_message, a_worker, claim, claim_one, finish, ids, send, success
from tests.backends.promises.finishing import record_of

#: More losses than any test here causes.
MANY = 99


class Leasing:
    """register(), renew(), rescue(), unregister()"""

    def test_a_worker_is_known_from_its_start_to_its_end(self, broker: Broker, bench: Bench) -> None:
        holder = a_worker(broker, name="one@host")
        assert a_worker(broker, name="one@host").worker != holder.worker
        bench.let_pass(100)
        assert broker.renew(holder.worker, processed=7, draining=True)
        known = bench.worker(holder.worker)
        assert known is not None
        assert (known.name, known.processed, known.draining, known.lease) == ("one@host", 7, True, LEASE)
        assert abs(broker.now() - known.beat_at) < timedelta(seconds=60)
        assert known.status(broker.now()) == "draining"
        broker.unregister(holder.worker)
        known = bench.worker(holder.worker)
        assert known is not None
        assert known.status(broker.now()) == "stopped"
        assert not broker.renew(holder.worker, processed=7)

    def test_a_task_whose_worker_died_is_delivered_again(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        """R1: no sooner than the lease ran out, and then at once."""
        [task_id] = send(broker, a_message(eta=broker.now() - timedelta(hours=9)))
        lost = claim_one(broker, holder)
        bench.let_pass(LEASE - 60)
        others = bench.new_broker()
        assert others.rescue(max_losses=MANY) == 0
        assert claim(others, a_worker(others)) == []
        bench.let_pass(61)
        send(others)
        assert others.rescue(max_losses=MANY) == 1
        assert others.rescue(max_losses=MANY) == 0
        found = claim(others, a_worker(others))[0]
        assert (found.id, found.attempt, found.losses) == (task_id, lost.attempt + 1, 1)
        [entry] = json.loads(found.history or "[]")
        assert (entry["attempt"], entry["outcome"], entry["worker"]) == (1, "LOST", "worker@test")
        assert not broker.renew(holder.worker, processed=0)

    def test_a_lease_that_is_renewed_does_not_run_out(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        send(broker)
        delivery = claim_one(broker, holder)
        for _ in range(3):
            bench.let_pass(LEASE * 0.9)
            assert broker.renew(holder.worker, processed=0)
            assert bench.new_broker().rescue(max_losses=MANY) == 0
        assert finish(broker, holder, success(delivery)) == frozenset()

    def test_a_worker_that_lost_its_lease_is_told_so_for_good(
        self, broker: Broker, bench: Bench, holder: Holder
    ) -> None:
        """R5: it must stop what it runs and begin anew."""
        bench.let_pass(LEASE + 1)
        broker.rescue(max_losses=MANY)
        assert not broker.renew(holder.worker, processed=0)
        assert not broker.renew(holder.worker, processed=0)
        assert broker.renew(a_worker(broker).worker, processed=0)

    @pytest.mark.parametrize("end", ["its lease was lost", "it was unregistered"])
    def test_what_a_zombie_claims_after_its_end_is_taken_back(
        self, broker: Broker, bench: Bench, holder: Holder, end: str
    ) -> None:
        """R1: a frozen process may wake up and claim before it learns that it is nobody any more."""
        if end == "its lease was lost":
            bench.let_pass(LEASE + 1)
            assert broker.rescue(max_losses=MANY) == 0
        else:
            broker.unregister(holder.worker)
            bench.let_pass(LEASE + 1)
        [task_id] = send(broker)
        claim_one(broker, holder)
        others = bench.new_broker()
        assert others.rescue(max_losses=MANY) == 1
        assert ids(claim(others, a_worker(others))) == [task_id]

    def test_what_a_zombie_claims_when_it_is_forgotten_is_taken_back(
        self, broker: Broker, bench: Bench, holder: Holder
    ) -> None:
        """R1: a machine may sleep for days."""
        broker.unregister(holder.worker)
        bench.let_pass(100_000)
        broker.prune({})
        assert bench.worker(holder.worker) is None
        [task_id] = send(broker)
        claim_one(broker, holder)
        others = bench.new_broker()
        online = a_worker(others)
        assert others.rescue(max_losses=MANY) == 1
        assert others.rescue(max_losses=MANY) == 0
        [found] = claim(others, online)
        assert (found.id, found.attempt, found.losses) == (task_id, 2, 1)
        assert others.rescue(max_losses=MANY) == 0

    def test_many_rescuers_take_each_task_back_once(self, broker: Broker, bench: Bench) -> None:
        """R1: recovery may run in every worker at the same time."""
        sent = send(broker, *(a_message() for _ in range(60)))
        for number in range(3):
            claim(broker, a_worker(broker, name=f"w{number}"), limit=20)
        bench.let_pass(LEASE + 1)

        def rescue(_: int) -> int:
            mine = bench.new_broker()
            count = mine.rescue(max_losses=MANY)
            mine.close()
            return count

        with ThreadPoolExecutor(3) as pool:
            assert sum(pool.map(rescue, range(3))) == 60
        others = bench.new_broker()
        found = claim(others, a_worker(others))
        assert sorted(ids(found)) == sorted(sent)
        assert {(one.attempt, one.losses) for one in found} == {(2, 1)}

    def test_only_a_first_loss_is_charged_to_what_had_not_begun(self, broker: Broker, bench: Bench) -> None:
        """R14: one poison task must not take its whole batch along."""
        begun, waiting = send(broker, a_message(priority=1), a_message())
        for round_ in (1, 2, 3):
            mine = bench.new_broker()
            first, _ = claim(mine, a_worker(mine))
            if round_ > 1:
                mine.mark_started({(first.id, first.attempt): 0.0})
            bench.let_pass(LEASE + 1)
            assert mine.rescue(max_losses=MANY) == 2
        mine = bench.new_broker()
        assert [(one.id, one.losses) for one in claim(mine, a_worker(mine))] == [(begun, 3), (waiting, 1)]

    def test_a_task_that_costs_too_many_workers_fails(self, broker: Broker, bench: Bench) -> None:
        """R14"""
        [task_id] = send(broker)
        for _ in range(2):
            mine = bench.new_broker()
            one = claim_one(mine, a_worker(mine))
            mine.mark_started({(one.id, one.attempt): 0.0})
            bench.let_pass(LEASE + 1)
            assert mine.rescue(max_losses=2) == 1
        record = record_of(bench, task_id)
        assert record.state == states.FAILURE
        assert "WorkerLostError" in (record.result or "")
        assert not broker.survey(ALL).due

    def test_a_task_that_is_to_run_at_most_once_fails_when_its_worker_dies(
        self, broker: Broker, bench: Bench, holder: Holder
    ) -> None:
        """R32: never run twice, even if lost; and the loss is told."""
        [task_id] = send(broker, a_message(at_most_once=True))
        delivery = claim_one(broker, holder)
        assert delivery.at_most_once
        bench.let_pass(LEASE + 1)
        assert broker.rescue(max_losses=MANY) == 1
        record = record_of(bench, task_id)
        assert record.state == states.FAILURE
        assert "WorkerLostError" in (record.result or "")
        assert finish(broker, holder, success(delivery)) == {task_id}

    def test_a_worker_that_unregisters_gives_everything_back(
        self, broker: Broker, bench: Bench, holder: Holder
    ) -> None:
        """R2, R17: at once, with its place kept, and nobody is charged."""
        first = a_message(eta=broker.now() - timedelta(minutes=5))
        second = a_message(at_most_once=True)
        send(broker, first, second)
        mine = claim(broker, holder)
        broker.unregister(holder.worker)
        assert broker.held(holder.worker) == []
        others = bench.new_broker()
        found = claim(others, a_worker(others))
        assert ids(found) == [first.id, second.id]
        assert {(one.attempt, one.losses, one.history) for one in found} == {(2, 0, None)}
        assert finish(broker, holder, *(success(one) for one in mine)) == {first.id, second.id}

    def test_a_revoked_task_ends_with_its_worker(self, broker: Broker, bench: Bench) -> None:
        """R12: whichever way the worker ends, it is not run again."""
        sent = []
        for end in ("rescue", "lose", "unregister", "give_back"):
            holder = a_worker(broker)
            [task_id] = send(broker)
            sent.append(task_id)
            assert ids(claim(broker, holder)) == [task_id]
            assert broker.revoke([task_id]) == 1
            if end == "rescue":
                bench.let_pass(LEASE + 1)
                assert broker.rescue(max_losses=MANY) == 1
            elif end == "lose":
                assert broker.lose(holder, [task_id], max_losses=MANY, reason="it died") == 1
            elif end == "unregister":
                broker.unregister(holder.worker)
            else:
                assert broker.give_back(holder, [task_id]) == 1
            assert broker.held(holder.worker) == []
        assert [bench.state(one) for one in sent] == [states.REVOKED] * 4


class Slots:
    """lose() and give_back()"""

    def test_only_what_ran_is_charged_when_a_slot_dies(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        """R14, R32"""
        messages = [a_message(priority=4 - n, at_most_once=n in (2, 3)) for n in range(4)]
        poison, behind, unsafe, unsafe_behind = send(broker, *messages)
        claim(broker, holder)
        [elsewhere] = send(broker)
        claim(broker, holder._replace(slot=2))
        assert broker.lose(holder, [poison, unsafe], max_losses=MANY, reason="Child 7 was killed") == 4
        assert broker.lose(holder, [poison, unsafe], max_losses=MANY, reason="Child 7 was killed") == 0
        assert bench.state(unsafe) == states.FAILURE
        assert [one.id for one in broker.held(holder.worker)] == [elsewhere]
        found = claim(broker, holder)
        assert [(one.id, one.losses) for one in found] == [(poison, 1), (behind, 0), (unsafe_behind, 0)]
        assert {one.attempt for one in found} == {2}
        assert "Child 7 was killed" in (found[0].history or "")
        assert broker.lose(holder, [poison], max_losses=2, reason="Child 8 was killed") == 3
        assert bench.state(poison) == states.FAILURE
        assert "Child 8 was killed" in (record_of(bench, poison).result or "")

    def test_claims_are_given_back_unchanged(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        sent = send(broker, *(a_message(eta=broker.now() - timedelta(seconds=60 - n)) for n in range(3)))
        mine = claim(broker, holder)
        assert broker.give_back(holder._replace(slot=2), sent) == 0
        assert broker.give_back(holder, [sent[0], sent[2]]) == 2
        assert broker.give_back(holder, sent[:1]) == 0
        assert [one.id for one in broker.held(holder.worker)] == [sent[1]]
        found = claim(broker, holder)
        assert [(one.id, one.attempt, one.losses) for one in found] == [(sent[0], 2, 0), (sent[2], 2, 0)]
        assert [one.due for one in found] == pytest.approx([mine[0].due, mine[2].due], abs=0.001)

    def test_a_claim_given_back_unstarted_is_no_redelivery(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        ran, runs, unstarted = send(broker, *(a_message(priority=3 - n) for n in range(3)))
        assert [one.redelivered for one in claim(broker, holder)] == [False] * 3
        broker.give_back(holder, [unstarted])
        broker.lose(holder, [runs], begun=[ran, runs], max_losses=MANY, reason="Child 7 was killed")
        found = claim(broker, holder)
        assert [(one.id, one.redelivered) for one in found] == [(ran, True), (runs, True), (unstarted, False)]
        assert [(one.attempt, one.losses) for one in found] == [(2, 0), (2, 1), (2, 0)]
        again = Return(unstarted, 2, states.RETRY, delay=0, retries=1, history='[{"attempt":2,"outcome":"RETRY"}]')
        finish(broker, holder, again)
        assert [one.redelivered for one in claim(broker, holder)] == [False]

    def test_many_claims_are_given_back(self, broker: Broker, holder: Holder) -> None:
        sent = send(broker, *(a_message() for _ in range(1_001)))
        assert len(claim(broker, holder, limit=2_000)) == 1_001
        assert broker.give_back(holder, sent) == 1_001
        assert broker.held(holder.worker) == []
