"""What is promised about limits: rates, concurrency, fairness and pauses."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from django_tasks import states
from django_tasks.backends.base import Broker, Queues
from django_tasks.backends.message import Delivery, Holder, Message, Outcome, Return
from tests.backends.bench import Bench
from tests.backends.calls import ALL, a_message, a_worker, claim, claim_one, finish, ids, send, success
from tests.eventually import eventually

NAME = "tests.noop"


def limited(key: str = "", **fields: Any) -> Message:
    """Return a call that a limit counts."""
    return a_message(limit_key=key, **fields)


def begin(broker: Broker, *deliveries: Delivery) -> None:
    """Show that these run now."""
    broker.mark_started({(one.id, one.attempt): 0.0 for one in deliveries})


def let_through(broker: Broker) -> int:
    """Look at the limits once; return how many were let through."""
    return broker.admit(ALL, free=1_000).admitted


def refreshed(broker: Broker) -> Broker:
    """Return the broker once it knows of limits that were changed, as it does by itself within a second."""
    broker.survey(ALL)
    return broker


class Concurrency:
    """admit(): how many at a time"""

    def test_what_a_limit_counts_waits_until_it_is_let_through(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("task", NAME, concurrency=2)
        sent = send(broker, *(limited() for _ in range(5)))
        assert claim(broker, holder) == []
        assert broker.survey(ALL) == (False, None, True)
        assert {bench.state(one) for one in sent} == {states.PENDING}
        assert let_through(broker) == 2
        assert ids(claim(broker, holder)) == sent[:2]
        assert let_through(broker) == 0

    def test_a_place_is_free_as_soon_as_its_task_is_done(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=1)
        sent = send(broker, *(limited() for _ in range(3)))
        for task_id in sent:
            assert let_through(broker) == 1
            assert let_through(bench.new_broker()) == 0
            delivery = claim_one(broker, holder)
            assert delivery.id == task_id
            assert let_through(broker) == 0
            finish(broker, holder, success(delivery))
        assert broker.survey(ALL) == (False, None, False)

    def test_the_best_are_let_through_first(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """Higher priority, then earlier due time, whatever their key or queue."""
        bench.limit("task", NAME, concurrency=3)
        now = broker.now()
        sent = send(
            broker,
            limited("x", priority=1, eta=now - timedelta(seconds=1)),
            limited("y", priority=0, eta=now - timedelta(seconds=9)),
            limited("z", priority=1, eta=now - timedelta(seconds=2), queue="other"),
            limited("x", priority=2),
        )
        assert let_through(broker) == 3
        assert set(ids(claim(broker, holder))) == {sent[3], sent[2], sent[0]}

    def test_each_key_has_its_own_places_if_so_limited(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=1, per_key=True)
        send(broker, *(limited(key) for key in ("a", "a", "b", "A", "a")))
        assert let_through(broker) == 3
        assert sorted(one.limit_key or "" for one in claim(broker, holder)) == ["A", "a", "b"]
        bench.limit("task", NAME, concurrency=4)
        assert let_through(broker) == 1

    def test_a_queue_and_its_tasks_are_limited_together(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("queue", "default", concurrency=3)
        bench.limit("task", "x.first", concurrency=2)
        send(broker, *(limited(name="x.first") for _ in range(5)), *(limited(name="x.second") for _ in range(5)))
        assert let_through(broker) == 3
        assert [one.name for one in claim(broker, holder)].count("x.first") == 2

    def test_a_place_is_kept_while_its_task_is_given_back(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=1)
        [first, _] = send(broker, limited(), limited())
        let_through(broker)
        for _ in range(2):
            delivery = claim_one(broker, holder)
            assert delivery.id == first
            broker.give_back(holder, [first])
            assert let_through(broker) == 0
        delivery = claim_one(broker, holder)
        finish(broker, holder, Return(first, delivery.attempt))
        assert let_through(broker) == 0
        assert ids(claim(broker, holder)) == [first]

    def test_a_dead_worker_keeps_no_place_beyond_its_lease(self, broker: Broker, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=1)
        dead, alive = a_worker(broker, lease=5), a_worker(broker)
        [first, second] = send(broker, limited(at_most_once=True), limited())
        let_through(broker)
        begin(broker, claim_one(broker, dead))
        assert (let_through(broker), claim(broker, alive)) == (0, [])
        bench.let_pass(6)
        broker.rescue(max_losses=3)
        assert bench.state(first) == states.FAILURE
        assert let_through(broker) == 1
        assert ids(claim(broker, alive)) == [second]

    def test_a_retry_is_let_through_again_when_it_is_due(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=1)
        [first, second] = send(broker, limited(), limited())
        let_through(broker)
        delivery = claim_one(broker, holder)
        finish(broker, holder, Return(first, delivery.attempt, states.RETRY, delay=60, retries=1))
        assert bench.state(first) == states.RETRY
        assert let_through(broker) == 1
        assert ids(claim(broker, holder)) == [second]
        bench.let_pass(61)
        assert (let_through(broker), claim(broker, holder)) == (0, [])
        finish(broker, holder, Outcome(second, 1, states.SUCCESS))
        assert let_through(broker) == 1
        assert claim_one(broker, holder).retries == 1

    def test_what_is_scheduled_is_let_through_when_it_is_due(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("task", NAME, concurrency=1)
        later, now = send(broker, limited(delay=100, priority=9), limited())
        assert broker.admit(Queues(("elsewhere",))) == (0, None, False, False)
        assert let_through(broker) == 1
        finish(broker, holder, success(claim_one(broker, holder)))
        assert broker.admit(ALL).again_in == pytest.approx(100, abs=30)
        bench.let_pass(101)
        assert let_through(broker) == 1
        assert ids(claim(broker, holder)) == [later]
        assert bench.state(now) == states.SUCCESS

    def test_what_has_expired_is_delivered_as_expired_and_takes_no_place(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """R11"""
        bench.limit("task", NAME, concurrency=1)
        old, new = send(broker, limited(expires_in=10, priority=1), limited())
        bench.let_pass(20)
        assert let_through(broker) == 2
        found = claim(broker, holder)
        assert [(one.id, one.expired) for one in found] == [(old, True), (new, False)]

    def test_a_queue_that_nobody_consumes_takes_no_places(self, broker: Broker, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=1)
        gone = a_worker(broker)
        [there, here] = send(broker, limited(queue="b", priority=9), limited(queue="a"))
        assert let_through(broker) == 1
        broker.unregister(gone.worker)
        a_worker(broker, queues=Queues((), frozenset({"b"})))
        assert broker.admit(Queues((), frozenset({"b"}))).admitted == 1
        holder = a_worker(broker)
        [delivery] = claim(broker, holder)
        assert delivery.id == here
        finish(broker, holder, success(delivery))
        assert let_through(broker) == 1
        assert ids(claim(broker, holder, "b")) == [there]

    def test_many_gatekeepers_let_no_more_through_than_one(self, broker: Broker, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=3)
        sent = send(broker, *(limited(key) for key in "abcd" * 20))

        def work(_: int) -> int:
            mine = bench.new_broker()
            holder = a_worker(mine)
            count = 0
            while mine.survey(ALL).limited or mine.held(holder.worker):
                mine.admit(ALL, free=2)
                found = claim(mine, holder, limit=2)
                assert len(mine.held(holder.worker)) <= 3
                count += len(found)
                finish(mine, holder, *(success(one) for one in found))
            mine.close()
            return count

        with ThreadPoolExecutor(4) as pool:
            counts = list(pool.map(work, range(4)))
        holder = a_worker(broker)
        left = claim(broker, holder)
        assert len(left) <= 3
        finish(broker, holder, *(success(one) for one in left))
        assert sum(counts) + len(left) == len(sent)

    def test_thousands_of_keys_are_gone_through_in_rounds(self, broker: Broker, bench: Bench, holder: Holder) -> None:
        bench.limit("task", NAME, concurrency=1, per_key=True)
        sent = send(broker, *(limited(f"key {number}") for number in range(1_200)))
        counts = [let_through(broker) for _ in range(6)]
        assert sum(counts) == len(sent)
        assert max(counts) <= 1_000
        assert sorted(ids(claim(broker, holder, limit=2_000))) == sorted(sent)

    def test_kinds_of_tasks_that_may_not_start_hide_nothing_however_many_wait_under_one_key(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("queue", "full", concurrency=1)
        bench.limit("task", NAME, concurrency=1)
        send(broker, *(limited("a", queue="full", name=f"tests.kind_{number}") for number in range(1_100)))
        assert let_through(broker) == 1
        sent = send(broker, *(limited("b") for _ in range(4)))
        assert sum(let_through(broker) for _ in range(3)) == 1
        found = {one.queue: one for one in claim(broker, holder)}
        for task_id in sent[1:]:
            finish(broker, holder, success(found["default"]))
            assert let_through(broker) == 1, "what goes on is looked at in every round"
            [found["default"]] = claim(broker, holder)
            assert found["default"].id == task_id

    def test_a_backlog_of_limited_tasks_delays_no_other(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=1)
        send(broker, *(limited(priority=9) for _ in range(2_000)))
        let_through(broker)
        claim_one(broker, holder)
        for _ in range(3):
            other = send(broker, a_message("x.other"))
            assert ids(claim(broker, holder, limit=1)) == other


class Rates:
    """admit(): how many in a time"""

    def test_starts_are_spaced_evenly(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, rate="20/m")
        sent = send(broker, *(limited() for _ in range(3)))
        for task_id in sent:
            assert let_through(broker) == 1
            delivery = claim_one(broker, holder)
            assert (delivery.id, delivery.watched) == (task_id, True)
            begin(broker, delivery)
            bench.let_pass(2)
            later = broker.admit(ALL)
            assert later.admitted == 0
            if later.waiting:
                assert later.paced
                assert 0 < (later.again_in or 0) <= 1
            bench.let_pass(1)

    def test_the_next_one_waits_until_the_one_before_has_begun(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """Late starts do not come in a bunch."""
        bench.limit("task", NAME, rate=10)
        send(broker, *(limited() for _ in range(3)))
        assert let_through(broker) == 1
        bench.let_pass(60)
        assert let_through(broker) == 0, "nobody has taken it"
        delivery = claim_one(broker, holder)
        soon = broker.admit(ALL)
        assert soon.admitted == 0, "somebody has taken it, but it has not begun"
        assert 0 < (soon.again_in or 0) <= 0.1
        begin(broker, delivery)
        assert let_through(broker) == 1
        finish(broker, holder, success(delivery))
        assert let_through(broker) == 0
        finish(broker, holder, success(claim_one(broker, holder)))
        eventually(lambda: let_through(broker) == 1)

    def test_a_long_pause_saves_nothing_up(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, rate="1/s")
        for _ in range(2):
            send(broker, *(limited() for _ in range(3)))
            assert let_through(broker) == 1
            begin(broker, *claim(broker, holder))
            assert let_through(broker) == 0
            bench.let_pass(3_000)

    def test_a_high_rate_comes_in_bursts_of_a_twentieth_of_a_second(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("task", NAME, rate="1000/s")
        send(broker, *(limited() for _ in range(300)))
        assert let_through(broker) == 50
        found = claim(broker, holder)
        assert [one.watched for one in found] == [False] * 50
        bench.let_pass(0.03)
        assert 30 <= let_through(broker) <= 50
        claim(broker, holder)
        bench.let_pass(10)
        assert let_through(broker) == 50

    def test_each_key_has_its_own_rate_if_so_limited(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, rate="5/h", per_key=True)
        send(broker, *(limited(key) for key in "aabbc"))
        assert let_through(broker) == 3
        begin(broker, *claim(broker, holder))
        assert let_through(broker) == 0
        bench.let_pass(720)
        assert let_through(broker) == 2

    def test_a_rate_per_worker_grows_with_the_workers(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, rate="60/m", per_worker=True)
        send(broker, *(limited() for _ in range(9)))
        assert let_through(broker) == 1
        begin(broker, *claim(broker, holder))
        bench.let_pass(0.6)
        assert let_through(broker) == 0
        bench.let_pass(0.5)
        a_worker(broker)
        assert let_through(broker) == 1
        begin(broker, *claim(broker, holder))
        bench.let_pass(0.5)
        assert let_through(broker) == 1

    def test_a_rate_and_a_concurrency_hold_both(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, rate="1/s", concurrency=2)
        send(broker, *(limited() for _ in range(9)))
        counts = []
        for _ in range(4):
            counts.append(let_through(broker))
            begin(broker, *claim(broker, holder))
            bench.let_pass(1)
        assert counts == [1, 1, 0, 0]

    def test_a_rate_that_nobody_can_read_is_none(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """Somebody wrote it into the table; the worker goes on."""
        bench.limit("task", NAME, rate="quickly", concurrency=2)
        send(broker, *(limited() for _ in range(3)))
        assert let_through(broker) == 2


class Fairness:
    """admit(): whose turn it is"""

    def test_keys_take_turns(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, fair=True)
        send(broker, *(limited("a") for _ in range(300)))
        assert broker.admit(ALL, free=2).admitted == 2
        assert [one.limit_key for one in claim(broker, holder)] == ["a", "a"]
        send(broker, limited("b"), limited("c"), limited("b"))
        assert broker.admit(ALL, free=4).admitted >= 4
        keys = [one.limit_key for one in claim(broker, holder)][:4]
        assert sorted(map(str, keys)) == ["a", "b", "b", "c"] or sorted(map(str, keys)) == ["a", "a", "b", "c"]

    def test_no_more_is_let_through_ahead_than_can_run(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("queue", "default", fair=True)
        send(broker, *(limited("a") for _ in range(300)))
        assert broker.admit(ALL, free=2).admitted == 2
        assert broker.admit(ALL, free=2).admitted == 0
        assert broker.admit(ALL, free=5).admitted == 3
        bench.let_pass(60)
        claim(broker, holder, limit=3)
        assert broker.admit(ALL, free=2).admitted == 0

    def test_the_faster_they_start_the_more_are_let_through_ahead(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("queue", "default", fair=True)
        send(broker, *(limited("a") for _ in range(3_000)))
        done = 0
        end = time.monotonic() + 30
        while done < 3_000 and time.monotonic() < end:
            broker.admit(ALL, free=2)
            found = claim(broker, holder)
            finish(broker, holder, *(success(one) for one in found))
            done += len(found)
        assert done == 3_000

    def test_a_turn_is_remembered_by_all(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("queue", "default", fair=True)
        send(broker, *(limited(key) for key in "aabbccdd"))
        keys = []
        for _ in range(8):
            assert bench.new_broker().admit(ALL, free=1).admitted == 1
            delivery = claim_one(broker, holder)
            keys.append(delivery.limit_key)
            bench.let_pass(60)
            finish(broker, holder, success(delivery))
        assert keys == list("abcdabcd")

    def test_a_higher_priority_comes_first_whosever_turn_it_is(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("queue", "default", fair=True)
        low, high, other = send(broker, limited("a"), limited("b", priority=9), limited("b"))
        order = []
        for _ in range(3):
            assert broker.admit(ALL, free=1).admitted == 1
            delivery = claim_one(broker, holder)
            order.append(delivery.id)
            bench.let_pass(60)
            finish(broker, holder, success(delivery))
        assert order == [high, low, other]

    def test_who_has_its_turn_is_claimed_behind_those_who_had_theirs(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """However long each of them waited for it."""
        bench.limit("queue", "default", fair=True)
        send(broker, *(limited("a") for _ in range(20)))
        bench.let_pass(60)
        broker.admit(ALL, free=2)
        [new] = send(broker, limited("b"))
        bench.let_pass(1)
        broker.admit(ALL, free=3)
        bench.let_pass(1)
        broker.admit(ALL, free=6)
        assert ids(claim(broker, holder)).index(new) == 2


class Changing:
    """Limits and pauses that are set, changed and taken away at run time"""

    def test_a_limit_set_later_counts_what_was_sent_before(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        sent = send(broker, *(a_message() for _ in range(5)))
        bench.limit("queue", "default", concurrency=2)
        assert claim(refreshed(broker), holder) == []
        assert {bench.state(one) for one in sent} == {states.PENDING}
        assert let_through(broker) == 2
        assert len(claim(broker, holder)) == 2

    def test_a_worker_that_had_nothing_to_do_knows_of_a_new_limit(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        claim(broker, holder)
        bench.limit("queue", "default", concurrency=2)
        bench.limit("task", "x.paused", paused_at=broker.now())
        time.sleep(1.1)  # as long as what it knew may be believed
        send(broker, a_message(), a_message("x.paused"))
        assert claim(broker, holder) == []

    def test_what_is_put_aside_is_no_obstacle_to_what_may_run(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        send(broker, *(a_message(priority=5) for _ in range(50)))
        [free] = send(broker, a_message("x.free"))
        bench.limit("task", NAME, concurrency=1)
        found = [one for _ in range(5) for one in claim(refreshed(broker), holder, limit=10)]
        assert ids(found) == [free]

    def test_a_limit_taken_away_lets_all_through(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        bench.limit("task", NAME, concurrency=1)
        sent = send(broker, *(limited() for _ in range(20)))
        let_through(broker)
        bench.limit("task", NAME)
        assert let_through(broker) == 19
        assert sorted(ids(claim(refreshed(broker), holder))) == sorted(sent)
        assert let_through(broker) == 0

    def test_who_does_nothing_but_claim_learns_that_a_queue_is_resumed(self, broker: Broker, bench: Bench) -> None:
        """A child of a worker, say: its steward asks what is due."""
        bench.limit("queue", "a", paused_at=broker.now())
        child = bench.new_broker()
        mine = a_worker(child)
        send(broker, a_message(queue="b"))
        assert len(claim(child, mine)) == 1
        [task_id] = send(broker, a_message(queue="a"))
        assert claim(child, mine) == []
        bench.limit("queue", "a")
        assert eventually(lambda: ids(claim(child, mine))) == [task_id]

    def test_a_paused_queue_gives_nothing_and_does_not_look_due(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        sent = send(broker, a_message(queue="a"), a_message(queue="b"), limited(queue="a"))
        let_through(broker)
        bench.limit("queue", "a", paused_at=broker.now())
        assert broker.survey(Queues(("a",))) == (False, None, False)
        assert ids(claim(broker, holder)) == [sent[1]]
        assert claim(broker, holder, "a") == []
        send(broker, limited(queue="a"))
        assert let_through(broker) == 0
        bench.limit("queue", "a")
        assert broker.survey(Queues(("a",))).due
        assert let_through(broker) == 1
        assert len(claim(broker, holder, "a")) == 3

    def test_a_pause_ends_by_itself(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        now = broker.now()
        bench.limit("queue", "default", paused_at=now, paused_until=now + timedelta(seconds=100))
        sent = send(broker, a_message(), limited())
        assert broker.survey(ALL).next_due == pytest.approx(100, abs=30)
        assert claim(broker, holder) == []
        assert broker.admit(ALL).again_in == pytest.approx(100, abs=30)
        bench.let_pass(101)
        assert broker.survey(ALL).due
        let_through(broker)
        assert sorted(ids(claim(broker, holder))) == sorted(sent)

    def test_a_paused_task_is_put_aside_and_comes_back(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        sent = send(broker, *(a_message() for _ in range(3)))
        [other] = send(broker, a_message("x.other"))
        bench.limit("task", NAME, paused_at=broker.now())
        assert ids(claim(refreshed(broker), holder)) == [other]
        assert (let_through(broker), claim(broker, holder)) == (0, [])
        bench.limit("task", NAME)
        assert let_through(broker) == 3
        assert ids(claim(refreshed(broker), holder)) == sent

    def test_what_was_let_through_before_a_pause_takes_no_place(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("task", NAME, concurrency=1)
        [a, b] = send(broker, limited(queue="a", priority=1), limited(queue="b"))
        assert let_through(broker) == 1
        bench.limit("queue", "a", paused_at=broker.now())
        assert let_through(broker) == 1
        assert ids(claim(refreshed(broker), holder)) == [b]
        assert bench.state(a) == states.PENDING

    def test_what_a_limit_holds_back_can_be_revoked_and_purged(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """R12"""
        bench.limit("task", NAME, concurrency=1)
        first, second, third = send(broker, limited(), limited(), limited(queue="b"))
        assert broker.revoke([first]) == 1
        assert bench.state(first) == states.REVOKED
        assert broker.purge(Queues(("default",))) == 1
        assert [bench.state(one) for one in (second, third)] == [None, states.PENDING]
        assert let_through(broker) == 1
        assert ids(claim(broker, holder)) == [third]

    def test_a_limited_task_that_nobody_knew_is_let_through_again(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """R16"""
        bench.limit("task", NAME, concurrency=1)
        first, second = send(broker, limited(), limited())
        let_through(broker)
        delivery = claim_one(broker, holder)
        finish(broker, holder, Return(delivery.id, delivery.attempt, states.UNROUTABLE))
        assert let_through(broker) == 1
        assert broker.adopt([NAME]) == 1
        assert ids(claim(broker, holder)) == [second]
        assert let_through(broker) == 0
        finish(broker, holder, Outcome(second, 1, states.SUCCESS))
        assert let_through(broker) == 1
        assert ids(claim(broker, holder)) == [first]


class Limiting(Concurrency, Rates, Fairness, Changing):
    """All of it."""
