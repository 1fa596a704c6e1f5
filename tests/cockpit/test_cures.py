"""The links beside what is wrong: to the page that helps."""

from __future__ import annotations

import html
import re
import time
from datetime import timedelta

import pytest
from django.test import Client

from django_tasks import states
from django_tasks.cockpit.cures import cure_of
from django_tasks.conf import settings
from django_tasks.doctor import Problem
from django_tasks.models import IntervalSchedule, PeriodicTask, Rollup
from tests.admin.pages import list_url, page_url, read
from tests.cockpit.site_rows import a_worker, rollup
from tests.rows import UNKNOWN, ago, saved, waiting

pytestmark = pytest.mark.databases("sqlite")


def links(client: Client, page: str) -> dict[str, str]:
    """Return where each sentence about what is wrong leads, by its beginning; every such page is there."""
    said = re.findall(r"<span>([^<]*)</span>(?: <a href=\"([^\"]*)\">[^<]+</a>)? <code>", read(client, list_url(page)))
    found = {html.unescape(text).split(" ")[0]: html.unescape(url) for text, url in said}
    for url in filter(None, found.values()):
        assert client.get(url, follow=True).status_code == 200, url
    return found


def test_each_warning_of_the_overview_leads_to_where_it_is_put_right(root: Client) -> None:
    a_worker("w1", queues="default")
    schedule = IntervalSchedule.objects.create(every=1, period="hours")
    PeriodicTask.objects.create(name="Nightly & co", task=UNKNOWN, interval=schedule)
    PeriodicTask.objects.update(last_error="ValueError: no")
    saved([waiting(queue="mail"), waiting(name=UNKNOWN, state=states.UNROUTABLE)])
    Rollup.objects.bulk_create([rollup("mail", "x", moment=int(time.time()), succeeded=1, failed=30)])
    assert links(root, "overview") == {
        "Queue": page_url("queue", "mail"),
        "Periodic": f"{list_url('periodictask')}?q=Nightly+%26+co",
        "No": list_url("periodictask"),
        "1": f"{list_url('task')}?state=UNROUTABLE",
        "97": "/admin/django_tasks/taskresult/failures/?since=1h",
    }


def test_what_the_doctor_finds_leads_to_the_worker_or_the_task(root: Client) -> None:
    gone = a_worker("w1", seen=9_000.0, stopped_at=ago(9_000))
    saved([large := waiting(body="x" * settings.PAYLOAD_LIMIT, due_at=ago(0) + timedelta(hours=1))])
    saved([waiting(state=states.STARTED, worker_id=gone.pk), waiting(state=states.STARTED, worker_id=gone.pk + 1)])
    found = links(root, "health")
    assert found["No"] == list_url("worker")
    assert found["Task"] == page_url("task", large.pk)
    assert found["1"] in (page_url("worker", gone.pk), "")


def test_what_only_a_shell_puts_right_leads_nowhere() -> None:
    for check in ("settings", "broker", "database", "migrations", "sqlite", "clock", "rescue"):
        assert cure_of(Problem(check, "error", "", "")) is None
