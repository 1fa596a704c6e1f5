"""The memory that a child with many tasks shares with its supervisor."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

from django_tasks.backends.message import Delivery
from django_tasks.worker.roster import Roster


def delivery(attempt: int = 1) -> Delivery:
    return Delivery(id=str(uuid.uuid4()), attempt=attempt, name="some.task", queue="q", priority=0, body="[[],{}]")


def test_what_waits_runs_and_has_run_is_told_exactly() -> None:
    roster = Roster(3)
    assert (roster.busy, roster.room, roster.runs()) == (False, 3, [])
    waits, runs, ran = delivery(), delivery(attempt=7), delivery()
    places = {one.id: roster.add(one) for one in (waits, runs, ran)}
    assert (roster.busy, roster.room) == (True, 0)
    before = time.monotonic()
    roster.start(places[runs.id])
    roster.start(places[ran.id])
    roster.end(places[ran.id])
    [running] = roster.runs()
    assert running[:2] == (runs.id, 7)
    assert before <= running.since <= time.monotonic()
    assert roster.unstarted() == [(waits.id, 1)]
    assert roster.unstarted(longer_than=60) == []
    assert set(roster.begun()) == {(runs.id, 7), (ran.id, 1)}
    for place in places.values():
        roster.remove(place)
    assert (roster.busy, roster.room, roster.begun(), roster.unstarted()) == (False, 3, [], [])


def test_a_task_that_was_claimed_again_is_held_by_its_last_attempt_alone() -> None:
    roster = Roster(2)
    first = delivery()
    again = replace(first, attempt=2)
    last, before = roster.add(again), roster.add(first)
    roster.start(before)
    assert [run[:2] for run in roster.runs()] == [(first.id, 1)]
    assert (roster.unstarted(), roster.begun()) == ([(first.id, 2)], [])
    roster.start(last)
    assert (roster.unstarted(), roster.begun()) == ([], [(first.id, 2)])


def test_a_place_can_be_used_again() -> None:
    roster = Roster(1)
    for _ in range(3):
        one = delivery()
        place = roster.add(one)
        roster.start(place)
        assert [running.id for running in roster.runs()] == [one.id]
        roster.remove(place)


def test_a_time_limit_is_told_with_its_moment() -> None:
    roster = Roster(1)
    place = roster.add(delivery())
    roster.start(place)
    assert roster.runs()[0].limit == 0
    roster.limit(place, 5.0, 0.5)
    [running] = roster.runs()
    assert running.limit == 5.0
    assert 5.4 < running.deadline - running.since < 6.5
    roster.limit(place, None)
    assert roster.runs()[0].limit == 0
