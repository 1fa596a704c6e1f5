"""Running a failed task of a workflow again: what was not run because of it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import AsyncResult, chain, chord, group, operations, shared_task, states
from django_tasks.models import Edge, Task
from tests.canvas.jobs import add, note_error, notes, summed, total
from tests.databases import TestDatabase
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")

#: Whether :func:`fragile` fails.
broken: set[int] = set()


@shared_task
def fragile(value: int) -> int:
    if value in broken:
        raise ValueError(f"{value} is broken")
    return value


@pytest.fixture
def worker(database: TestDatabase) -> Worker:
    broken.clear()
    return Worker()


def ended(task_id: str) -> Any:
    return AsyncResult(task_id).get(timeout=0, follow_parents=False)


def test_a_chain_goes_on_behind_a_task_that_is_run_again(worker: Worker) -> None:
    broken.add(1)
    result = chain(fragile.s(1), add.s(10), add.s(100)).apply_async()
    worker.drain()
    broken.clear()
    done = operations.retry([result.parent.parent.id])
    assert list(done.copies) == [result.parent.parent.id]
    worker.drain()
    copies = operations.retried_as(result.id)
    assert [ended(one) for one in copies] == [111]
    assert not Task.objects.exists()
    assert not Edge.objects.exists()


def test_a_chords_body_runs_when_the_failed_one_of_its_header_succeeds_at_last(worker: Worker) -> None:
    broken.add(2)
    result = chord([fragile.s(number) for number in range(4)])(total.s())
    worker.drain()
    broken.clear()
    operations.retry([result.parent[2].id])
    worker.drain()
    assert [ended(one) for one in operations.retried_as(result.id)] == [6]


def test_a_body_that_still_waits_takes_the_copy_in(worker: Worker) -> None:
    broken.add(1)
    result = chord([fragile.s(1), fragile.s(2)])(summed.s())
    worker.step()
    assert AsyncResult(result.parent[0].id).state == states.FAILURE
    broken.clear()
    operations.retry([result.parent[0].id])
    worker.drain()
    assert ended(result.id) == ["sum", [1, 2]]
    assert not Edge.objects.exists()


def test_two_of_a_header_are_run_again_one_after_the_other(worker: Worker) -> None:
    broken.update({1, 2})
    result = chord([fragile.s(1), fragile.s(2), fragile.s(3)])(total.s())
    worker.drain()
    broken.remove(1)
    operations.retry([result.parent[0].id])
    worker.drain()
    [second] = operations.retried_as(result.id)
    assert AsyncResult(second).state == states.FAILURE
    broken.clear()
    operations.retry([result.parent[1].id])
    worker.drain()
    assert [ended(one) for one in operations.retried_as(second)] == [6]


def test_running_again_what_was_not_run_begins_with_what_failed(worker: Worker) -> None:
    broken.add(1)
    result = chain(fragile.s(1), add.s(10)).apply_async()
    worker.drain()
    broken.clear()
    done = operations.retry([result.id])
    worker.drain()
    assert ended(done.copies[result.id]) == 11


def test_a_group_onto_a_group_goes_on(worker: Worker) -> None:
    broken.add(1)
    result = (group(fragile.s(1), fragile.s(2)) | group(summed.s(), summed.s()) | summed.s()).apply_async()
    worker.drain()
    broken.clear()
    operations.retry_workflow(_root(result))
    worker.drain()
    [copy] = operations.retried_as(result.id)
    assert ended(copy) == ["sum", [["sum", [1, 2]], ["sum", [1, 2]]]]


def test_a_copy_that_fails_again_tells_the_errbacks_again(worker: Worker) -> None:
    broken.add(1)
    result = chain(fragile.s(1), add.s(10)).on_error(note_error.s()).apply_async()
    worker.drain()
    operations.retry([result.parent.id])
    worker.drain()
    assert len(notes) == 2
    assert not Task.objects.exists()


def test_a_workflow_is_counted_by_state(worker: Worker) -> None:
    broken.add(1)
    result = chain(group(fragile.s(1), fragile.s(2)), total.s(), add.s(1)).apply_async()
    root = _root(result)
    assert operations.progress(root).states == {"PENDING": 2, "WAITING": 2}
    worker.drain()
    progress = operations.progress(root)
    assert progress.states == {"SUCCESS": 1, "FAILURE": 3}
    assert (progress.finished, progress.total) == (4, 4)


def test_a_workflow_is_revoked_as_a_whole(worker: Worker) -> None:
    result = chain(add.s(1), group(add.s(1), add.s(2)), total.s()).apply_async()
    worker.step()
    done = operations.revoke_workflow(_root(result))
    assert len(done.cancelled) == 3
    assert result.state == states.REVOKED
    assert not Task.objects.exists()


def _root(result: Any) -> str:
    first = result
    while first.parent is not None:
        first = first.parent
    return str(first.id if isinstance(first, AsyncResult) else first[0].id)
