"""Buttons of the admin's page of workers, pressed against real workers."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from django_tasks import states
from django_tasks.models import Worker as Row
from tests.admin.pages import text_of
from tests.eventually import eventually
from tests.integration.jobs import work
from tests.integration.site import Site

pytestmark = pytest.mark.databases("sqlite", "redis")

LIST = "/admin/django_tasks/worker/"


def press(client: Client, action: str, *, sure: bool = True) -> str:
    row = Row.objects.get()
    form = {"action": action, "_selected_action": [row.pk], **({"post": "yes"} if sure else {})}
    response = client.post(LIST, form, follow=True)
    assert response.status_code == 200
    return text_of(response.content.decode())


def test_a_worker_obeys_what_is_told_on_its_page(site: Site) -> None:
    worker = site.start("-n", "w1", concurrency=1)
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    page = text_of(client.get(f"{LIST}{Row.objects.get().pk}/change/").content.decode())
    for label in ("Ask whether they answer", "Take nothing new", "One process more", "Shut down"):
        assert label in page
    assert "Ask whether they answer: 1 of 1 did so" in press(client, "ping_selected")

    assert "1 of 1 did so" in press(client, "grow_selected")
    worker.wait_for_children(2)
    assert "1 of 1 did so" in press(client, "shrink_selected")
    [before] = worker.wait_for_children(1)
    assert "a new one takes its place" in press(client, "restart_selected", sure=False)
    assert worker.wait_for_children(1) == [before]
    press(client, "restart_selected")
    eventually(lambda: before not in worker.children() and worker.children(), message="nothing was restarted")
    assert "one has to stay" in press(client, "shrink_selected")

    press(client, "quiet_selected")
    eventually(lambda: Row.objects.get().draining, message="it does not say that it is quiet")
    task = work.delay()
    press(client, "ping_selected")  # by now it would have run
    assert task.state == states.PENDING
    press(client, "resume_selected")
    assert task.get(timeout=30) == 1
    eventually(lambda: not Row.objects.get().draining)

    assert "Nobody starts them again" in press(client, "shutdown_selected", sure=False)
    press(client, "shutdown_selected")
    assert worker.wait() == 0
    assert "None of them is running." in press(client, "ping_selected")
    assert LogEntry.objects.filter(object_id=str(Row.objects.get().pk)).count() == 9
