"""The page of failures: grouped by task and exception, with a way to run each group again."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tasks import bulk, failures
from django_tasks.models import BulkOperation, Task
from tests.admin.conftest import Browser
from tests.admin.pages import Tags, ids_in, list_url, read, text_of
from tests.admin.test_escaping import CANARY, check
from tests.databases import TestDatabase
from tests.rows import failure, finished, saved

URL = "/admin/django_tasks/taskresult/failures/"


def fill() -> None:
    saved(
        [
            *(failure(name="shop.mail", exception="Timeout: 9 s", seconds_ago=60 * n + 1) for n in range(5)),
            *(failure(name="shop.mail", exception="TimeoutError: no", seconds_ago=30) for _ in range(2)),
            failure(name="etl.load", exception="ValueError: x", seconds_ago=90_000),
            finished(name="shop.mail"),
        ]
    )


def test_failures_are_grouped_and_a_group_runs_again(database: TestDatabase, root: Client) -> None:
    fill()
    page = read(root, URL)
    said = " ".join(text_of(page).split())
    assert "7 failures, by task and exception." in said
    assert "shop.mail Timeout 5" in said
    assert said.index("shop.mail Timeout 5") < said.index("shop.mail TimeoutError 2")
    assert "etl.load" not in said
    assert "etl.load ValueError 1" in " ".join(text_of(read(root, f"{URL}?since=7d")).split())
    forms = [tag for name, tag in Tags(page).seen if name == "form" and "shop.mail" in (tag.get("action") or "")]
    url = forms[0]["action"] or ""
    assert len(ids_in(read(root, url))) == 5, "the link leads to these very rows"
    order = {"action": "retry", "select_across": "1"}
    assert "5 rows." in text_of(root.post(url, order).content.decode())
    root.post(url, {**order, "post": "yes"})
    bulk.work(BulkOperation.objects.get().pk)
    assert Task.objects.filter(name="shop.mail").count() == 5


@pytest.mark.databases("sqlite")
def test_only_the_newest_are_looked_at(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "LOOKED_AT", 4)
    fill()
    with CaptureQueriesContext(connection) as captured:
        said = text_of(read(root, URL))
    assert "The newest 4 failures" in said
    assert len(captured) <= 2 + 1


@pytest.mark.databases("sqlite")
def test_the_page_is_for_those_who_may_see_results(browser: Browser) -> None:
    fill()
    assert browser("view_task", username="a").get(URL).status_code == 403
    page = read(browser("view_taskresult", username="b"), f"{URL}?since=bogus")
    assert "Run all again" not in page
    assert "Run all again" in read(browser("view_taskresult", "retry_taskresult", username="c"), URL)
    assert "failures/" in read(browser("view_taskresult", username="d"), list_url("taskresult"))


@pytest.mark.databases("sqlite")
def test_nothing_that_is_stored_becomes_markup(root: Client) -> None:
    saved([failure(name=CANARY, exception=CANARY), failure(exception="")])
    page = read(root, URL)
    assert "&lt;xss" in page
    check(page)


@pytest.mark.databases("sqlite")
def test_a_group_without_a_class_runs_nothing_else_again(root: Client) -> None:
    saved([failure(exception=""), failure(exception=": lost"), failure(), failure(exception='say "when"')])
    page = read(root, URL)
    urls = [
        tag["action"] or "" for name, tag in Tags(page).seen if name == "form" and "q=" in (tag.get("action") or "")
    ]
    assert "4 failures" in text_of(page)
    assert sorted(len(ids_in(read(root, url))) for url in urls) == [1, 2], "what no search finds alone has no button"
    [url] = [url for url in urls if "exc%3A%22%22" in url]
    assert "2 rows." in text_of(root.post(url, {"action": "retry", "select_across": "1"}).content.decode())
    root.post(url, {"action": "retry", "select_across": "1", "post": "yes"})
    operation = bulk.work(BulkOperation.objects.get().pk)
    assert operation is not None
    assert operation.changed == 2
