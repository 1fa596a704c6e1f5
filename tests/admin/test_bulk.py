"""Actions on all that match: how they begin, go on in the background, are stopped, and survive whatever happens."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied
from django.test import Client, override_settings

from django_tasks import actions, audit, bulk, limits, operations, search, states
from django_tasks.models import BulkOperation, IntervalSchedule, PeriodicRun, PeriodicTask, Task, TaskResult
from django_tasks.models import Worker as WorkerRow
from tests.admin.conftest import Browser
from tests.admin.pages import list_url, page_url, read, text_of
from tests.cockpit.site_rows import a_worker
from tests.databases import TestDatabase
from tests.inprocess import Worker
from tests.rows import KNOWN, ago, failure, finished, saved, waiting

#: Failures that are run again and stopped half-way.
MANY = int(os.environ.get("BULK_ROWS", "1500"))


def begin(client: Client, model: str, action: str, query: str = "", **fields: str) -> BulkOperation:
    """Take an action on all that a list finds; return the operation."""
    order = {"action": action, "select_across": "on", "post": "yes", **fields}
    answer = client.post(f"{list_url(model)}{query}", order)
    operation = BulkOperation.objects.latest("pk")
    assert answer.headers["Location"] == page_url("bulkoperation", operation.pk)
    return operation


def again(operation: BulkOperation) -> BulkOperation:
    return BulkOperation.objects.get(pk=operation.pk)


def test_the_question_tells_how_many_there_are_before_anything_happens(root: Client, database: TestDatabase) -> None:
    saved([*(failure() for _ in range(130)), *(finished() for _ in range(7))])
    ask = {"action": "retry", "select_across": "on"}
    page = text_of(root.post(f"{list_url('taskresult')}?state=FAILURE", ask).content.decode())
    assert "130 rows." in page
    assert "in the background" in page
    assert not Task.objects.exists()
    assert not BulkOperation.objects.exists()


def test_a_worker_does_it_and_only_to_what_was_found_then(root: Client, database: TestDatabase) -> None:
    wanted = saved(failure(queue="mail") for _ in range(30))
    saved([failure(queue="other"), finished(queue="mail")])
    operation = begin(root, "taskresult", "retry", "?state=FAILURE&q=queue:mail")
    assert (operation.total, operation.state) == (30, "waiting")
    saved([failure(queue="mail", seconds_ago=-5)])  # later
    Worker("default").drain(hurry=False)
    operation = again(operation)
    assert (operation.state, operation.changed, operation.left) == ("done", 30, 0)
    copies = Task.objects.filter(queue="mail")
    assert {display_of(copy) for copy in copies} == {str(row.pk) for row in wanted}
    page = " ".join(text_of(read(root, page_url("bulkoperation", operation.pk))).split())
    assert "30 of 30 rows" in page
    assert "queue:mail" in page
    lines = LogEntry.objects.filter(content_type__model="taskresult", change_message__startswith="Run again as")
    assert lines.count() == 30, "the history of each row"


def display_of(copy: Task) -> Any:
    return copy.option_values[operations.RETRY_OF]


def test_a_bulk_retry_is_stopped_half_way_and_goes_on_where_it_was(root: Client, database: TestDatabase) -> None:
    """No row is left out, and none is taken twice."""
    saved(failure(queue="mail") for _ in range(MANY))
    operation = begin(root, "taskresult", "retry", "?state=FAILURE")
    while again(operation).seen < MANY // 2:
        bulk.step(operation.pk)
    said = root.post(page_url("bulkoperation", operation.pk).replace("change", "abort"), follow=True)
    assert "Asked to stop" in text_of(said.content.decode())
    stopped = bulk.work(operation.pk)
    assert stopped is not None
    assert (stopped.state, stopped.aborted_by) == ("aborted", "nobody")
    assert stopped.changed == Task.objects.filter(queue="mail").count() < MANY
    assert bulk.work(operation.pk) == stopped, "nothing happens any more"
    root.post(page_url("bulkoperation", operation.pk).replace("change", "resume"))
    done = bulk.work(operation.pk, seconds=3_600)
    assert done is not None
    assert (done.state, done.changed, done.left) == ("done", MANY, 0)
    copies = [display_of(copy) for copy in Task.objects.filter(queue="mail").only("options")]
    assert len(copies) == len(set(copies)) == MANY


@pytest.mark.databases("sqlite", "postgresql")
def test_a_batch_that_breaks_off_leaves_nothing_behind(
    root: Client, database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(failure(queue="mail") for _ in range(60))
    operation = begin(root, "taskresult", "retry")
    bulk.step(operation.pk, 20)
    with monkeypatch.context() as broken:

        def crash(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("the process dies here")

        broken.setattr(audit, "record", crash)
        with pytest.raises(RuntimeError):
            bulk.step(operation.pk, 20)
        assert Task.objects.filter(queue="mail").count() == 20
        with pytest.raises(RuntimeError):
            bulk.work(operation.pk)
    failed = again(operation)
    assert (failed.state, failed.error) == ("failed", "RuntimeError: the process dies here")
    assert "the process dies here" in read(root, page_url("bulkoperation", operation.pk))
    assert bulk.resume(failed)
    bulk.work(operation.pk)
    assert (again(operation).state, Task.objects.filter(queue="mail").count()) == ("done", 60)


@pytest.mark.databases("sqlite")
def test_what_is_left_alone_is_counted_by_reason(root: Client) -> None:
    rows = saved([failure() for _ in range(5)])
    operations.retry([str(rows[0].pk)])
    operation = begin(root, "taskresult", "retry")
    bulk.work(operation.pk)
    page = " ".join(text_of(read(root, page_url("bulkoperation", operation.pk))).split())
    assert (again(operation).changed, again(operation).left) == (4, 1)
    assert "Left alone, because a copy of it is not done yet 1" in page


@pytest.mark.databases("sqlite")
def test_without_a_worker_a_person_goes_on_bit_by_bit(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(waiting(queue="mail") for _ in range(120))
    operation = begin(root, "task", "move", "?queue=mail", queue="other")
    page = page_url("bulkoperation", operation.pk)
    assert "No worker is online" in read(root, page)
    root.post(page.replace("change", "work"))
    while again(operation).is_active:
        root.post(page.replace("change", "work"))
    assert Task.objects.filter(queue="other").count() == 120
    assert "Go on here" not in read(root, page)


@pytest.mark.databases("sqlite")
def test_the_task_goes_where_somebody_takes_it(root: Client) -> None:
    saved([waiting(queue="mail")])
    worker = Worker("slow")
    begin(root, "task", "cancel", "?queue=mail")
    sent = Task.objects.get(name=bulk.TASK_NAME)
    assert (sent.queue, sent.priority) == ("slow", bulk.PRIORITY)
    worker.drain(hurry=False)
    assert again(BulkOperation.objects.get()).state == "done"


@pytest.mark.databases("sqlite")
def test_who_may_not_any_more_is_refused_in_the_background(root: Client) -> None:
    saved([failure()])
    operation = begin(root, "taskresult", "delete")
    User.objects.update(is_superuser=False)
    with pytest.raises(PermissionDenied):
        bulk.work(operation.pk)
    assert again(operation).state == "failed"
    assert TaskResult.objects.exists()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("action", actions.ACTIONS, ids=lambda one: one.name)
def test_every_action_can_be_taken_on_all(root: Client, action: actions.Action) -> None:
    saved(waiting(queue="mail", due_at=waiting().due_at.replace(year=2099)) for _ in range(3))
    saved(failure(queue="mail") for _ in range(3))
    told = {"signal": "SIGTERM", "priority": "9", "eta_0": "2098-01-01", "eta_1": "00:00"}
    operation = begin(root, str(action.model._meta.model_name), action.name, "?queue=mail", **told)
    bulk.work(operation.pk)
    assert (again(operation).state, again(operation).changed) == ("done", 3)


@pytest.mark.databases("sqlite")
def test_an_operation_is_for_who_asked_and_who_may_see_all(browser: Browser) -> None:
    saved([waiting(name=KNOWN), waiting(state=states.WAITING)])
    anna = browser("view_task", "cancel_task", username="anna")
    other = browser("view_task", "cancel_task", username="ben")
    viewer = browser("view_bulkoperation", username="eve")
    operation = begin(anna, "task", "cancel")
    page = page_url("bulkoperation", operation.pk)
    assert anna.get(page).status_code == 200
    assert viewer.get(page).status_code == 200
    assert other.get(page).status_code != 200
    for client in (viewer, other):
        for order in ("abort", "work", "resume"):
            assert client.post(page.replace("change", order)).status_code in (403, 404)
    assert anna.get(page.replace("change", "abort")).status_code == 403, "reading changes nothing"
    assert again(operation).abort_at is None


@pytest.mark.databases("sqlite")
def test_the_live_part_is_sent_only_when_it_changed(root: Client) -> None:
    saved(waiting() for _ in range(3))
    operation = begin(root, "task", "cancel")
    url = f"{page_url('bulkoperation', operation.pk)}?fragment=1"
    first = root.get(url)
    assert "<html" not in first.content.decode()
    assert root.get(url, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    bulk.work(operation.pk)
    assert root.get(url, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def all_or_nothing(request: Any, rows: Any) -> Any:
    return rows if request.user.is_superuser else rows.none()


@pytest.mark.databases("sqlite")
def test_nobody_goes_on_with_what_only_another_person_may_see(browser: Browser, root: Client, settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": f"{__name__}.all_or_nothing"}
    saved([waiting(queue="mail")])
    operation = begin(root, "task", "cancel")
    anna = browser("view_bulkoperation", "view_task", "cancel_task", username="anna")
    page = page_url("bulkoperation", operation.pk)
    assert anna.post(page.replace("change", "work")).status_code == 403
    assert "Go on here" not in read(anna, page)
    assert anna.post(page.replace("change", "abort")).status_code == 302
    bulk.work(operation.pk)
    assert again(operation).state == "aborted"
    assert "Continue" not in read(anna, page)
    assert anna.post(page.replace("change", "resume")).status_code == 403
    assert again(operation).state == "aborted"
    assert root.post(page.replace("change", "resume")).status_code == 302
    assert again(operation).state != "aborted"


@pytest.mark.databases("sqlite")
def test_an_operation_can_be_stopped_while_it_is_read_only(root: Client, settings: Any) -> None:
    saved([waiting()])
    operation = begin(root, "task", "cancel")
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": True}
    page = page_url("bulkoperation", operation.pk)
    assert "../abort/" in read(root, page)
    assert "../work/" not in read(root, page)
    assert root.post(page.replace("change", "work")).status_code == 403
    assert root.post(page.replace("change", "abort")).status_code == 302
    assert again(operation).abort_at is not None


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("lost", ["is_staff", "is_active"])
def test_who_may_not_enter_the_admin_any_more_is_refused_in_the_background(root: Client, lost: str) -> None:
    saved([failure()])
    operation = begin(root, "taskresult", "delete")
    User.objects.update(**{lost: False})
    with pytest.raises(PermissionDenied):
        bulk.work(operation.pk)
    assert again(operation).state == "failed"
    assert TaskResult.objects.exists()


def is_nobody_special(request: Any) -> bool:
    return not request.user.is_superuser


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("setting", [True, f"{__name__}.is_nobody_special"])
def test_an_operation_waits_while_it_is_read_only_and_can_go_on_afterwards(
    root: Client, settings: Any, setting: Any
) -> None:
    User.objects.update(is_superuser=False)
    User.objects.get().user_permissions.set(
        Permission.objects.filter(codename__in=("view_taskresult", "delete_taskresult"))
    )
    saved([failure()])
    operation = begin(root, "taskresult", "delete")
    before = settings.DJANGO_TASKS
    settings.DJANGO_TASKS = {**before, "ADMIN_READ_ONLY": setting}
    with pytest.raises(PermissionDenied):
        bulk.work(operation.pk)
    assert again(operation).state == "failed"
    assert "read-only at present" in text_of(read(root, page_url("bulkoperation", operation.pk)))
    assert TaskResult.objects.exists()
    settings.DJANGO_TASKS = before
    root.post(page_url("bulkoperation", operation.pk).replace("change", "resume"))
    bulk.work(operation.pk)
    assert again(operation).state == "done"
    assert not TaskResult.objects.exists()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("before", [5, 30])
def test_what_comes_meanwhile_pushes_nothing_out_of_what_was_looked_through(
    root: Client, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """What no index finds is looked for in the newest rows: in those that were the newest then."""
    monkeypatch.setattr(search, "SCANNED", 20)
    saved(failure(body='[["needle"],{}]') for _ in range(before))
    operation = begin(root, "taskresult", "delete", "?q=args:needle")
    assert operation.total == min(before, 20)
    saved(finished(seconds_ago=-5) for _ in range(25))
    bulk.work(operation.pk, batch=3)
    assert (again(operation).state, again(operation).changed) == ("done", min(before, 20))


@pytest.mark.databases("sqlite")
def test_runs_and_workers_that_come_meanwhile_push_none_out(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_IDS", 2)
    schedule = IntervalSchedule.objects.create(every=1, period="minutes")
    nightly = PeriodicTask.objects.create(name="nightly", task=KNOWN, interval=schedule)
    rows = saved([waiting(), waiting()])

    def runs(tasks: list[Any], seconds: int) -> None:
        moment = ago(seconds)
        PeriodicRun.objects.bulk_create(
            PeriodicRun(periodic_task=nightly, scheduled_for=moment, created_at=moment, task_id=row.pk) for row in tasks
        )

    runs(rows, 60)
    operation = begin(root, "task", "cancel", "?q=periodic:nightly")
    runs(saved([waiting(), waiting()]), -5)
    bulk.work(operation.pk)
    assert again(operation).changed == 2
    assert set(TaskResult.objects.values_list("pk", flat=True)) == {row.pk for row in rows}


@pytest.mark.databases("sqlite")
def test_the_task_goes_past_a_queue_that_is_paused_or_excluded(root: Client) -> None:
    saved([waiting(queue="mail")])
    worker = Worker()
    limits.pause("queue", "default", by="anna")
    begin(root, "task", "cancel", "?queue=mail")
    sent = Task.objects.get(name=bulk.TASK_NAME)
    assert sent.queue == bulk.TASK_NAME
    worker.drain(hurry=False)
    assert again(BulkOperation.objects.get()).state == "done"
    WorkerRow.objects.all().delete()
    limits.resume("queue", "default")
    a_worker("w1", queues="* -default")
    saved([waiting(queue="mail")])
    begin(root, "task", "cancel", "?queue=mail")
    assert Task.objects.get(name=bulk.TASK_NAME).queue == bulk.TASK_NAME


@pytest.mark.databases("sqlite")
def test_the_page_says_why_nothing_happens_and_lets_people_go_on_there(root: Client) -> None:
    saved(waiting(queue="mail") for _ in range(3))
    a_worker("w1", queues="default")
    operation = begin(root, "task", "cancel", "?queue=mail")
    page = page_url("bulkoperation", operation.pk)
    assert "Nothing happens" not in read(root, page)
    assert "../work/" not in read(root, page)
    limits.pause("queue", "default", by="anna")
    said = " ".join(text_of(read(root, page)).split())
    assert "Nothing happens: its task waits in the queue default, and is paused." in said
    assert "../work/" in read(root, page)
    limits.resume("queue", "default")
    WorkerRow.objects.update(queues="mail")
    said = " ".join(text_of(read(root, page)).split())
    assert "in the queue default, from which no running worker takes tasks." in said
    Task.objects.filter(name=bulk.TASK_NAME).delete()
    assert "its task was cancelled or deleted" in text_of(read(root, page))
    root.post(page.replace("change", "work"))
    root.post(page.replace("change", "work"))
    assert again(operation).state == "done"
    assert "Nothing happens" not in read(root, page)


@pytest.mark.databases("sqlite")
def test_looking_at_an_operation_keeps_no_session_alive(root: Client) -> None:
    saved([waiting()])
    page = page_url("bulkoperation", begin(root, "task", "cancel").pk)
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        assert "sessionid" in root.get(page).cookies
        assert "sessionid" not in root.get(f"{page}?fragment=1").cookies


@pytest.mark.databases("sqlite")
def test_ones_own_operations_are_found_again(browser: Browser) -> None:
    """Without the permission to see those of others."""
    saved([waiting()])
    anna = browser("view_task", "cancel_task", username="anna")
    ben = browser("view_task", "cancel_task", username="ben")
    operation = begin(anna, "task", "cancel")
    page = page_url("bulkoperation", operation.pk)
    assert page in read(anna, list_url("bulkoperation"))
    assert list_url("bulkoperation") in read(anna, "/admin/")
    assert page not in read(ben, list_url("bulkoperation"))
    assert browser("view_task", username="eve").get(list_url("bulkoperation")).status_code == 403
