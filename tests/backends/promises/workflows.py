"""What is promised of tasks that wait for others."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django_tasks import states
from django_tasks.backends.base import Broker, Queues
from django_tasks.backends.message import AFTER, ANY, CHORD, Edge, Holder, Message, Outcome, Stepped
from django_tasks.models import Edge as EdgeRow
from django_tasks.models import Task
from tests.backends.bench import Bench
from tests.backends.calls import ALL, a_message, a_worker, claim, claim_one, finish, ids, send, success
from tests.eventually import eventually


def a_node(*before: Message, kind: str = AFTER, waiting: bool | None = None, **place: Any) -> Message:
    """Return a call of a workflow, behind others."""
    node: dict[str, Any] = {"out": True, **place}
    if before:
        node |= {"in": [one.id for one in before], "before": [kind], "takes": True}
    options = json.dumps({"node": node})
    return a_message(options=options, waiting=bool(before) if waiting is None else waiting)


def failure(delivery: Any) -> Outcome:
    error = '{"exc_type":"ValueError","exc_message":["no"],"exc_module":"builtins"}'
    return Outcome(delivery.id, delivery.attempt, states.FAILURE, result=error, exception="ValueError: no", linked=True)


def done(delivery: Any) -> Outcome:
    return success(delivery, linked=True)


class Workflows:
    """publish_workflow(), extend_chord(), unblock()"""

    def test_what_waits_is_not_delivered_before_all_before_it_is_done(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        first, second = a_node(), a_node()
        body = a_node(first, second, kind=CHORD)
        broker.publish_workflow([first, second, body], [Edge(one.id, body.id, CHORD) for one in (first, second)])
        deliveries = claim(broker, holder)
        assert set(ids(deliveries)) == {first.id, second.id}
        finish(broker, holder, done(deliveries[0]))
        assert claim(broker, holder) == []
        finish(broker, holder, done(deliveries[1]))
        assert claim_one(broker, holder).id == body.id

    def test_what_follows_a_success_is_taken_by_the_step_that_stores_it(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        first = a_node()
        second = a_node(first)
        third = a_node(second)
        edges = [Edge(first.id, second.id), Edge(second.id, third.id)]
        broker.publish_workflow([first, second, third], edges)
        [one] = claim(broker, holder)
        [two] = broker.step([done(one)], holder=holder, queues=ALL, limit=10).deliveries
        assert (two.id, two.attempt, bench.state(one.id)) == (second.id, 1, states.SUCCESS)
        assert two.stored is not None
        assert two.stored[first.id].result == '"done"'
        [three] = broker.step([done(two)], holder=holder, queues=ALL, limit=10).deliveries
        assert three.id == third.id
        assert finish(broker, holder, done(three)) == frozenset()
        assert bench.state(three.id) == states.SUCCESS
        assert not EdgeRow.objects.exists()

    def test_what_follows_takes_its_place_behind_what_is_due(self, broker: Broker, holder: Holder) -> None:
        first = a_node()
        second = a_node(first)
        broker.publish_workflow([first, second], [Edge(first.id, second.id)])
        one = claim_one(broker, holder)
        [earlier, lower] = send(broker, a_message(), a_message(priority=-1))
        sent = broker.now()
        eventually(lambda: broker.now() > sent + timedelta(milliseconds=1))  # which is a clock's finest tick
        [two] = broker.step([done(one)], holder=holder, queues=ALL, limit=1).deliveries
        assert two.id == earlier
        assert ids(broker.step([success(two)], holder=holder, queues=ALL, limit=10).deliveries) == [second.id, lower]

    def test_what_follows_is_left_to_those_who_may_take_it(self, broker: Broker, holder: Holder) -> None:
        first = a_node()
        elsewhere, strange = replace(a_node(first), queue="other"), replace(a_node(first), name="tests.strange")
        broker.publish_workflow([first, elsewhere, strange], [Edge(first.id, one.id) for one in (elsewhere, strange)])
        [one] = claim(broker, holder, "default")
        mine = Queues(("default",))
        stepped = broker.step([done(one)], holder=holder, queues=mine, limit=10, unknown=["tests.strange"])
        assert stepped.deliveries == []
        assert ids(claim(broker, holder, "other")) == [elsewhere.id]
        assert ids(claim(broker, holder, "default")) == [strange.id]

    def test_what_follows_an_attempt_that_lost_its_lease_goes_on_waiting(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        first = a_node()
        second = a_node(first)
        broker.publish_workflow([first, second], [Edge(first.id, second.id)])
        one = claim_one(broker, holder)
        lost = replace(done(one), attempt=one.attempt + 1)
        assert broker.step([lost], holder=holder, queues=ALL, limit=10) == Stepped([], frozenset({first.id}))
        assert Task.objects.get(pk=second.id).state == states.WAITING

    def test_what_was_revoked_does_not_follow(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first = a_node()
        second = a_node(first)
        third = a_node(second)
        edges = [Edge(first.id, second.id), Edge(second.id, third.id)]
        broker.publish_workflow([first, second, third], edges)
        one = claim_one(broker, holder)
        assert broker.revoke([second.id]) == 1
        assert broker.step([done(one)], holder=holder, queues=ALL, limit=10).deliveries == []
        assert [bench.state(each.id) for each in (first, second, third)] == [states.SUCCESS, *[states.REVOKED] * 2]

    def test_two_that_end_at_the_same_time_release_what_waits_once(self, bench: Bench) -> None:
        brokers = [bench.new_broker(), bench.new_broker()]
        holders = [a_worker(one) for one in brokers]
        first, second = a_node(), a_node()
        body = a_node(first, second, kind=CHORD)
        brokers[0].publish_workflow([first, second, body], [Edge(one.id, body.id, CHORD) for one in (first, second)])
        [mine] = claim(brokers[0], holders[0], limit=1)
        [theirs] = claim(brokers[1], holders[1], limit=1)
        assert finish(brokers[0], holders[0], done(mine)) == finish(brokers[1], holders[1], done(theirs)) == frozenset()
        assert [one.id for broker, holder in zip(brokers, holders, strict=True) for one in claim(broker, holder)] == [
            body.id
        ]

    def test_what_comes_after_a_failure_ends_without_running_and_what_comes_whatever_happens_runs(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        first = a_node()
        after, further = a_node(first), a_node()
        further = replace(a_node(after), id=further.id)
        always = a_node(further, kind=ANY)
        edges = [Edge(first.id, after.id), Edge(after.id, further.id), Edge(further.id, always.id, ANY)]
        broker.publish_workflow([first, after, further, always], edges)
        finish(broker, holder, failure(claim_one(broker, holder)))
        assert [bench.state(one.id) for one in (first, after, further)] == [states.FAILURE] * 3
        record = bench.record(further.id)
        assert record is not None
        assert (record.traceback or "").startswith("Not run: ")
        assert claim_one(broker, holder).id == always.id

    def test_an_errback_is_stored_once(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        errback = {"name": "tests.told", "queue": "default", "body": "[[],{}]"}
        first = a_node(errbacks=[errback])
        after = a_node(first, errbacks=[errback])
        broker.publish_workflow([first, after], [Edge(first.id, after.id)])
        delivery = claim_one(broker, holder)
        assert finish(broker, holder, failure(delivery)) == frozenset()
        assert finish(broker, holder, failure(delivery)) == {delivery.id}
        assert claim_one(broker, holder).name == "tests.told"
        assert claim(broker, holder) == []

    def test_a_delay_is_counted_from_the_release(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first = a_node()
        after = replace(a_node(first, countdown=60), delay=60.0)
        broker.publish_workflow([first, after], [Edge(first.id, after.id)])
        delivery = claim_one(broker, holder)
        bench.let_pass(100)
        finish(broker, holder, done(delivery))
        assert claim(broker, holder) == []
        assert bench.state(after.id) == states.PENDING
        bench.let_pass(61)
        assert claim_one(broker, holder).id == after.id

    def test_a_workflow_is_part_of_the_callers_transaction(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first = a_node()
        after = a_node(first)
        with bench.rolled_back():
            broker.publish_workflow([first, after], [Edge(first.id, after.id)])
        assert claim(broker, holder) == []
        assert not EdgeRow.objects.exists()
        with bench.transaction():
            broker.publish_workflow([first, after], [Edge(first.id, after.id)])
        assert claim_one(broker, holder).id == first.id

    def test_a_body_that_waits_can_be_made_to_wait_for_more(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, more = a_node(), a_node()
        body = a_node(first, kind=CHORD)
        broker.publish_workflow([first, body], [Edge(first.id, body.id, CHORD)])
        assert broker.extend_chord(body.id, [more], [Edge(more.id, body.id, CHORD)], more.id)
        deliveries = claim(broker, holder)
        finish(broker, holder, *map(done, deliveries))
        assert set(ids(deliveries)) == {first.id, more.id}
        delivery = claim_one(broker, holder)
        assert json.loads(delivery.options or "")["node"]["in"] == [first.id, more.id]
        late = a_node()
        assert not broker.extend_chord(body.id, [late], [Edge(late.id, body.id, CHORD)], late.id)
        assert bench.state(late.id) is None

    def test_a_revoked_task_takes_what_comes_after_it_along(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first = a_node()
        after = a_node(first)
        broker.publish_workflow([first, after], [Edge(first.id, after.id)])
        assert broker.revoke([first.id]) == 1
        assert [bench.state(one.id) for one in (first, after)] == [states.REVOKED] * 2
        assert claim(broker, holder) == []

    def test_what_waits_for_something_deleted_is_found(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, second = a_node(), a_node()
        after = a_node(first)
        body = a_node(second, after, kind=CHORD)
        edges = [Edge(first.id, after.id), Edge(second.id, body.id, CHORD), Edge(after.id, body.id, CHORD)]
        broker.publish_workflow([first, second, after, body], edges)
        finish(broker, holder, *[done(one) for one in claim(broker, holder) if one.id == second.id])
        Task.objects.filter(pk=first.id).delete()
        for _ in range(3):
            broker.unblock()
        assert [bench.state(one.id) for one in (after, body)] == [states.REVOKED, states.FAILURE]
        assert not Task.objects.exists()
