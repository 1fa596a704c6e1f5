"""The pages of queues: what they show, and what people do there."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client, override_settings

from django_tasks import limits, paging
from django_tasks.cockpit import numbers, queues
from django_tasks.models import Limit, Task
from tests.admin.conftest import Browser
from tests.admin.pages import read, text_of
from tests.cockpit.site_rows import a_worker, fill
from tests.rows import ago, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

INDEX = "/admin/django_tasks/queue/"
ACTIONS = {"pause": "pause_limit", "resume": "pause_limit", "purge": "purge_queue", "move": "move_queue"}


def url(name: str) -> str:
    return f"{INDEX}{name}/change/"


def act(client: Client, queue: str, action: str, **fields: Any) -> str:
    """Do something and return what the page says then."""
    response = client.post(url(queue), {"action": action, **fields}, follow=True)
    assert response.status_code == 200, response.status_code
    return text_of(response.content.decode())


def test_the_list_has_queues_that_hold_did_or_are_declared(root: Client) -> None:
    fill(minutes=3)
    page = read(root, INDEX)
    for name in ("default", "mail", "images"):
        assert f'href="{url(name)}"' in page
    assert "paused" in text_of(page)


def test_a_queue_is_paused_with_a_reason_and_resumed(root: Client) -> None:
    assert "Paused." in act(root, "mail", "pause", reason="The server is down")
    limit = Limit.objects.get(kind="queue", name="mail")
    assert (limit.paused_until, limit.pause_reason, limit.paused_by) == (None, "The server is down", "nobody")
    assert "The server is down" in text_of(read(root, url("mail")))
    assert "Resumed." in act(root, "mail", "resume")
    assert not Limit.objects.filter(name="mail", paused_at__isnull=False).exists()
    assert "It was not paused." in act(root, "mail", "resume")


def test_the_page_leads_to_the_rate_and_the_concurrency(root: Client, browser: Browser) -> None:
    [new] = re.findall(r'<a href="([^"]+)">Rate and concurrency', read(root, url("mail")))
    form = read(root, html.unescape(new))
    assert '<option value="queue" selected>' in form
    assert 'name="name" value="mail"' in form
    limit = limits.change("queue", "mail", rate="5/s")
    there = f'<a href="/admin/django_tasks/limit/{limit.pk}/change/">Rate and concurrency'
    reader = browser("view_queue", "view_limit")
    for client in (root, reader):
        assert there in read(client, url("mail"))
    assert "Rate and concurrency" not in read(reader, url("default")), "there is nothing to read"
    assert "Rate and concurrency" not in read(browser("view_queue"), url("mail"))
    task = limits.change("task", "tests.app.tasks.add", concurrency=2)
    page = read(root, "/admin/django_tasks/tasktype/tests.app.tasks.add/change/")
    assert f'/limit/{task.pk}/change/">Rate and concurrency' in page


def test_a_pause_may_end_by_itself(root: Client) -> None:
    act(root, "mail", "pause", minutes="10")
    limit = Limit.objects.get(name="mail")
    assert limit.paused_at is not None
    assert limit.paused_until is not None
    assert limit.paused_until - limit.paused_at == timedelta(minutes=10)


@pytest.mark.parametrize("minutes", ["0", "-1", "soon", "99999999"])
def test_a_pause_of_no_length_is_refused_with_the_reason(root: Client, minutes: str) -> None:
    response = root.post(url("mail"), {"action": "pause", "minutes": minutes})
    assert "errorlist" in response.content.decode()
    assert not Limit.objects.exists()


def test_a_queue_is_emptied_once_its_name_was_typed(root: Client) -> None:
    saved([*(waiting(queue="mail") for _ in range(3)), waiting(queue="mails")])
    assert "3 tasks wait." in act(root, "mail", "purge")
    assert "That is not its name." in act(root, "mail", "purge", name="mails")
    assert Task.objects.count() == 4
    assert "3 tasks deleted." in act(root, "mail", "purge", name="mail")
    assert Task.objects.get().queue == "mails"


@pytest.mark.databases("sqlite", "postgresql")
def test_what_waits_is_moved_and_what_runs_stays(root: Client) -> None:
    worker = a_worker("w1")
    saved(
        [
            *(waiting(queue="mail", priority=5, due_at=ago(-60)) for _ in range(3)),
            waiting(queue="mail", state="STARTED", worker_id=worker.pk, attempt=1),
        ]
    )
    assert "3 tasks wait." in act(root, "mail", "move", to="slow")
    assert Task.objects.filter(queue="slow").count() == 0
    assert "3 tasks moved to slow." in act(root, "mail", "move", to="slow", sure="1")
    assert {(task.queue, task.priority) for task in Task.objects.filter(state="PENDING")} == {("slow", 5)}
    assert Task.objects.get(state="STARTED").queue == "mail"


@pytest.mark.parametrize("to", ["mail", "no queue", "", "x" * 65])
def test_nothing_is_moved_to_where_it_is_or_nowhere(root: Client, to: str) -> None:
    saved([waiting(queue="mail")])
    response = root.post(url("mail"), {"action": "move", "to": to, "sure": "1"})
    assert "errorlist" in response.content.decode()
    assert Task.objects.get().queue == "mail"


def test_what_people_did_is_in_the_history(root: Client) -> None:
    act(root, "mail", "pause", reason="why")
    act(root, "mail", "purge", name="mail")
    entries = LogEntry.objects.filter(object_id="mail").order_by("pk")
    assert [entry.get_change_message() for entry in entries] == ["Paused. why", "0 tasks deleted."]
    assert "0 tasks deleted." in text_of(read(root, url("mail")))


@pytest.mark.parametrize("held", [None, *sorted(set(ACTIONS.values()))])
def test_each_action_is_for_who_has_its_permission(browser: Browser, held: str | None) -> None:
    saved([waiting(queue="mail")])
    client = browser("view_queue", *([held] if held else []))
    page = read(client, url("mail"))
    for action, permission in ACTIONS.items():
        if action != "resume":
            assert (f'value="{action}"' in page) == (permission == held)
        response = client.post(url("mail"), {"action": action})
        assert (response.status_code == 403) == (permission != held), action


def test_permission_to_act_is_not_permission_to_look(browser: Browser) -> None:
    client = browser("purge_queue", "pause_limit", "move_queue")
    assert client.get(INDEX).status_code == client.get(url("mail")).status_code == 403
    assert client.post(url("mail"), {"action": "purge", "name": "mail"}).status_code == 403


@override_settings(DJANGO_TASKS={"ADMIN_READ_ONLY": True})
def test_a_site_that_is_only_to_be_read_is_not_changed(root: Client) -> None:
    saved([waiting(queue="mail")])
    assert 'value="purge"' not in read(root, url("mail"))
    for action in ACTIONS:
        assert root.post(url("mail"), {"action": action, "name": "mail"}).status_code == 403
    assert Task.objects.count() == 1


def test_without_a_token_of_the_form_nothing_happens(browser: Browser) -> None:
    browser(is_superuser=True)
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get())
    assert client.post(url("mail"), {"action": "pause"}).status_code == 403
    assert not Limit.objects.exists()


@pytest.mark.parametrize("action", ["", "delete", "_purge"])
def test_an_action_that_is_none_is_refused(root: Client, action: str) -> None:
    assert root.post(url("mail"), {"action": action}).status_code == 403


def test_what_can_be_no_queue_has_no_page(root: Client) -> None:
    assert root.get(f"{INDEX}a%20b/change/").status_code == 404
    assert root.get(f"{INDEX}{'x' * 65}/change/").status_code == 404


def all_but_secrets(request: Any, rows: Any) -> Any:
    """All but what nobody is to know of."""
    return rows.exclude(name="secret.tasks.send")


@pytest.mark.parametrize("action", ["purge", "move"])
def test_a_queue_with_tasks_that_a_person_may_not_see_is_left_alone(root: Client, action: str, settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": f"{__name__}.all_but_secrets"}
    saved([waiting(queue="mail"), waiting(queue="mail", name="secret.tasks.send"), waiting(queue="own")])
    told = {"to": "other", "sure": "1"} if action == "move" else {}
    for more in ({}, {"name": "mail", **told}):
        assert root.post(url("mail"), {"action": action, **more}).status_code == 403
    assert Task.objects.filter(queue="mail").count() == 2
    act(root, "own", action, name="own", **told)
    assert not Task.objects.filter(queue="own").exists()


def test_a_queue_has_its_page_however_many_there_are(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "MOST", 1)
    saved([waiting(queue="a"), waiting(queue="z")])
    assert root.get(url("z")).status_code == 200


@pytest.mark.databases("sqlite", "postgresql")
def test_a_question_counts_exactly_and_no_further_than_a_page_can_wait(
    root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(waiting(queue="mail") for _ in range(3))
    saved([waiting(queue="mail", state="LIMITED", limit_key="x"), waiting(queue="mail", state="UNROUTABLE")])
    saved([waiting(queue="mail", state="WAITING"), waiting(queue="mail", state="STARTED", worker_id=1)])
    assert "5 tasks wait." in act(root, "mail", "purge")
    monkeypatch.setattr(queues, "COUNTED", 4)
    assert "More than 4 tasks wait." in act(root, "mail", "purge")


def test_a_question_is_put_without_a_number_where_counting_takes_too_long(
    root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "PATIENCE", -1.0)
    monkeypatch.setattr(paging, "_SQLITE_STEPS", 1)
    saved([waiting(queue="mail")])
    assert "It took too long to count how many tasks wait." in act(root, "mail", "purge")
    assert "1 task deleted." in act(root, "mail", "purge", name="mail")
