"""What is promised to those who change when, where and how early waiting tasks run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.backends.message import Holder
from tests.backends.bench import Bench
from tests.backends.calls import a_message, a_worker, claim, claim_one, finish, ids, send, success
from tests.backends.promises.control import retried, unroutable


class Rescheduling:
    """reschedule()"""

    def test_what_is_due_later_can_be_made_due_now(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        later, other = send(broker, a_message(delay=3_600), a_message(delay=3_600))
        assert broker.reschedule([later, a_message().id], delay=0) == [later]
        assert ids(claim(broker, holder)) == [later]
        assert bench.state(other) == states.PENDING

    def test_what_is_due_can_be_put_off(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, second = send(broker, a_message(), a_message())
        assert broker.reschedule([first], delay=60) == [first]
        assert broker.reschedule([second], eta=broker.now() + timedelta(seconds=60)) == [second]
        assert claim(broker, holder) == []
        assert broker.reschedule([first, second], delay=0) == sorted([first, second])
        assert set(ids(claim(broker, holder))) == {first, second}

    def test_a_task_moves_to_another_queue(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        moved, left = send(broker, a_message(queue="a"), a_message(queue="a"))
        assert broker.reschedule([moved], queue="b") == [moved]
        assert ids(claim(broker, holder, "a")) == [left]
        [delivery] = claim(broker, holder, "b")
        assert (delivery.id, delivery.queue) == (moved, "b")
        assert not finish(broker, holder, success(delivery))
        assert bench.state(moved) == states.SUCCESS

    def test_a_task_gets_another_priority(self, broker: Broker, holder: Holder) -> None:
        sent = send(broker, *(a_message(priority=5) for _ in range(3)))
        assert broker.reschedule([sent[2]], priority=9) == [sent[2]]
        assert broker.reschedule([sent[0]], priority=-9) == [sent[0]]
        assert ids(claim(broker, holder)) == [sent[2], sent[1], sent[0]]

    def test_the_next_attempt_can_be_moved_too(self, broker: Broker, holder: Holder) -> None:
        task_id = retried(broker, holder)
        assert broker.reschedule([task_id], queue="b", delay=0) == [task_id]
        [delivery] = claim(broker, holder, "b")
        assert (delivery.id, delivery.attempt, delivery.retries) == (task_id, 2, 1)

    def test_what_somebody_runs_or_has_ended_is_left_alone(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        done, runs = send(broker, a_message(priority=1), a_message())
        first = claim_one(broker, holder)
        finish(broker, holder, success(first))
        second = claim_one(broker, holder)
        assert broker.reschedule([done, runs], delay=0) == []
        assert broker.reschedule([done, runs], queue="b") == []
        assert claim(broker, a_worker(broker, name="b@test")) == []
        assert not finish(broker, holder, success(second))
        assert bench.state(runs) == states.SUCCESS

    def test_what_no_worker_knows_moves_without_a_time(self, broker: Broker, holder: Holder) -> None:
        aside = unroutable(broker, holder)
        assert broker.reschedule([aside], delay=0) == []
        assert broker.reschedule([aside], queue="b", priority=3) == [aside]
        broker.adopt(["x.unknown"])
        [delivery] = claim(broker, holder, "b")
        assert (delivery.id, delivery.priority) == (aside, 3)

    def test_it_is_part_of_the_callers_transaction(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        [task_id] = send(broker, a_message(queue="a"))
        with bench.transaction():
            assert broker.reschedule([task_id], queue="b") == [task_id]
            if not bench.shuts_others_out:
                other = bench.new_broker()
                assert claim(other, a_worker(other, name="other@test"), "b") == []
        assert ids(claim(broker, holder, "b")) == [task_id]

    def test_changing_nothing_is_refused(self, broker: Broker) -> None:
        with pytest.raises(ValueError, match="give at least one"):
            broker.reschedule([], queue=None)
