"""Who may do what: every page and action, for every kind of person, and not by hiding buttons."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from django_tasks.models import Task, TaskResult, Worker
from tests.admin.conftest import Browser
from tests.admin.pages import list_url, page_url, read
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
        deletes = person == "cleaner" and model == "taskresult"
        delete = page_url(model, row.pk).replace("change", "delete")
        assert client.get(delete).status_code == (200 if deletes else 403)
        if not deletes:
            assert client.post(delete, {"post": "yes"}).status_code == 403
    assert [Task.objects.count(), TaskResult.objects.count(), Worker.objects.count()] == [1, 1, 1]


@pytest.mark.parametrize("person", PEOPLE)
def test_actions_are_for_those_who_may_take_them(person: str, browser: Browser, rows: dict[str, Any]) -> None:
    """S8: the permission is checked where the action happens."""
    client = browser(*PEOPLE[person])
    allowed = {
        ("task", "cancel"): "cancel_task",
        ("taskresult", "retry"): "retry_taskresult",
        ("taskresult", "delete"): "delete_taskresult",
        ("task", "delete"): None,
        ("worker", "delete"): None,
        ("worker", "retry"): None,
    }
    for (model, action), needed in allowed.items():
        if f"view_{model}" in PEOPLE[person] or person == "editor":
            offered = f'value="{action}"'
            assert (offered in read(client, list_url(model))) == (needed in PEOPLE[person])
            button = needed in PEOPLE[person] and action != "delete"  # that one is Django's own
            assert (offered in read(client, page_url(model, rows[model].pk))) == button
    for (model, action), needed in allowed.items():
        may = needed in PEOPLE[person] and f"view_{model}" in PEOPLE[person]
        before = (set(Task.objects.values_list("pk")), set(TaskResult.objects.values_list("pk")))
        order = {"action": action, "_selected_action": str(rows[model].pk), "post": "yes"}
        client.post(list_url(model), order, follow=True)
        after = (set(Task.objects.values_list("pk")), set(TaskResult.objects.values_list("pk")))
        assert (before != after) == may, f"{person} {action} {model}"


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
    for model, action in (
        ("task", "cancel"),
        ("taskresult", "retry"),
        ("taskresult", "delete"),
    ):
        order = {"action": action, "_selected_action": str(rows[model].pk), "post": "yes"}
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
