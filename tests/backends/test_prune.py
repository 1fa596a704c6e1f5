"""Pruning: in bounded batches, beside live work."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from django_tasks import failures, states
from django_tasks.backends.base import Broker
from django_tasks.backends.message import Holder
from django_tasks.ids import new_id
from django_tasks.models import FailureMark, TaskResult
from tests.backends.bench import Bench
from tests.backends.calls import a_message, a_worker, claim, finish, send, success

DAY = timedelta(days=1)
#: The longest that a claim may take beside a pruning, in seconds: for a machine that is busy with other tests, too.
PATIENCE = 15.0


def old_results(broker: Broker, count: int, state: str = states.SUCCESS) -> None:
    """Have so many lines in the ledger that are two days old."""
    moment = broker.now() - 2 * DAY
    TaskResult.objects.bulk_create(
        TaskResult(
            id=new_id(), name="old", queue="q", body="[[],{}]", state=state, created_at=moment, due_at=moment,
            finished_at=moment,
        )
        for _ in range(count)
    )  # fmt: skip


@pytest.mark.parametrize("batch", [10, 35, 1_000])
def test_everything_old_is_deleted_in_batches(broker: Broker, batch: int) -> None:
    """R29"""
    old_results(broker, 35)
    old_results(broker, 5, states.REVOKED)
    assert broker.prune({states.SUCCESS: DAY, states.FAILURE: DAY}, batch=batch) == 35
    assert [one.state for one in TaskResult.objects.all()] == [states.REVOKED] * 5


def test_pruning_stops_at_its_deadline_after_the_batch_it_is_at(broker: Broker) -> None:
    """R29: a large ledger does not keep a worker from its other duties."""
    old_results(broker, 35)
    assert broker.prune({states.SUCCESS: DAY}, batch=10, deadline=time.monotonic() - 1) == 10
    assert broker.prune({states.SUCCESS: DAY}, batch=10, deadline=time.monotonic() - 1) == 10
    assert broker.prune({states.SUCCESS: DAY}, batch=10, deadline=time.monotonic() + 600) == 15


def test_pruning_beside_live_work_deletes_nothing_of_it(broker: Broker, bench: Bench, holder: Holder) -> None:
    """R29: nor does it stop the others for long."""
    old_results(broker, 3_000)
    waiting = send(broker, a_message(delay=3_600))
    done: list[str] = []
    longest = 0.0
    with ThreadPoolExecutor(1) as pool:
        pruning = pool.submit(bench.new_broker().prune, {states.SUCCESS: DAY}, batch=50)
        while not pruning.done() or len(done) < 30:
            done += send(broker)
            began = time.monotonic()
            mine = claim(broker, holder)
            assert finish(broker, holder, *(success(one) for one in mine)) == frozenset()
            longest = max(longest, time.monotonic() - began)
    assert pruning.result() == 3_000
    assert {bench.state(one) for one in done} == {states.SUCCESS}
    assert bench.state(waiting[0]) == states.PENDING
    assert longest < PATIENCE


def test_two_may_prune_at_a_time(broker: Broker, bench: Bench) -> None:
    old_results(broker, 600)
    with ThreadPoolExecutor(2) as pool:
        counts = pool.map(lambda _: bench.new_broker().prune({states.SUCCESS: DAY}, batch=20), range(2))
    assert sum(counts) == 600
    assert not TaskResult.objects.exists()


def test_a_lost_worker_is_kept_while_it_holds_something(broker: Broker, bench: Bench) -> None:
    """R1: whose claims are not taken back yet must not be forgotten."""
    holder = a_worker(broker)
    bench.let_pass(90_000)
    broker.rescue(max_losses=9)
    send(broker)
    claim(broker, holder)
    bench.let_pass(90_000)
    broker.prune({})
    assert bench.worker(holder.worker) is not None
    assert broker.rescue(max_losses=9) == 1
    broker.prune({})
    assert bench.worker(holder.worker) is None


def test_marks_of_failures_are_forgotten_once_they_say_nothing(broker: Broker) -> None:
    kinds = [failures.Kind("shop.mail", name, "") for name in ("old", "new", "old, muted", "muted", "neither")]
    old, now = broker.now() - 32 * DAY, broker.now()
    for kind in kinds:
        failures.mute(kind, "anna")
    FailureMark.objects.exclude(exception="muted").update(acknowledged_at=old)
    FailureMark.objects.exclude(exception__contains="muted").update(muted_until=now - DAY)
    FailureMark.objects.filter(exception="new").update(acknowledged_at=now - 29 * DAY)
    FailureMark.objects.filter(exception="neither").update(acknowledged_at=None, muted_until=None)
    broker.prune({})
    assert set(FailureMark.objects.values_list("exception", flat=True)) == {"new", "old, muted", "muted"}
