"""What one step of the database broker does together, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import states
from django_tasks.backends.base import Queues
from django_tasks.backends.database import DatabaseBroker, plan
from django_tasks.backends.database.dialect import Look
from django_tasks.backends.message import Holder, Outcome
from tests.backends.bench import Bench
from tests.backends.calls import a_message, claim, claim_one, finish, send, success


def test_a_batch_of_every_kind_of_outcome_is_stored_each_as_its_own(
    broker: DatabaseBroker, holder: Holder, bench: Bench
) -> None:
    ids = send(broker, *(a_message() for _ in range(7)))
    held = {one.id: one for one in claim(broker, holder)}
    valued, plain, failed, retried, ignored, stale, stale_ignored = (held[each] for each in ids)
    history = '[{"attempt": 1, "outcome": "RETRY"}]'
    error = {"result": '{"exc_type": "ValueError"}', "exception": "ValueError: no", "traceback": "Traceback …"}
    refused = finish(
        broker,
        holder,
        success(valued, "1", result_encoding="json"),
        Outcome(plain.id, plain.attempt, states.SUCCESS),
        Outcome(failed.id, failed.attempt, states.FAILURE, runtime=0.1, **error),  # type: ignore[arg-type]
        success(retried, "2", history=history),
        success(ignored, keep=False),
        Outcome(stale.id, stale.attempt + 1, states.SUCCESS),
        Outcome(stale_ignored.id, stale_ignored.attempt + 1, states.SUCCESS, keep=False),
    )
    assert refused == {stale.id, stale_ignored.id}
    found = {each: bench.record(each) for each in ids}
    kept = {id_: record for id_, record in found.items() if record is not None and record.finished}
    assert set(kept) == {valued.id, plain.id, failed.id, retried.id}
    assert found[ignored.id] is None
    assert [bench.state(one.id) for one in (stale, stale_ignored)] == [states.STARTED] * 2
    assert (kept[valued.id].result, kept[valued.id].result_encoding) == ("1", "json")
    assert (kept[plain.id].state, kept[plain.id].result, kept[plain.id].traceback) == (states.SUCCESS, None, None)
    assert (kept[failed.id].state, kept[failed.id].traceback) == (states.FAILURE, "Traceback …")
    assert (kept[retried.id].result, kept[retried.id].history) == ("2", history)
    assert {each.worker for each in kept.values()} == {holder.name}


def test_the_first_claim_after_a_pause_looks_for_nothing_else_first(
    broker: DatabaseBroker, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = Queues(("default",))
    broker.step([], holder=holder, queues=queues, limit=1)
    monkeypatch.setattr(plan, "SURVEY_EVERY", 0.0)
    surveys: list[object] = []
    look = broker.dialect.look

    def counted(*args: Any) -> Look:
        surveys.append(args)
        return look(*args)

    monkeypatch.setattr(broker.dialect, "look", counted)
    send(broker)
    [delivery] = broker.step([], holder=holder, queues=queues, limit=1).deliveries
    assert not surveys
    broker.step([success(delivery)], holder=holder, queues=queues, limit=1)
    assert surveys, "a worker that is never idle must hear of new priorities, too"


def test_a_queue_that_was_never_seen_is_claimed_from_at_the_first_look(
    broker: DatabaseBroker, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(broker)
    finish(broker, holder, success(claim_one(broker, holder)))
    assert claim(broker, holder) == []
    monkeypatch.setattr(plan, "SURVEY_EVERY", 0.0)
    [new] = send(broker, a_message(queue="new"))
    assert claim_one(broker, holder).id == new
