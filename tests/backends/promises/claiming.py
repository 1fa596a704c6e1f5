"""What a worker that claims is promised."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import time_machine

from django_tasks import states
from django_tasks.backends.base import Broker, Queues
from django_tasks.backends.message import Holder, Outcome, Return
from tests.backends.bench import Bench
from tests.backends.calls import ALL, a_message, a_worker, claim, claim_one, finish, ids, send, success
from tests.eventually import eventually


class Claiming:
    """step(limit=…) and survey()"""

    def test_the_best_comes_first(self, broker: Broker, holder: Holder) -> None:
        """Queue order, then higher priority, then earlier due time."""
        now = broker.now()
        messages = [
            a_message(f"{queue} {priority:+04d} {age}", queue, priority=priority, eta=now - timedelta(seconds=age))
            for age in (1, 3, 2)
            for priority in (0, 100, -100, 7)
            for queue in ("a", "b")
        ]
        send(broker, *messages)
        expected = [f"{q} {p:+04d} {age}" for q in ("b", "a") for p in (100, 7, 0, -100) for age in (3, 2, 1)]
        first = claim(broker, holder, "b", "a", limit=5)
        rest = claim(broker, holder, "b", "a")
        assert [one.name for one in [*first, *rest]] == expected

    def test_a_limit_is_kept_and_the_best_are_taken(self, broker: Broker, holder: Holder) -> None:
        sent = send(broker, *(a_message(priority=priority) for priority in range(-2, 3)))
        assert claim(broker, holder, limit=0) == []
        assert [ids(claim(broker, holder, limit=2)) for _ in range(4)] == [
            [sent[4], sent[3]],
            [sent[2], sent[1]],
            [sent[0]],
            [],
        ]

    def test_a_higher_priority_overtakes_a_backlog_at_once(self, broker: Broker, holder: Holder) -> None:
        """R28: also one that nobody has used before."""
        send(broker, *(a_message() for _ in range(20)))
        claim(broker, holder, limit=2)
        for priority in (1, 50, 49, 100):
            [urgent] = send(broker, a_message(priority=priority))
            assert ids(claim(broker, holder, limit=1)) == [urgent]

    def test_only_the_queues_asked_for_are_claimed_from(self, broker: Broker, holder: Holder) -> None:
        a, b, c = send(broker, *(a_message(queue=queue) for queue in "abc"))
        assert ids(claim(broker, holder, "nothing here")) == []
        assert ids(claim(broker, holder, "b")) == [b]
        assert ids(claim(broker, holder)) == [a, c]

    def test_a_queue_in_capitals_is_another_one(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        large, small = send(broker, a_message(queue="A"), a_message(queue="a"))
        assert ids(claim(broker, holder, "a")) == [small]
        assert not broker.survey(Queues(("a",))).due
        assert broker.survey(Queues(("A",))).due
        assert broker.purge(Queues(("a",))) == 0
        excluded = Queues((), frozenset({"a"}))
        assert ids(broker.step([], holder=holder, queues=excluded, limit=10).deliveries) == [large]

    def test_a_name_in_capitals_is_another_one(self, broker: Broker, holder: Holder) -> None:
        large, small = send(broker, a_message("tests.Noop"), a_message("tests.noop"))
        assert ids(claim(broker, holder, unknown=["tests.Noop"])) == [small]
        [delivery] = claim(broker, holder)
        assert delivery.id == large
        finish(broker, holder, Return(large, delivery.attempt, states.UNROUTABLE))
        assert broker.adopt(["tests.noop"]) == 0
        assert broker.adopt(["tests.Noop"]) == 1

    @pytest.mark.parametrize(
        "queues",
        [Queues((), frozenset({"b", "d"})), Queues(("a", "b", "c"), frozenset({"b", "d"}))],
        ids=["all but", "some but"],
    )
    def test_an_excluded_queue_is_never_claimed_from(self, broker: Broker, holder: Holder, queues: Queues) -> None:
        a, _, c, _ = send(broker, *(a_message(queue=queue) for queue in "abcd"))
        found = [broker.step([], holder=holder, queues=queues, limit=10).deliveries for _ in range(9)]
        assert ids([one for some in found for one in some]) == [a, c]
        assert not broker.survey(queues).due

    def test_a_new_queue_is_found_by_who_consumes_all(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        send(broker, a_message(queue="old"))
        claim(broker, holder)
        [task_id] = send(bench.new_broker(), a_message(queue="new"))
        assert eventually(lambda: ids(claim(broker, holder))) == [task_id]

    @pytest.mark.parametrize("queues", [Queues(("flood", "other", "third")), ALL], ids=["named", "all"])
    def test_a_backlog_does_not_starve_another_queue(self, broker: Broker, holder: Holder, queues: Queues) -> None:
        """R28"""
        send(broker, *(a_message(queue="flood") for _ in range(400)))
        waiting = set(send(broker, a_message(queue="other"), a_message(queue="third")))
        for _ in range(60):
            found = broker.step([], holder=holder, queues=queues, limit=3).deliveries
            assert len(found) == 3
            waiting -= set(ids(found))
        assert not waiting

    def test_nothing_runs_before_its_time_whatever_the_workers_clock_says(self, broker: Broker, bench: Bench) -> None:
        """R9, R25: due is what the broker's clock says."""
        holder = a_worker(broker)
        [later] = send(broker, a_message(eta=broker.now() + timedelta(minutes=5)))
        for skew in (timedelta(minutes=10), timedelta(minutes=-10), timedelta(hours=25)):
            with time_machine.travel(broker.now() + skew):
                assert claim(broker, holder) == []
                [now] = send(broker)
                assert ids(claim(broker, holder)) == [now]
        bench.let_pass(301)
        with time_machine.travel(broker.now() - timedelta(minutes=10)):
            assert ids(claim(broker, holder)) == [later]

    def test_a_short_delay_is_kept_to_the_moment(self, broker: Broker, holder: Holder) -> None:
        """R9: claimed as soon as it is due, by the broker's clock, and not before."""
        earliest = broker.now() + timedelta(seconds=0.3)
        send(broker, a_message(delay=0.3))
        [found] = eventually(lambda: claim(broker, holder))
        assert broker.now() >= earliest - timedelta(seconds=0.001)  # SQLite's clock has milliseconds
        assert found.due >= earliest.timestamp() - 0.002

    def test_the_survey_tells_when_the_next_is_due(self, broker: Broker, holder: Holder) -> None:
        send(broker, a_message(queue="a", delay=500), a_message(queue="b", delay=100))
        send(broker, a_message(queue="b", delay=300, priority=9))
        assert broker.survey(Queues(("nothing here",))) == (False, None, False)
        assert broker.survey(ALL).next_due == pytest.approx(100, abs=30)
        assert broker.survey(Queues(("a",))).next_due == pytest.approx(500, abs=30)
        assert broker.survey(Queues((), frozenset({"b"}))).next_due == pytest.approx(500, abs=30)
        send(broker, a_message(queue="a", priority=-5))
        assert broker.survey(ALL).due
        assert not broker.survey(Queues(("b",))).due
        claim(broker, holder)
        assert not broker.survey(ALL).due

    def test_what_has_expired_is_delivered_as_expired(self, broker: Broker, bench: Bench) -> None:
        """R11: never dropped before, never run after, by the broker's clock."""
        holder = a_worker(broker)
        now = broker.now()
        send(broker, a_message(expires_in=60), a_message(expires_at=now + timedelta(seconds=90)), a_message())
        send(broker, a_message(expires_in=600))
        with time_machine.travel(now + timedelta(days=1)):
            early = claim(broker, holder, limit=1)
        assert [one.expired for one in early] == [False]
        assert 0 < (early[0].expires_in or 0) <= 60
        bench.let_pass(120)
        with time_machine.travel(now - timedelta(days=1)):
            found = claim(bench.new_broker(), holder)
        assert [one.expired for one in found] == [True, False, False]
        assert [one.expires_in is None for one in found] == [False, True, False]
        assert -60 < (found[0].expires_in or 0) <= 0

    def test_a_delivery_expires_while_it_waits_in_the_worker(self, broker: Broker, holder: Holder) -> None:
        """R11"""
        send(broker, a_message(expires_in=0.4))
        delivery = claim_one(broker, holder)
        eventually(lambda: delivery.expired)
        assert time.monotonic() - delivery.claimed >= (delivery.expires_in or 0)

    def test_unknown_names_are_skipped_and_stay(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """R16: a name that this worker does not know is not in the way of the others, and not lost."""
        strange, known, odd = send(broker, a_message("x.strange", priority=9), a_message("x.known"), a_message("x.odd"))
        assert ids(claim(broker, holder, limit=1, unknown=["x.strange", "x.odd"])) == [known]
        assert claim(broker, holder, unknown=["x.strange", "x.odd"]) == []
        assert ids(claim(broker, holder)) == [strange, odd]

    def test_each_claim_counts_as_an_attempt(self, broker: Broker, holder: Holder) -> None:
        [task_id] = send(broker)
        for attempt in (1, 2, 3):
            delivery = claim_one(broker, holder)
            assert (delivery.id, delivery.attempt) == (task_id, attempt)
            broker.give_back(holder, [task_id])

    def test_a_claim_belongs_to_its_holder_alone(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        sent = send(broker, a_message(), a_message(), a_message())
        mine = claim(broker, holder, limit=2)
        second = holder._replace(slot=2)
        [other] = claim(bench.new_broker(), second)
        assert claim(broker, holder) == []
        assert sorted([*ids(mine), other.id]) == sorted(sent)
        assert sorted(broker.held(holder.worker, 1)) == sorted((one.id, 1, 1) for one in mine)
        assert broker.held(holder.worker, 2) == [(other.id, 1, 2)]
        assert len(broker.held(holder.worker)) == 3
        assert broker.held(holder.worker + 1) == []

    def test_many_workers_never_take_the_same_task(self, broker: Broker, bench: Bench) -> None:
        """R2: without a fault nothing runs twice, however many claim and finish at a time."""
        sent = send(broker, *(a_message(queue=f"q{number % 3}", priority=number % 2) for number in range(300)))

        def work(number: int) -> list[str]:
            mine = bench.new_broker()
            holder = a_worker(mine, name=f"w{number}")
            taken: list[str] = []
            done: list[Outcome] = []
            while True:
                step = mine.step(done, holder=holder, limit=5 + number)
                assert step.refused == frozenset()
                if not step.deliveries:
                    mine.close()
                    return taken
                taken += ids(step.deliveries)
                done = [success(one) for one in step.deliveries]

        with ThreadPoolExecutor(4) as pool:
            taken = [one for some in pool.map(work, range(4)) for one in some]
        assert len(taken) == len(set(taken))
        # Whoever stopped early met a locked row at the wrong moment; nothing of it is lost.
        left = claim(broker, a_worker(broker))
        finish(broker, Holder(0, 0), *(success(one) for one in left))
        assert sorted([*taken, *ids(left)]) == sorted(sent)
        assert {bench.state(one) for one in sent} == {states.SUCCESS}

    def test_one_broker_serves_many_threads(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        sent = send(broker, *(a_message() for _ in range(60)))

        def work(_: int) -> list[str]:
            taken = []
            while found := claim(broker, holder, limit=4):
                assert finish(broker, holder, *(success(one) for one in found)) == frozenset()
                assert broker.renew(holder.worker, processed=1)
                taken += ids(found)
            return taken

        with ThreadPoolExecutor(3) as pool:
            taken = [one for some in pool.map(work, range(3)) for one in some]
        assert sorted(taken) == sorted(sent)
        assert broker.held(holder.worker) == []
