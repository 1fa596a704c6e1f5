"""Who may do what: every page and action, for every kind of person, and not by hiding buttons."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from django_tasks import actions, bulk
from django_tasks.models import BulkOperation, Task, TaskResult, Worker
from tests.admin.conftest import Browser
from tests.admin.pages import ids_in, list_url, page_url, read
from tests.databases import TestDatabase
from tests.rows import ago, failure, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

#: Person to permissions.
PEOPLE: dict[str, tuple[str, ...]] = {
    "nobody": (),
    "reader": ("view_task", "view_taskresult", "view_worker"),
    "payloads only": ("view_payload",),
    "retrier": ("view_task", "view_taskresult", "retry_taskresult"),
    "blind retrier": ("retry_taskresult", "retry_task"),
    "canceller": ("view_task", "view_taskresult", "cancel_task"),
    "killer": ("view_task", "view_taskresult", "terminate_task"),
    "dispatcher": ("view_task", "view_taskresult", "reschedule_task"),
    "sender": ("view_task", "view_taskresult", "enqueue_task", "retry_taskresult", "view_payload"),
    "cleaner": ("view_task", "view_taskresult", "delete_taskresult", "delete_task", "delete_worker"),
    # Django's own permissions to add and change mean nothing here.
    "editor": tuple(f"{verb}_{model}" for verb in ("add", "change") for model in ("task", "taskresult", "worker")),
}


@pytest.fixture
def rows(database: TestDatabase) -> dict[str, Any]:
    worker = Worker.objects.create(
        name="w1@h", hostname="h", pid=1, pool="prefork", concurrency=1, queues="*", version="1", lease=20.0,
        started_at=ago(9), beat_at=ago(1),
    )  # fmt: skip
    return {"task": saved([waiting()])[0], "taskresult": saved([failure()])[0], "worker": worker}


@pytest.mark.parametrize("person", PEOPLE)
def test_pages_are_for_those_who_may_see_them(person: str, browser: Browser, rows: dict[str, Any]) -> None:
    """S8."""
    client = browser(*PEOPLE[person])
    for model, row in rows.items():
        may = f"view_{model}" in PEOPLE[person] or person == "editor"
        for url in (list_url(model), page_url(model, row.pk), page_url(model, row.pk).replace("change", "history")):
            assert client.get(url).status_code == (200 if may else 403), url
        assert client.get(f"{list_url(model)}add/").status_code == 403
        assert client.post(f"{list_url(model)}add/", {"name": "x"}).status_code == 403
        assert client.post(page_url(model, row.pk), {"name": "x", "_save": "1"}).status_code == 403
        delete = page_url(model, row.pk).replace("change", "delete")
        assert client.get(delete).status_code == 403, "deleting is an action"
        assert client.post(delete, {"post": "yes"}).status_code == 403
    assert [Task.objects.count(), TaskResult.objects.count(), Worker.objects.count()] == [1, 1, 1]


#: What each action is told, where it has to be told something.
TOLD = {
    "terminate": {"signal": "SIGTERM"},
    "move": {"queue": "other"},
    "postpone": {"eta_0": "2099-01-01", "eta_1": "12:00:00"},
}


def everything() -> set[tuple[Any, ...]]:
    """Return all that an action could change."""
    todo = Task.objects.values_list("pk", "queue", "priority", "due_at")
    return {*todo, *TaskResult.objects.values_list("pk", "state"), *BulkOperation.objects.values_list("pk")}


@pytest.mark.parametrize("person", PEOPLE)
def test_actions_are_for_those_who_may_take_them(person: str, browser: Browser, rows: dict[str, Any]) -> None:
    """S8: the permission is checked where the action happens."""
    Task.objects.update(due_at=ago(-600))
    client = browser(*PEOPLE[person])
    pages = {}
    for model in ("task", "taskresult"):
        if f"view_{model}" in PEOPLE[person] or person == "editor":
            pages[model] = [read(client, list_url(model)), read(client, page_url(model, rows[model].pk))]
    for action in actions.ACTIONS:
        model = str(action.model._meta.model_name)
        may = model in pages and action.permission in PEOPLE[person]
        assert [f'value="{action.name}"' in page for page in pages.get(model, [])] == [may] * len(pages.get(model, []))
        for more in ({"_selected_action": str(rows[model].pk)}, {"select_across": "1"}):
            before = everything()
            with transaction.atomic():
                order = {"action": action.name, "post": "yes", **TOLD.get(action.name, {}), **more}
                client.post(list_url(model), order)
                assert (before != everything()) == may, action.name
                transaction.set_rollback(True)


@pytest.mark.parametrize("person", PEOPLE)
def test_no_action_works_on_rows_of_another_kind(person: str, browser: Browser, rows: dict[str, Any]) -> None:
    client = browser(*PEOPLE[person])
    before = everything()
    for model, name in (("task", "delete"), ("task", "retry"), ("taskresult", "cancel"), ("worker", "delete")):
        for more in ({"_selected_action": str(rows[model].pk)}, {"select_across": "1"}):
            client.post(list_url(model), {"action": name, "post": "yes", **more}, follow=True)
    assert before == everything()


@pytest.mark.parametrize("person", PEOPLE)
def test_other_arguments_are_for_those_who_may_see_and_send_them(
    person: str, browser: Browser, rows: dict[str, Any]
) -> None:
    client = browser(*PEOPLE[person])
    for model in ("task", "taskresult"):
        url = page_url(model, rows[model].pk).replace("change", "edit")
        may = person == "sender"
        assert client.get(url).status_code == (200 if may else 403)
        before = everything()
        client.post(url, {"args": "[5, 6]", "kwargs": "{}"})
        assert (before != everything()) == may


def test_nobody_changes_anything_while_it_is_read_only(root: Client, rows: dict[str, Any], settings: Any) -> None:
    """Neither by a switch nor where a function of the project says so."""
    before = everything()
    for setting in (True, f"{__name__}.is_night"):
        settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": setting}
        for action in actions.ACTIONS:
            model = str(action.model._meta.model_name)
            assert f'value="{action.name}"' not in read(root, page_url(model, rows[model].pk))
            assert "read-only at present" in read(root, list_url(model))
            for more in ({"_selected_action": str(rows[model].pk)}, {"select_across": "1"}):
                root.post(list_url(model), {"action": action.name, "post": "yes", **TOLD.get(action.name, {}), **more})
        assert before == everything()
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": f"{__name__}.is_day"}
    assert 'value="cancel"' in read(root, page_url("task", rows["task"].pk))


def is_night(request: Any) -> bool:
    return bool(request.path)


def is_day(request: Any) -> bool:
    return not request.path


def of_tenant(request: Any, rows: Any) -> Any:
    """Only the queue that has a person's name."""
    return rows if request.user.is_superuser else rows.filter(queue=request.user.get_username())


