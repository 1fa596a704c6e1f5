"""Who may tell workers what to do, and what is said when nobody answers."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_tasks.cockpit.workers import ORDERS
from django_tasks.models import Command, Task, Worker
from tests.admin.conftest import Browser
from tests.admin.pages import page_url, read, text_of
from tests.cockpit.site_rows import a_worker
from tests.rows import ago, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

LIST = "/admin/django_tasks/worker/"


def form(action: str, worker: Worker) -> dict[str, object]:
    return {"action": action, "_selected_action": [worker.pk], "post": "yes"}


@pytest.mark.parametrize("action", ORDERS)
def test_orders_are_for_who_may_control_workers(action: str, browser: Browser) -> None:
    worker = a_worker("w1", seen=400.0)
    looks, controls, blind = browser("view_worker"), browser("view_worker", "control_worker"), browser("control_worker")
    assert f'value="{action}"' not in read(looks, LIST)
    assert f'value="{action}"' in read(controls, LIST)
    assert blind.post(LIST, form(action, worker)).status_code == 403
    for client, obeyed in ((looks, False), (controls, True)):
        page = text_of(client.post(LIST, form(action, worker), follow=True).content.decode())
        assert ("None of them is running." in page) == obeyed
    assert not Command.objects.exists()


@override_settings(DJANGO_TASKS={"ADMIN_READ_ONLY": True})
def test_nobody_controls_workers_of_a_site_that_is_only_to_be_read(browser: Browser) -> None:
    a_worker("w1")
    assert "shutdown_selected" not in read(browser(is_superuser=True), LIST)


def test_a_worker_that_does_not_answer_is_named(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tasks.cockpit.workers.PATIENCE", 0.1)
    worker = a_worker("w1")
    client = browser(is_superuser=True)
    page = text_of(client.post(LIST, form("ping_selected", worker), follow=True).content.decode())
    assert "0 of 1 did so" in page
    assert "No answer yet from w1" in page


def of_queue_mine(request: Any, rows: Any) -> Any:
    return rows.filter(queue="mine")


def test_a_worker_shows_what_it_has_taken_to_those_who_may_see_tasks(browser: Browser, settings: Any) -> None:
    worker = a_worker("w1")
    taken = {"state": "STARTED", "worker_id": worker.pk, "attempt": 1, "started_at": ago(5)}
    mine, other = saved([waiting(queue="mine", **taken), waiting(**taken)])
    page = page_url("worker", worker.pk)
    blind, sees = browser("view_worker"), browser("view_worker", "view_task")
    assert str(mine.pk) not in read(blind, page)
    assert str(other.pk) in read(sees, page)
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": f"{__name__}.of_queue_mine"}
    text = read(sees, page)
    assert str(mine.pk) in text
    assert str(other.pk) not in text
    overview = read(browser("view_overview", "view_worker"), "/admin/django_tasks/overview/")
    assert mine.name in overview
    for task in Task.objects.all():
        assert str(task.pk) not in overview
