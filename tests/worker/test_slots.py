"""The memory that a child shares with its supervisor."""

from __future__ import annotations

import os
import time
import uuid

import pytest

from django_tasks.backends.message import Delivery
from django_tasks.worker.slots import CAPACITY, Slot
from tests.eventually import eventually


def deliveries(count: int, attempt: int = 1) -> list[Delivery]:
    return [
        Delivery(id=str(uuid.uuid4()), attempt=attempt, name="some.task", queue="default", priority=0, body="[[],{}]")
        for _ in range(count)
    ]


def test_a_fresh_slot_runs_and_holds_nothing() -> None:
    slot = Slot()
    assert slot.running() is None
    assert slot.unstarted() == []
    assert slot.processed == 0
    assert slot.silent_for < 60


def test_what_runs_and_what_waits_behind_it_are_told_exactly() -> None:
    slot, held = Slot(), deliveries(3, attempt=7)
    slot.load(held)
    assert slot.running() is None
    assert slot.unstarted() == [], "the child itself gives back what it has not begun"
    before = time.monotonic()
    slot.start(1, 3, 7)
    running = slot.running()
    assert running is not None
    assert running[:2] == (held[1].id, 7)
    assert before <= running.since <= time.monotonic()
    assert slot.unstarted() == [(held[2].id, 7)]
    slot.stop(3)
    assert slot.running() is None


def test_what_has_begun_is_told_until_the_next_batch() -> None:
    """R32: what may run only once is not given back when its outcome was lost with the process."""
    slot, held = Slot(), deliveries(3)
    assert slot.begun() == []
    slot.load(held)
    slot.start(1, 3, 1)
    assert slot.begun() == [(held[0].id, 1), (held[1].id, 1)]
    slot.stop(3)
    assert slot.begun() == [(one.id, 1) for one in held], "between tasks nobody knows which of them ran"


def test_a_full_slot_keeps_every_id() -> None:
    slot, held = Slot(), deliveries(CAPACITY)
    slot.load(held)
    slot.start(0, CAPACITY, 1)
    assert slot.unstarted() == [(one.id, 1) for one in held[1:]]
    slot.start(CAPACITY - 1, CAPACITY, 1)
    assert slot.unstarted() == []
    running = slot.running()
    assert running is not None
    assert running.id == held[-1].id


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_supervisor_reads_what_its_child_wrote_also_when_the_child_is_dead() -> None:
    slot, held = Slot(), deliveries(2)
    pid = os.fork()
    if pid == 0:
        slot.load(held)
        slot.start(0, 2, 1)
        slot.count(41)
        os._exit(0)
    os.waitpid(pid, 0)
    running = slot.running()
    assert running is not None
    assert running.id == held[0].id
    assert slot.unstarted() == [(held[1].id, 1)]
    assert slot.processed == 41


def test_silence_ends_with_a_sign_of_life() -> None:
    slot = Slot()
    eventually(lambda: slot.silent_for > 0.05)
    silence = slot.silent_for
    slot.beat()
    assert slot.silent_for < silence
