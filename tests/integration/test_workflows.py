"""What becomes of workflows when processes die."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from django_tasks import chain, chord, group, states
from django_tasks.models import Task, TaskResult
from tests.eventually import eventually
from tests.integration.site import PATIENCE, SHORT_LEASE, Site, Worker
from tests.integration.workflow_jobs import bad_part, part, shaky_part, told, total

#: How many times all faults are gone through.
ROUNDS = int(os.environ.get("WORKFLOW_ROUNDS", "1"))
SETTINGS: dict[str, Any] = {
    **SHORT_LEASE,
    "TASK_MAX_WORKER_LOSSES": 1_000,
    "IMPORTS": ["tests.integration.jobs", "tests.integration.workflow_jobs"],
}
WIDTH, LENGTH, EACH = 12, 6, 4


def kill_a_child(worker: Worker) -> None:
    eventually(worker.children)[0].kill()


def kill_all_children(worker: Worker) -> None:
    for child in eventually(worker.children):
        child.kill()


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_workflows_end_in_order_wherever_a_kill_falls(site: Site) -> None:
    """R6, R7, R27: each body runs with every result of its header, each step of a chain once more than it was struck at
    most, an errback is told once of what failed, and nothing is left waiting."""
    chords, broken, chains = [], [], []
    worker = site.start(**SETTINGS)
    faults: list[Callable[[Worker], None]] = [kill_a_child, kill_all_children, Worker.kill_tree]
    for fault in faults * ROUNDS:
        begun = len(site.journal("start"))
        for _ in range(EACH):
            chords.append(chord([part.s(number) for number in range(WIDTH)] + [shaky_part.s(WIDTH)])(total.s()))
            broken.append(chord([part.s(1), bad_part.s(2), part.s(3)], total.s()).on_error(told.s()).apply_async())
            steps = (shaky_part.s() if number % 3 == 2 else part.s() for number in range(LENGTH - 1))
            chains.append(chain(part.s(0), *steps, group(part.s(), part.s()), total.s()).apply_async())
        site.wait_for_entries(begun + WIDTH, "start")
        fault(worker)
        if fault is Worker.kill_tree:
            worker = site.start(**SETTINGS)
    # What a killed worker released and did not publish in Redis is found by a sweeper, and that may take its turn.
    site.wait_for(lambda: not Task.objects.exists(), timeout=2 * PATIENCE, message="something is left waiting")

    assert {one.get(timeout=0) for one in chords} == {sum(range(1, WIDTH + 2))}
    assert {one.get(timeout=0) for one in chains} == {2 * (LENGTH + 1)}
    assert {one.state for one in broken} == {states.FAILURE}
    lines = Counter(TaskResult.objects.values_list("name", "state"))
    count = EACH * len(faults) * ROUNDS
    assert lines[total.name, states.SUCCESS] == 2 * count
    assert lines[total.name, states.FAILURE] == count
    assert lines[bad_part.name, states.FAILURE] == count
    assert lines[told.name, states.SUCCESS] == count
    assert lines[shaky_part.name, states.SUCCESS] == count * (1 + (LENGTH - 1) // 3)
    assert sum(lines.values()) == TaskResult.objects.count()
    of_errbacks = TaskResult.objects.filter(name=told.name).values_list("result", flat=True)
    assert {(result or "").partition("(")[0] for result in of_errbacks} == {'"total: ChordError'}
    starts = Counter(entry.task_id for entry in site.journal("start"))
    retried = {str(key) for key in TaskResult.objects.filter(retries__gt=0).values_list("pk", flat=True)}
    assert max(starts[one] - (2 if one in retried else 0) for one in starts) <= 1 + len(faults) * ROUNDS