def test_people_see_and_change_only_what_the_project_lets_them(browser: Browser, settings: Any, root: Client) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": f"{__name__}.of_tenant"}
    client = browser("view_task", "view_taskresult", "cancel_task", "retry_taskresult", username="anna")
    [mine, other] = saved([waiting(queue="anna"), waiting(queue="ben")])
    [done, hidden] = saved([failure(queue="anna"), failure(queue="ben")])
    for model, own, foreign in (("task", mine, other), ("taskresult", done, hidden)):
        assert ids_in(read(client, list_url(model))) == [str(own.pk)]
        assert len(ids_in(read(root, list_url(model)))) == 2
        assert client.get(page_url(model, foreign.pk)).status_code == 302, "as what does not exist"
        assert client.get(list_url(model), {"q": str(foreign.pk)}).status_code == 200, "no jump to it"
        name = "cancel" if model == "task" else "retry"
        client.post(list_url(model), {"action": name, "_selected_action": str(foreign.pk), "post": "yes"})
        client.post(list_url(model), {"action": name, "select_across": "1", "post": "yes"})
    for operation in BulkOperation.objects.all():
        bulk.work(operation.pk)
    assert list(BulkOperation.objects.values_list("total", "changed")) == [(1, 1), (1, 1)]
    assert Task.objects.filter(pk=other.pk).exists()
    assert not Task.objects.filter(queue="ben").exclude(pk=other.pk).exists()


def test_reading_changes_nothing(root: Client, rows: dict[str, Any]) -> None:
    """S10: what changes something is a POST, whatever the address says."""
    for model, action in (
        ("task", "cancel"),
        ("taskresult", "retry"),
        ("taskresult", "delete"),
    ):
        order = {"action": action, "_selected_action": str(rows[model].pk), "post": "yes", "index": "0"}
        root.get(list_url(model), order, follow=True)
        root.get(page_url(model, rows[model].pk), order, follow=True)
    assert [Task.objects.count(), TaskResult.objects.count()] == [1, 1]


def test_a_form_of_another_site_is_refused(root: Client, rows: dict[str, Any]) -> None:
    """S10."""
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = root.cookies
    for action in actions.ACTIONS:
        model = str(action.model._meta.model_name)
        order = {"action": action.name, "_selected_action": str(rows[model].pk), "post": "yes", "select_across": "1"}
        assert strict.post(list_url(model), order).status_code == 403
    assert [Task.objects.count(), TaskResult.objects.count()] == [1, 1]
    page = read(strict, page_url("task", rows["task"].pk))
    token = page.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    order = {"action": "cancel", "_selected_action": str(rows["task"].pk), "post": "yes"}
    strict.post(list_url("task"), {**order, "csrfmiddlewaretoken": token})
    assert Task.objects.count() == 0


def test_no_page_of_the_admin_is_shown_to_a_stranger(rows: dict[str, Any]) -> None:
    for model, row in rows.items():
        for url in (list_url(model), page_url(model, row.pk)):
            assert Client().get(url).headers["Location"].startswith("/admin/login/")


def test_the_live_part_of_a_task_tells_of_its_result_only_who_may_see_results(browser: Browser) -> None:
    [done] = saved([failure(text="canary")])
    live = page_url("task", done.pk).replace("change", "live")
    sees_tasks = browser("view_task", "view_payload", username="anna")
    assert sees_tasks.get(page_url("taskresult", done.pk)).status_code == 403
    answer = sees_tasks.get(live)
    assert answer.status_code == 403
    assert "FAILURE" not in answer.content.decode()
    assert "FAILURE" in read(browser("view_task", "view_taskresult", username="ben"), live)
