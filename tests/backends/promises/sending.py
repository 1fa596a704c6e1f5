"""What a sender is promised."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.backends.message import Delivery, Holder, Message
from django_tasks.ids import new_id
from tests.backends.bench import Bench
from tests.backends.calls import ALL, a_message, a_worker, claim, claim_one, finish, ids, send, success

#: What may break on its way through SQL, JSON and a driver: quotes, placeholders, escapes, planes, line ends.
STRANGE = '[["\'; -- %s %(x)s {y} \\\\ \\u0000 \\ud834\\udd1e ?1 $1 :a\t\\n", "Ω 𝄞 é"],{}]'


def _as_sent(one: Delivery | Message) -> list[object]:
    sent = [one.id, one.name, one.queue, one.body, one.priority, one.custom_id, one.encoding, one.options]
    return [*sent, one.at_most_once, one.root_id, one.parent_id]


class Sending:
    """publish()"""

    def test_a_message_is_delivered_as_it_was_sent(self, broker: Broker, holder: Holder) -> None:
        for count in (1, 3):
            sent = [
                a_message(
                    name="tests.strange",
                    queue="some.queue:1",
                    body=STRANGE,
                    priority=-7,
                    custom_id="order-Ω-1",
                    encoding="json",
                    options='{"headers":{"a":"b"}}',
                    at_most_once=True,
                    root_id=new_id(),
                    parent_id=new_id(),
                )
                for _ in range(count)
            ]
            send(broker, *sent)
            found = {one.id: one for one in claim(broker, holder)}
            assert len(found) == count
            for message in sent:
                delivery = found[message.id]
                assert _as_sent(delivery) == _as_sent(message)
                assert (delivery.attempt, delivery.retries, delivery.losses, delivery.history) == (1, 0, 0, None)
                assert (delivery.expires_in, delivery.revoked) == (None, False)

    def test_a_plain_message_gets_the_defaults(self, broker: Broker, holder: Holder) -> None:
        for count in (1, 3):
            before = broker.now().timestamp() - 0.01
            sent = [Message(id=new_id(), name="n", queue="q", body="[[],{}]") for _ in range(count)]
            send(broker, *sent)
            found = {one.id: one for one in claim(broker, holder)}
            after = broker.now().timestamp() + 0.01
            for message in sent:
                assert _as_sent(found[message.id]) == _as_sent(message)
                assert before <= found[message.id].due <= after

    def test_a_rolled_back_transaction_leaves_nothing(self, broker: Broker, bench: Bench) -> None:
        """R21: within the caller's transaction a rollback leaves no task."""
        for count in (1, 3, 1_001):
            messages = [a_message() for _ in range(count)]
            with bench.rolled_back():
                broker.publish(messages)
                assert bench.state(messages[0].id) == states.PENDING
            assert not broker.survey(ALL).due
            assert bench.record(messages[0].id) is None

    def test_what_a_transaction_sends_may_be_claimed_once_it_commits(
        self, broker: Broker, bench: Bench, holder: Holder
    ) -> None:
        with bench.transaction():
            sent = send(broker, a_message(), a_message())
            assert not bench.new_broker().survey(ALL).due
        assert sorted(ids(claim(broker, holder))) == sorted(sent)

    def test_messages_are_accepted_all_or_none(self, broker: Broker, bench: Bench) -> None:
        for count in (2, 1_001):
            messages = [a_message() for _ in range(count)]
            messages[-1].body = None  # type: ignore[assignment]  # which cannot be stored
            with pytest.raises(Exception, match=r"(?i)null"):
                broker.publish(messages)
            assert not broker.survey(ALL).due
            assert bench.record(messages[0].id) is None

    def test_an_id_sent_twice_is_stored_once(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        first, other = a_message(body='[["first"],{}]'), a_message()
        again = a_message(id=first.id, body='[["again"],{}]')
        send(broker, first)
        send(broker, again)
        send(broker, other, again, again)
        found = claim(broker, holder)
        assert sorted(ids(found)) == sorted([first.id, other.id])
        assert {one.body for one in found} == {first.body, other.body}

    def test_an_id_that_runs_is_left_as_it_is(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        send(broker, a_message(id=task_id))
        send(broker, a_message(id=task_id), a_message(queue="other", delay=60))
        assert claim(broker, holder) == []
        assert finish(broker, holder, success(delivery)) == frozenset()
        assert bench.state(task_id) == states.SUCCESS

    def test_an_id_from_the_ledger_may_be_used_again_and_the_newer_result_stays(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        [task_id] = send(broker)
        for result in ('"old"', '"new"'):
            send(broker, a_message(id=task_id))
            finish(broker, holder, success(claim_one(broker, holder), result=result))
        record = bench.record(task_id)
        assert record is not None
        assert record.result == '"new"'

    def test_a_later_task_waits_for_its_time(self, broker: Broker, bench: Bench) -> None:
        """R9, R10: never early by the broker's clock; a far ETA is a row that survives whoever wrote it."""
        for kinds in (["delay"], ["eta"], ["delay", "eta"]):
            holder = a_worker(broker)
            when: dict[str, Any] = {"delay": 3_600, "eta": broker.now() + timedelta(hours=1)}
            sent = send(broker, *(a_message(**{kind: when[kind]}) for kind in kinds))
            assert claim(broker, holder) == []
            survey = broker.survey(ALL)
            assert not survey.due
            assert survey.next_due == pytest.approx(3_600, abs=60)
            bench.let_pass(3_500)
            assert claim(broker, holder) == []
            bench.let_pass(101)
            assert sorted(ids(claim(bench.new_broker(), holder))) == sorted(sent)
