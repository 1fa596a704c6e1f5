"""The log on a task's page: by attempt and level, to whom it is shown, and while the task runs."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tasks import operations, states
from django_tasks.metrics.rows import HOUR
from django_tasks.models import Rollup, Task, TaskLog, TaskResult
from tests.admin.conftest import Browser
from tests.admin.pages import page_url, read, text_of
from tests.cockpit.site_rows import durations, rollup
from tests.databases import TestDatabase
from tests.rows import ago, failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

MOMENT = 1_767_355_200.123  # 2026-01-02 12:00 UTC


def logged(row: Any, attempt: int, *lines: tuple[int, str]) -> None:
    """Keep a part of a row's log."""
    said = [[MOMENT, level, "shop.tasks", text] for level, text in lines]
    TaskLog.objects.create(task_id=row.pk, attempt=attempt, count=len(said), records=json.dumps(said))


def shown(client: Client, row: Any, query: str = "") -> str:
    return " ".join(text_of(read(client, page_url(row._meta.model_name, row.pk) + query)).split())


def test_the_last_attempt_is_shown_and_others_by_choice(root: Client, settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    history = [{"attempt": 1, "outcome": "RETRY", "at": MOMENT, "runtime": 1.0, "error": "first"}]
    [row] = saved([failure(attempt=2, history=json.dumps(history))])
    logged(row, 1, (20, "of the first"))
    logged(row, 2, (20, "<b>begun</b>"), (30, "slow"))
    logged(row, 2, (0, "7"), (40, "broken"))
    page = read(root, page_url("taskresult", row.pk))
    text = " ".join(text_of(page).split())
    assert "&lt;b&gt;begun&lt;/b&gt;" in page
    assert "21:00:00.123 INFO shop.tasks <b>begun</b>" in text
    assert "… 7 records left out …" in text
    assert "of the first" not in text
    assert "Attempt 2 (4)" in text
    assert "1 record" in text.partition("Attempts")[2].partition("Log")[2], "beside the attempt"
    assert "of the first" in shown(root, row, "?attempt=1")
    only = shown(root, row, "?level=WARNING")
    assert "slow" in only
    assert "begun" not in only
    assert "begun" in shown(root, row, "?level=nonsense&attempt=99")


def test_who_may_not_see_payloads_is_told_how_many_there_are(browser: Browser) -> None:
    [row] = saved([finished()])
    logged(row, 1, (40, "canary"))
    page = shown(browser("view_task", "view_taskresult"), row)
    assert "You may see how many records there are" in page
    assert "Attempt 1 (1)" in page
    assert "canary" not in page


def test_what_cannot_be_read_is_left_out(root: Client) -> None:
    [row] = saved([finished()])
    for lines in ("nonsense", '{"a": 1}', '[[1], null, ["x", 20, 7, {"no": "text"}]]'):
        TaskLog.objects.create(task_id=row.pk, attempt=1, count=1, records=lines)
    assert "INFO 7 {'no': 'text'}" in shown(root, row)


def test_a_page_with_everything_costs_few_queries(root: Client) -> None:
    saved(finished(options='{"retry_of": "x"}', seconds_ago=0) for _ in range(30))
    saved([failed := failure(seconds_ago=60, attempt=3)])
    [todo] = saved([waiting(state=states.STARTED, worker_id=1, started_at=ago(9))])
    rows: list[Any] = [failed, todo]
    for row in rows:
        for attempt in range(1, 4):
            logged(row, attempt, (20, "a"))
        ContentType.objects.get_for_model(row)  # a process looks that up once
        with CaptureQueriesContext(connection) as captured:
            read(root, page_url(row._meta.model_name, row.pk))
        assert len(captured) <= 10, "\n".join(one["sql"] for one in captured.captured_queries)


def test_the_page_follows_a_task_until_it_is_done(root: Client, browser: Browser) -> None:
    progress = json.dumps({"current": 25, "total": 100})
    [task] = saved([waiting(state=states.STARTED, started_at=ago(10), meta=progress, custom_state="PROGRESS")])
    logged(task, 1, (20, "one"))
    page = read(root, page_url("task", task.pk))
    assert 'data-djt-live="../live/?"' in page
    live = page_url("task", task.pk).replace("change", "live")
    first = root.get(live)
    assert re.search(r"About 3\d(\.\d)? s left", text_of(first.content.decode()))
    logged(task, 1, (30, "two"))
    second = root.get(live, headers={"If-None-Match": first.headers["ETag"]})
    assert "two" in second.content.decode()
    assert root.get(live, {"level": "ERROR"}).content.decode().count("shop.tasks") == 0
    assert browser("view_worker").get(live).status_code == 403
    key = task.pk
    task.delete()
    saved([finished(id=key)])
    done = root.get(live).content.decode()
    assert f"/taskresult/{key}/change/" in done
    assert "two" in done
    assert 'data-djt-live="' not in read(root, page_url("taskresult", key))


def nothing_of_mail(request: Any, rows: Any) -> Any:
    return rows.exclude(queue="mail")


def test_a_task_that_is_not_for_this_person_is_not_followed(root: Client, settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": f"{__name__}.nothing_of_mail"}
    saved([hidden := waiting(queue="mail")])
    saved([done := finished(queue="mail")])
    for row in (hidden, done):
        assert root.get(page_url("task", row.pk).replace("change", "live")).status_code == 404


def test_how_the_same_task_did_is_told_to_those_who_may_know(root: Client, browser: Browser) -> None:
    saved([*(finished(runtime=0.5, seconds_ago=one) for one in range(2, 5)), failure(runtime=1.0, seconds_ago=1)])
    row = TaskResult.objects.order_by("pk")[0]
    page = shown(root, row)
    assert "4, 1 of them failed" in page
    assert re.findall(r"(FAILURE|SUCCESS) (1|0\.5) s", page.partition("Same task")[2]) == [
        ("FAILURE", "1"),
        *[("SUCCESS", "0.5")] * 3,
    ]
    drawn = read(root, page_url("taskresult", row.pk)).partition('<svg class="djt-spark"')[2].partition("</svg>")[0]
    assert re.findall(r'djt-span-(\w+)" x="(\d+)"', drawn) == [
        ("ok", "0"), ("ok", "6"), ("ok", "12"), ("bad", "18"), ("bad", "18"),
    ], "a failure has a mark above its bar"  # fmt: skip
    assert "Last 24 hours" not in page
    assert f"/tasktype/{row.name.replace('_', '_5F')}/" in read(root, page_url("taskresult", row.pk))
    others = browser("view_task", "view_taskresult")
    assert "/tasktype/" not in read(others, page_url("taskresult", row.pk))
    saved([todo := waiting()])
    assert "of them failed" not in shown(browser("view_task"), todo)


def test_how_the_same_task_did_in_a_day_is_told_to_who_may_see_task_types(root: Client, browser: Browser) -> None:
    [row] = saved([finished()])
    kinds = ((0, row.name, 2), (20 * HOUR, row.name, 1), (30 * HOUR, row.name, 100), (0, "another", 100))
    Rollup.objects.bulk_create(
        rollup(
            "mail", name, moment=int(time.time()) - age, length=HOUR, succeeded=7, failed=failed,
            **durations(7, wait=1.0, run=2.0),
        )
        for age, name, failed in kinds
    )  # fmt: skip
    assert "Last 24 hours 17 done, 3 of them failed; 0 retries. Half of them ran for at most" in shown(root, row)
    assert "Last 24 hours" not in shown(browser("view_taskresult"), row)


def test_logs_go_with_their_tasks(database: TestDatabase) -> None:
    saved([gone := finished(), *(kept := [finished()])])
    for row in (gone, *kept):
        logged(row, 1, (20, "a"))
    operations.delete([str(gone.pk)])
    assert set(TaskLog.objects.values_list("task_id", flat=True)) == {kept[0].pk}
    assert Task.objects.count() == 0
