"""Limits in the admin: changed, paused and resumed by those who may."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from django_tasks import display, limits
from django_tasks.dashboard import database_now
from django_tasks.models import Limit, LimitState, TaskTag
from tests.admin.conftest import Browser
from tests.admin.pages import ids_in, list_url, page_url, read, text_of
from tests.cockpit.site_rows import a_worker
from tests.databases import TestDatabase
from tests.integration import limited_jobs
from tests.rows import KNOWN, finished, saved, waiting


def values(**changes: str) -> dict[str, str]:
    """Return what the form sends."""
    return {"kind": "queue", "name": "mail", "rate": "", "concurrency": "", **changes}


def test_a_limit_is_added_changed_and_deleted(database: TestDatabase, root: Client) -> None:
    add = reverse("admin:django_tasks_limit_add")
    assert root.post(add, values(rate="5/m", concurrency="3")).status_code == 302
    limit = Limit.objects.get()
    assert (limit.rate, limit.concurrency, limit.overridden) == ("5/m", 3, True)
    change = reverse("admin:django_tasks_limit_change", args=(limit.pk,))
    assert root.post(change, values(concurrency="4", per_key="on")).status_code == 302
    limit = Limit.objects.get()
    assert (limit.name, limit.rate, limit.concurrency, limit.per_key) == ("mail", "", 4, True)
    assert root.post(reverse("admin:django_tasks_limit_delete", args=(limit.pk,)), {"post": "yes"}).status_code == 302
    assert not Limit.objects.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": "often"}, "rate_limit is &#x27;often&#x27;"),
        ({"concurrency": "0"}, "concurrency is 0; allowed"),
        ({"name": "no queue"}, "1 to 64 of"),
    ],
)
def test_a_limit_that_nothing_could_keep_is_refused(
    database: TestDatabase, root: Client, changes: dict[str, str], said: str
) -> None:
    response = root.post(reverse("admin:django_tasks_limit_add"), values(**changes))
    assert said in response.content.decode()
    assert not Limit.objects.exists()


def test_what_the_code_declares_is_overridden_but_not_deleted(database: TestDatabase, root: Client) -> None:
    limits.declare([limited_jobs.two_at_a_time])
    limit = Limit.objects.get()
    url = page_url("limit", limit.pk)
    assert root.post(url, {"rate": "", "concurrency": "9"}).status_code == 302
    limits.declare([limited_jobs.two_at_a_time])
    limit = Limit.objects.get()
    assert (limit.concurrency, limit.overridden) == (9, True)
    assert root.post(reverse("admin:django_tasks_limit_delete", args=(limit.pk,)), {"post": "yes"}).status_code == 403


def test_those_who_may_pause_and_resume(database: TestDatabase, browser: Browser) -> None:
    limits.change(Limit.QUEUE, "mail", concurrency=1)
    limit = Limit.objects.get()
    chosen = {"action": "pause_selected", "_selected_action": [str(limit.pk)]}
    browser("view_limit", "change_limit").post(list_url("limit"), chosen, follow=True)
    assert Limit.objects.get().paused_at is None
    person = browser("view_limit", "pause_limit")
    page = person.post(list_url("limit"), chosen, follow=True).content.decode()
    assert "Nothing of it starts any more; what runs goes on." in page
    assert Limit.objects.get().paused_at is None
    asked = {**chosen, "post": "yes", "reason": "The server is down", "minutes": "no number"}
    assert "errorlist" in person.post(list_url("limit"), asked).content.decode()
    asked["minutes"] = "10"
    assert "1 paused." in person.post(list_url("limit"), asked, follow=True).content.decode()
    limit = Limit.objects.get()
    assert limit.paused_at is not None
    assert limit.paused_until is not None
    assert limit.paused_until - limit.paused_at == timedelta(minutes=10)
    assert (limit.paused_by, limit.pause_reason) == ("view_limit-pause_limit", "The server is down")
    chosen["action"] = "resume_selected"
    assert "1 resumed." in person.post(list_url("limit"), chosen, follow=True).content.decode()
    assert Limit.objects.get().paused_at is None
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == [
        "Paused for 10 minutes. The server is down",
        "Resumed.",
    ]


def test_a_search_for_a_tag_finds_what_waits_and_what_is_done(database: TestDatabase, root: Client) -> None:
    waits = limited_jobs.two_at_a_time.apply_async((0.0,), tags=["vip"])
    saved([waiting()])
    [done, _] = saved([finished(), finished()])
    TaskTag.objects.create(tag="vip", task_id=done.pk)
    found = {model: ids_in(read(root, f"{list_url(model)}?q=tag:vip")) for model in ("task", "taskresult")}
    assert found == {"task": [waits.id], "taskresult": [str(done.pk)]}


@pytest.mark.databases("sqlite")
def test_nobody_changes_a_limit_while_it_is_read_only(database: TestDatabase, root: Client, settings: Any) -> None:
    limit = limits.change("queue", "mail", rate="5/m")
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": True}
    page = page_url("limit", limit.pk)
    for action in ("pause_selected", "delete_selected"):
        assert action not in read(root, list_url("limit"))
        root.post(list_url("limit"), {"action": action, "_selected_action": [limit.pk], "post": "yes"})
    read(root, page)
    for url in (page, reverse("admin:django_tasks_limit_add"), page.replace("change", "delete")):
        assert root.post(url, values(rate="9/m", post="yes")).status_code == 403
    assert list(Limit.objects.values_list("rate", "paused_at")) == [("5/m", None)]


def test_the_list_tells_what_limits_do_at_the_moment(database: TestDatabase, root: Client) -> None:
    for name in ("w1", "w2"):
        a_worker(name)
    a_worker("lost", seen=900.0)
    limits.change(Limit.QUEUE, "mail", rate="10/m", per_worker=True)
    limits.change(Limit.TASK, KNOWN, rate="5/s")
    limits.change(Limit.QUEUE, "idle", concurrency=3)
    soon = database_now() + timedelta(minutes=30)
    LimitState.objects.create(kind="queue", name="mail", limit_key="", moment=soon.timestamp())
    LimitState.objects.create(kind="task", name=KNOWN, limit_key="", moment=soon.timestamp() - 7_200)
    counted = {"queue": "mail", "limit_key": ""}
    saved([waiting(state="LIMITED", **counted) for _ in range(4)] + [waiting(state="STARTED", **counted), waiting()])
    page = read(root, list_url("limit"))
    cells = dict(zip(NAMES, rows_of(page), strict=True))
    assert [cells[name]["effective"] for name in NAMES] == ["-", "20/m", "5/s"]
    assert [cells[name]["let_through"] for name in NAMES] == ["0", "1", "1"]
    assert [cells[name]["held_back"] for name in NAMES] == ["0", "4", "4"]
    assert cells["task"]["next_start"] == "at once"
    assert cells["idle"]["next_start"] == "-"
    assert cells["mail"]["next_start"] == text_of(str(display.moment(soon))).strip()
    one = " ".join(text_of(read(root, page_url("limit", Limit.objects.get(name="mail").pk))).split())
    assert re.search(r"Held back:? 4", one)
    assert re.search(r"Effective rate:? 20/m", one)


#: The limits of the test above, in the order of the list.
NAMES = ("idle", "mail", "task")


def rows_of(page: str) -> list[dict[str, str]]:
    """Return the cells of a list by their columns, row by row."""
    body = page[page.index('id="result_list"') :].partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        {name: text_of(cell).strip() for name, cell in re.findall(r'<td class="field-(\w+)[^>]*>(.*?)</td>', row)}
        for row in body.split("<tr>")[1:]
    ]
