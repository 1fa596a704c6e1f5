"""Children that run many tasks at a time: an attempt that was taken away may still run beside the next one."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from django_tasks import shared_task, signals, states
from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues
from django_tasks.worker import concurrent
from django_tasks.worker.board import Board
from django_tasks.worker.concurrent import Concurrent, capacity
from django_tasks.worker.loop import LoopChild
from django_tasks.worker.puller import IDLE, REVOKED, WAKE, ChildOptions
from django_tasks.worker.roster import Roster
from django_tasks.worker.threads import ThreadChild
from tests.backends.calls import a_worker, claim_one
from tests.databases import TestDatabase
from tests.eventually import eventually

pytestmark = pytest.mark.databases("sqlite")

#: By id and attempt, what lets it end.
_gates: dict[tuple[str, int], threading.Event] = defaultdict(threading.Event)


@shared_task(bind=True, name="tests.worker.wait_in_thread")
def wait_in_thread(self: Any) -> int:
    assert _gates[self.request.id, self.request.attempt].wait(60)
    return int(self.request.attempt)


@shared_task(bind=True, name="tests.worker.wait_in_loop")
async def wait_in_loop(self: Any) -> int:
    while not _gates[self.request.id, self.request.attempt].is_set():
        await asyncio.sleep(0.01)
    return int(self.request.attempt)


class Pool:
    """One child with room for four tasks, in threads of the test's own process."""

    def __init__(self, cls: type[Concurrent]) -> None:
        self.broker = get_broker()
        self.holder = a_worker(self.broker)
        self.roster = Roster(capacity(4))
        self.ours, self.theirs = socket.socketpair()
        self.child = cls(self.holder, self.roster, self.theirs, ChildOptions(Queues()), board=Board(), concurrency=4)
        self.task = wait_in_loop if cls is LoopChild else wait_in_thread
        self.thread = threading.Thread(target=self.child.run)

    def take_away(self) -> None:
        """Do what a rescue does with all that it holds."""
        assert self.broker.lose(self.holder, [], max_losses=3, reason="The lease ran out") == 1

    def wait_until_idle(self) -> None:
        """Return once it looks for work no more, until it is told to."""
        self.ours.settimeout(60)
        while IDLE not in self.ours.recv(64):
            pass

    def wait_for(self, *running: tuple[str, int]) -> None:
        """Have it look for work; return once exactly these attempts run."""
        self.ours.send(WAKE)
        eventually(lambda: sorted(run[:2] for run in self.roster.runs()) == sorted(running))


@pytest.fixture(params=[ThreadChild, LoopChild])
def pool(request: pytest.FixtureRequest, database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Give a child to start; in the end it has run everything, and holds nothing."""
    monkeypatch.setattr(concurrent, "GIVE_BACK_AFTER", 60.0)  # a slow machine's threads may take their time
    pool = Pool(request.param)
    yield pool
    for gate in _gates.values():
        gate.set()
    pool.child.stop()
    pool.thread.join(60)
    pool.ours.close()
    pool.theirs.close()
    assert not pool.thread.is_alive()
    assert pool.roster.room == pool.roster.capacity
    _gates.clear()


def test_an_attempt_that_was_taken_away_hides_nothing_of_the_next_one(pool: Pool) -> None:
    pool.thread.start()
    result = pool.task.delay()
    pool.wait_for((result.id, 1))
    pool.take_away()
    pool.wait_for((result.id, 1), (result.id, 2))
    _gates[result.id, 1].set()
    pool.wait_for((result.id, 2))
    assert (result.state, pool.roster.begun()) == (states.STARTED, [(result.id, 2)])
    _gates[result.id, 2].set()
    assert result.get(timeout=60) == 2


@pytest.mark.parametrize("pool", [LoopChild], indirect=True)
def test_a_coroutine_can_be_stopped_though_an_attempt_before_it_has_ended(pool: Pool) -> None:
    pool.thread.start()
    result = pool.task.delay()
    pool.wait_for((result.id, 1))
    pool.take_away()
    pool.wait_for((result.id, 1), (result.id, 2))
    _gates[result.id, 1].set()
    pool.wait_for((result.id, 2))
    result.revoke()
    pool.ours.send(REVOKED)
    eventually(lambda: result.state == states.REVOKED)


def test_what_was_claimed_unheard_goes_back_though_an_attempt_before_it_runs(pool: Pool) -> None:
    result = pool.task.delay()
    pool.thread.start()
    pool.wait_until_idle()
    pool.take_away()
    assert claim_one(pool.broker, pool.holder).attempt == 2
    pool.broker.close()  # the connection broke off before the child heard of it, and there is a new one
    pool.broker.now()
    _gates[result.id, 1].set()
    pool.wait_for((result.id, 3))
    _gates[result.id, 3].set()
    assert result.get(timeout=60) == 3


def test_only_the_last_of_two_attempts_is_told_when_both_end_at_once(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[int] = []

    def hear(result: int, **_: Any) -> None:
        told.append(result)

    pool.thread.start()
    result = pool.task.delay()
    pool.wait_for((result.id, 1))
    pool.take_away()
    other = pool.task.delay()
    pool.wait_for((result.id, 1), (result.id, 2), (other.id, 1))
    signals.task_success.connect(hear)
    try:
        with transaction.atomic():
            pool.task.apply_async(countdown=3600)  # until this is committed, nobody else writes
            _gates[other.id, 1].set()
            eventually(lambda: len(pool.roster.runs()) == 2)
            _gates[result.id, 1].set()
            _gates[result.id, 2].set()
            eventually(lambda: not pool.roster.runs())
        assert (other.get(timeout=60), result.get(timeout=60)) == (1, 2)
        eventually(lambda: len(told) == 2)
    finally:
        signals.task_success.disconnect(hear)
    assert sorted(told) == [1, 2]
    assert caplog.text.count("its outcome is dropped") == 1
