"""Where a project lets people see only some tasks, running one again takes no other along."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from django_tasks import bulk, chain, chord
from django_tasks.models import BulkOperation, Task, TaskResult
from tests.admin.conftest import Browser
from tests.admin.pages import list_url, page_url, read, text_of
from tests.app.tasks import add, fail
from tests.canvas.jobs import summed
from tests.databases import TestDatabase
from tests.inprocess import Worker

LEFT = "it would run again with tasks that you may not see"


def of_tenant(request: Any, rows: Any) -> Any:
    """Only the queue that has a person's name."""
    return rows if request.user.is_superuser else rows.filter(queue=request.user.get_username())


@pytest.fixture
def anna(browser: Browser, settings: Any) -> Client:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": f"{__name__}.of_tenant"}
    permissions = ("view_task", "view_taskresult", "retry_taskresult", "enqueue_task", "view_payload")
    return browser(*permissions, username="anna")


def failed_chain(first: str, second: str) -> tuple[TaskResult, TaskResult]:
    """Return a failure in one queue, and what was not run because of it in another one."""
    chain(fail.si("boom").set(queue=first), add.si(1, 1).set(queue=second)).apply_async()
    Worker(first, second).drain()
    return TaskResult.objects.get(name=fail.name), TaskResult.objects.get(name=add.name)


def retry(client: Client, row: TaskResult, **more: str) -> str:
    order = {"action": "retry", "_selected_action": str(row.pk), "post": "yes", **more}
    return text_of(client.post(list_url("taskresult"), order, follow=True).content.decode())


def test_what_failed_before_ones_own_task_is_not_run_again_with_it(database: TestDatabase, anna: Client) -> None:
    """S8: the list, the page of the row, and all that match."""
    _others, mine = failed_chain("ben", "anna")
    assert LEFT in retry(anna, mine)
    assert LEFT in retry(anna, mine, **{"from": "page"})
    anna.post(list_url("taskresult"), {"action": "retry", "select_across": "1", "post": "yes"})
    operation = BulkOperation.objects.get()
    bulk.work(operation.pk)
    assert LEFT in text_of(read(anna, page_url("bulkoperation", operation.pk)))
    assert not Task.objects.exclude(name=bulk.TASK_NAME).exists()


@pytest.mark.databases("sqlite")
def test_what_was_not_run_because_of_ones_own_task_is_not_run_with_it(anna: Client) -> None:
    mine, _others = failed_chain("anna", "ben")
    assert LEFT in retry(anna, mine)
    edit = page_url("taskresult", mine.pk).replace("change", "edit")
    said = text_of(anna.post(edit, {"args": '["again"]', "kwargs": "{}"}, follow=True).content.decode())
    assert f"Not sent, because {LEFT}." in said
    assert not Task.objects.exists()


@pytest.mark.databases("sqlite")
def test_what_still_waits_for_ones_own_task_does_not_wait_for_its_copy(anna: Client, root: Client) -> None:
    header = [fail.si("boom").set(queue="anna"), add.si(1, 1).set(queue="ben")]
    chord(header)(summed.s().set(queue="ben"))
    Worker("anna").drain()
    mine, body = TaskResult.objects.get(), Task.objects.get(name=summed.name)
    assert LEFT in retry(anna, mine)
    assert Task.objects.get(pk=body.pk).options == body.options
    assert "Run again as" in retry(root, mine)
    assert Task.objects.get(pk=body.pk).options != body.options, "it takes in what the copy gives"


@pytest.mark.databases("sqlite")
def test_ones_own_tasks_run_again_together_and_beside_those_of_others(anna: Client, root: Client) -> None:
    _failed, mine = failed_chain("anna", "anna")
    assert "Run again as" in retry(anna, mine)
    assert set(Task.objects.values_list("name", "queue")) == {(fail.name, "anna"), (add.name, "anna")}
    Task.objects.all().delete()
    TaskResult.objects.all().delete()
    _failed, others = failed_chain("ben", "anna")
    assert "Run again as" in retry(root, others), "who sees all of it"
    assert set(Task.objects.values_list("name", "queue")) == {(fail.name, "ben"), (add.name, "anna")}
