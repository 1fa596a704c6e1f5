"""The page of failures: grouped by task and exception, with a way to run each group again."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from django_tasks import bulk, failures
from django_tasks.cockpit import overview
from django_tasks.cockpit.numbers import SPANS
from django_tasks.models import BulkOperation, FailureMark, Task, TaskResult
from tests.admin.conftest import Browser
from tests.admin.pages import Tags, ids_in, list_url, read, text_of
from tests.admin.test_escaping import CANARY, check
from tests.app.tasks import fail
from tests.cockpit.site_rows import a_worker, durations, rollup
from tests.databases import TestDatabase
from tests.inprocess import Worker
from tests.rows import ago, failure, finished, saved

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


def failed_at(file: str, function: str, line: int, **fields: Any) -> TaskResult:
    """Return an unsaved failure that came up there."""
    place = (file, function, line)
    return failure(**{"name": "shop.mail", "exception": "OSError: lost", "place": place, **fields})


def words(page: str) -> str:
    return " ".join(text_of(page).split())


def order(client: Client, name: str, kind: failures.Kind, url: str = URL) -> Any:
    return client.post(url, {"action": name, "group": kind.key}, follow=True)


MAIL = failures.Kind("shop.mail", "OSError", "shop/mail.py in send")


def test_groups_are_told_apart_by_the_place_in_the_project(database: TestDatabase, root: Client) -> None:
    saved(
        [
            *(
                failed_at("shop/mail.py", "send", line, seconds_ago=ago_)
                for line, ago_ in ((29, 30), (31, 10), (29, 20))
            ),
            failed_at("shop/mail.py", "sender", 31),
            failure(name="shop.mail", exception="OSError: lost"),
        ]
    )
    page = read(root, URL)
    assert "shop.mail OSError shop/mail.py:31 in send 3 " in words(page), "the line of the newest"
    assert "shop.mail OSError shop/mail.py:31 in sender 1 " in words(page)
    assert "shop.mail OSError 1 " in words(page)
    urls = [html.unescape(url) for url in re.findall(r'<th scope="row"><a href="([^"]*)"', page)]
    assert [len(ids_in(read(root, url))) for url in urls] == [3, 1, 1], "each leads to its own"
    assert overview.overview(SPANS["1h"]).failures.groups[0].kind == MAIL


@pytest.mark.databases("sqlite")
def test_a_group_tells_where_its_task_failed_when_a_worker_ran_it(root: Client) -> None:
    fail.delay()
    Worker().drain()
    assert re.search(r"tests.app.tasks.fail ValueError \S*app/tasks.py:\d+ in fail 1 ", words(read(root, URL)))


def test_what_is_acknowledged_is_aside_until_it_fails_again(database: TestDatabase, browser: Browser) -> None:
    anna = browser("view_taskresult", "acknowledge_failure", "view_overview", username="anna")
    saved([failed_at("shop/mail.py", "send", 31), failure(name="etl.load")])
    page = order(anna, "acknowledge", MAIL, f"{URL}?since=7d").content.decode()
    assert "Acknowledged: shop.mail OSError shop/mail.py in send" in words(page)
    said = words(page.partition('<nav class="djt-tabs"')[2])
    assert "1 failures, by task and exception." in said
    assert "shop.mail" not in said
    assert "1 group is acknowledged or muted" in said
    assert "shop.mail" not in read(anna, "/admin/django_tasks/overview/")
    aside = words(read(anna, f"{URL}?since=7d&aside=1"))
    assert re.search(r"shop.mail OSError shop/mail.py:31 in send Acknowledged by anna, \S.*\d ?\. 1 ", aside)
    assert "etl.load" not in aside
    entry = LogEntry.objects.get()
    assert (entry.user.get_username(), entry.object_repr) == ("anna", "shop.mail OSError shop/mail.py in send")
    assert entry.get_change_message() == "Acknowledged"

    saved([failed_at("shop/mail.py", "send", 33, seconds_ago=-5)])
    overview.forget()
    said = words(read(anna, URL))
    assert "in send Acknowledged by anna, " in said
    assert "It failed again since. 2 " in said
    assert "shop/mail.py:33 in send" in words(read(anna, "/admin/django_tasks/overview/"))

    FailureMark.objects.update(acknowledged_at=ago(-60))
    assert "It failed again" not in words(read(anna, URL))
    order(anna, "unacknowledge", MAIL)
    assert "shop.mail OSError shop/mail.py:33 in send 2 " in words(read(anna, URL))


def test_what_is_muted_is_aside_for_a_day_whatever_fails(database: TestDatabase, browser: Browser) -> None:
    bert = browser("view_taskresult", "acknowledge_failure", username="bert")
    saved([failed_at("shop/mail.py", "send", 31)])
    order(bert, "mute", MAIL)
    until = FailureMark.objects.get().muted_until
    assert until is not None
    assert abs(until - ago(0) - timedelta(hours=24)) < timedelta(minutes=5)
    saved([failed_at("shop/mail.py", "send", 31, seconds_ago=-5)])
    assert "Nothing else failed." in words(read(bert, URL))
    aside = words(read(bert, f"{URL}?aside=1"))
    assert "Muted by bert until " in aside
    assert "Unmute" in aside
    order(bert, "unmute", MAIL)
    assert "shop.mail OSError" in words(read(bert, URL))
    order(bert, "mute", MAIL)
    FailureMark.objects.update(muted_until=ago(1))
    said = words(read(bert, URL))
    assert "shop.mail OSError" in said
    assert "Muted by" not in said


@pytest.mark.databases("sqlite")
def test_nobody_is_warned_of_what_is_aside(root: Client) -> None:
    a_worker("w1")
    saved(
        [
            rollup(
                "q",
                "shop.mail",
                moment=int(ago(60).timestamp()),
                succeeded=6,
                failed=10,
                **durations(16, wait=1, run=1),
            )
        ]
    )
    saved([*(failed_at("shop/mail.py", "send", 31) for _ in range(8)), failure(), failure()])

    def warnings() -> list[str]:
        found = overview.gather(SPANS["1h"]).problems
        return [one.problem for one in found if one.check == "failures"]

    assert warnings() == ["62 % of the tasks that ran within 1h failed: 10."]
    order(root, "mute", MAIL)
    assert not warnings()


@pytest.mark.databases("sqlite")
def test_groups_are_put_aside_by_who_may(browser: Browser, settings: Any) -> None:
    saved([failed_at("shop/mail.py", "send", 31)])
    reader, anna = browser("view_taskresult"), browser("view_taskresult", "acknowledge_failure", username="anna")
    assert "Acknowledge" not in read(reader, URL)
    assert "Mute for 24 hours" in read(anna, URL)
    assert order(reader, "mute", MAIL).status_code == 403
    assert order(anna, "delete", MAIL).status_code == 403
    assert "Nothing has failed so any more." in words(order(anna, "mute", MAIL._replace(place="")).content.decode())
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": True}
    assert "Mute for 24 hours" not in read(anna, URL)
    assert order(anna, "mute", MAIL).status_code == 403
    assert not FailureMark.objects.exists()


def of_mail(request: Any, rows: Any) -> Any:
    return rows if request.user.username == "boss" else rows.filter(queue="mail")


@pytest.mark.databases("sqlite")
def test_nobody_puts_aside_what_they_may_not_see(browser: Browser, settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": "tests.admin.test_failures.of_mail"}
    saved([failed_at("shop/mail.py", "send", 31, queue="mail"), failed_at("shop/mail.py", "send", 31, queue="other")])
    saved([failed_at("shop/mail.py", "beat", 5, queue="mail")])
    permissions = ("view_taskresult", "acknowledge_failure")
    anna, boss = browser(*permissions, username="anna"), browser(*permissions, username="boss")
    assert "You may not see all that failed so" in words(order(anna, "acknowledge", MAIL).content.decode())
    assert not FailureMark.objects.exists()
    order(anna, "acknowledge", MAIL._replace(place="shop/mail.py in beat"))
    order(boss, "acknowledge", MAIL)
    assert FailureMark.objects.count() == 2
    assert "2 groups are acknowledged or muted" in words(read(anna, URL))


@pytest.mark.databases("sqlite")
def test_the_page_works_on_a_site_of_its_own_and_costs_few_queries(root: Client) -> None:
    saved([failed_at("shop/mail.py", "send", 31), failure()])
    with override_settings(ROOT_URLCONF="tests.admin.two_sites"):
        url = "/operations/django_tasks/taskresult/failures/"
        answer = order(root, "acknowledge", MAIL, f"{url}?since=7d")
        assert answer.redirect_chain == [(f"{url}?since=7d", 302)]
        with CaptureQueriesContext(connection) as captured:
            page = read(root, f"{url}?aside=1")
    assert len(captured) <= 2 + 1
    assert '"/admin/' not in page
    assert "shop/mail.py:31 in send" in page


@pytest.mark.databases("sqlite")
def test_what_people_and_files_are_called_becomes_no_markup(browser: Browser) -> None:
    saved([failed_at(CANARY, CANARY, 31, name=CANARY)])
    client = browser("view_taskresult", "acknowledge_failure", "view_overview", username="eve")
    [group] = failures.grouped(TaskResult.objects.all(), ago(60), ago(0), 9).groups
    failures.acknowledge(group.kind, CANARY)
    failures.mute(group.kind, CANARY)
    for url in (f"{URL}?aside=1", "/admin/django_tasks/overview/"):
        check(read(client, url))
    check(order(client, "unmute", group.kind).content.decode())
