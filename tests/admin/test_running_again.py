"""Running finished tasks again: once, however many people ask at the same time, and as they were sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction

from django_tasks import operations, shared_task
from django_tasks.models import Task, TaskResult
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.inprocess import Worker
from tests.rows import failure, saved


@shared_task
def fail() -> None:
    raise ValueError("no")


def test_people_who_run_a_task_again_at_the_same_time_send_one_copy(database: TestDatabase) -> None:
    together = threading.Barrier(3)

    def run_again(task_id: str) -> operations.Retried:
        try:
            together.wait(60)
            return operations.retry([task_id])
        finally:
            connections.close_all()

    for _ in range(5):
        [row] = saved([failure()])
        with ThreadPoolExecutor(3) as people:
            found = list(people.map(run_again, [str(row.pk)] * 3))
        assert sorted(len(one.copies) for one in found) == [0, 0, 1]
        assert sorted(len(one.queued) for one in found) == [0, 1, 1]
    assert Task.objects.count() == 5


def test_a_copy_that_ends_while_somebody_waits_for_his_turn_counts(database: TestDatabase) -> None:
    [row] = saved([failure()])
    waiting = threading.Event()
    found: list[operations.Retried] = []

    def tell(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if "FOR UPDATE" in sql or sql.startswith("BEGIN"):  # SQLite has one lock
            waiting.set()
        return execute(sql, params, many, context)

    def run_again() -> None:
        try:
            with connections[database.alias].execute_wrapper(tell):
                found.append(operations.retry([str(row.pk)]))
        finally:
            connections.close_all()

    other = threading.Thread(target=run_again)
    with transaction.atomic():
        [copy] = operations.retry([str(row.pk)]).copies.values()
        other.start()
        assert waiting.wait(60)
        assert operations.revoke([copy]).cancelled == [copy]
    other.join(60)
    assert [(one.copies, one.queued) for one in found] == [({}, [str(row.pk)])]
    assert eventually(lambda: operations.retry([str(row.pk)]).copies), "a copy that ended before is no obstacle"


@pytest.mark.parametrize("acks_late", [True, False, None])
@pytest.mark.databases("sqlite")
def test_a_copy_may_run_as_often_as_the_call_said(database: TestDatabase, acks_late: bool | None) -> None:
    fail.apply_async(acks_late=acks_late)
    assert Task.objects.get().at_most_once is (acks_late is False)
    worker = Worker()
    for _ in range(2):  # also the copy of a copy
        worker.drain()
        last = TaskResult.objects.order_by("-finished_at")[0]
        operations.retry([str(last.pk)])
        assert Task.objects.get().at_most_once is (acks_late is False)
