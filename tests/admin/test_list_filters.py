"""The filters of the lists beyond state, queue, task and time: what they offer, and what they find."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tasks import dashboard, ids, states
from django_tasks.distinct import STEPS
from django_tasks.models import TaskTag
from tests.admin.conftest import Browser
from tests.admin.pages import ids_in, list_url, read, text_of
from tests.cockpit.site_rows import a_worker
from tests.databases import TestDatabase
from tests.rows import ago, failure, finished, saved, waiting


def test_each_filter_narrows_both_lists(database: TestDatabase, root: Client) -> None:
    worker = a_worker("w1@web")
    for model, make in (("task", waiting), ("taskresult", finished)):
        held: Any = {"worker_id": worker.pk, "state": states.STARTED} if model == "task" else {"worker": "w1@web"}
        ran: Any = {"started_at": ago(90)} if model == "task" else {"runtime": 90.0}
        first = ids.new_id()
        [plain, long, retried, member, child, tagged, high, low] = saved(
            [
                make(),
                make(**ran, **held),
                make(retries=1),
                make(id=first, root_id=first),
                make(root_id=first, parent_id=first),
                make(),
                make(priority=5),
                make(priority=-5),
            ]
        )
        TaskTag.objects.create(tag="vip", task_id=tagged.pk)
        every = {plain, long, retried, member, child, tagged, high, low}
        for query, wanted in (
            ({"worker": "w1@web"}, {long}),
            ({"run": ">1m"}, {long}),
            ({"run": ">10m"}, set()),
            ({"retried": "yes"}, {retried}),
            ({"is": "child"}, {child}),
            ({"is": "root"}, every - {child}),
            ({"tag": "vip"}, {tagged}),
            ({"prio": ">0"}, {high}),
            ({"prio": "<0"}, {low}),
            ({"prio": "0"}, every - {high, low}),
            ({"is": "root", "retried": "yes", "prio": "0"}, {retried}),
        ):
            page = read(root, f"{list_url(model)}?{urlencode(query)}")
            assert set(ids_in(page)) == {str(row.pk) for row in wanted}, (model, query)


@pytest.mark.databases("sqlite")
def test_members_of_a_group_are_no_root_tasks(root: Client) -> None:
    first = ids.new_id()
    saved([finished(id=first, root_id=first), finished(root_id=first)])
    assert ids_in(read(root, f"{list_url('taskresult')}?is=root")) == [first]


@pytest.mark.databases("sqlite")
def test_results_are_filtered_by_the_class_of_their_exception(root: Client) -> None:
    [row] = saved([failure()])
    saved([failure(exception="KeyError: 'x'"), failure(exception="no class: at all"), finished()])
    page = read(root, list_url("taskresult"))
    assert 'href="?exc=ValueError"' in page
    assert 'href="?exc=KeyError"' in page
    assert "?exc=no" not in page
    assert ids_in(read(root, f"{list_url('taskresult')}?exc=ValueError")) == [str(row.pk)]
    assert root.get(f"{list_url('taskresult')}?exc=a%20b").headers["Location"].endswith("?e=1")


@pytest.mark.parametrize("model", ["task", "taskresult"])
def test_there_is_to_choose_from_what_there_was_lately(database: TestDatabase, root: Client, model: str) -> None:
    [row] = saved([waiting(queue="mail")])
    saved([failure()])
    TaskTag.objects.create(tag="vip & <old>", task_id=row.pk)
    a_worker("w1@web")
    assert dashboard.known(["workers", "tags", "exceptions"]) == {
        "queues": dashboard.known_queues(),
        "workers": ["w1@web"],
        "tags": ["vip & <old>"],
        "exceptions": ["ValueError"],
    }
    page = read(root, list_url(model))
    for query in ("queue=mail", "worker=w1%40web", "tag=vip+%26+%3Cold%3E", "prio=%3E0", "run=%3E10m", "is=root"):
        assert f'href="?{query}"' in page, query


@pytest.mark.parametrize("more", [-1, 0, 1, 2 * STEPS])
def test_all_queues_are_offered_however_many_there_are(database: TestDatabase, more: int) -> None:
    names = [f"queue_{n:02}" for n in range(STEPS + more)]
    saved(waiting(queue=name) for name in names for _ in range(2))
    with CaptureQueriesContext(connection) as captured:
        found = dashboard.known([])["queues"]
    assert found == dashboard.known_queues()
    assert set(names) <= set(found)
    assert len(captured) == 1 + (more // STEPS + 1 if database.kind == "mariadb" else 0)


@pytest.mark.databases("mariadb")
def test_names_are_looked_up_at_the_same_cost_however_many_rows_have_them(database: TestDatabase) -> None:
    saved(waiting(queue=f"q{n % 3}") for n in range(900))
    saved(finished(name=f"shop.{n % 3}") for n in range(900))

    def rows_read() -> int:
        with database.connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler\\_read%'")
            return sum(int(count) for _name, count in cursor.fetchall())

    for ask, names in (
        (dashboard.waiting_queues, ["q0", "q1", "q2"]),
        (dashboard.finished_names, ["shop.0", "shop.1", "shop.2"]),
    ):
        told = rows_read()
        between = rows_read() - told  # what asking for it reads itself
        before = rows_read()
        assert ask() == names
        assert rows_read() - before - between <= STEPS * (STEPS + 1)


@pytest.mark.databases("sqlite")
def test_who_does_not_see_all_rows_is_not_told_the_tags_and_exceptions_of_others(
    root: Client, browser: Browser, settings: Any
) -> None:
    [row] = saved([failure(queue="other")])
    TaskTag.objects.create(tag="canary", task_id=row.pk)
    assert "?tag=canary" in read(root, list_url("taskresult"))
    path = "tests.admin.test_list_filters.nothing"
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": path}
    page = text_of(read(browser("view_taskresult"), list_url("taskresult")))
    assert "canary" not in page
    assert "ValueError" not in page


def nothing(request: Any, rows: Any) -> Any:
    return rows.none()


@pytest.mark.databases("sqlite")
def test_all_that_is_to_choose_from_is_one_query(root: Client) -> None:
    with CaptureQueriesContext(connection) as captured:
        read(root, list_url("taskresult"))
    asked = [one["sql"] for one in captured.captured_queries]
    assert len([one for one in asked if "django_tasks_tasktag" in one]) == 1
    assert len([one for one in asked if "WITH RECURSIVE" in one]) == 1


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("query", ["run=%3E7s", "retried=no", "is=nothing", "prio=9", "tag=a%00b", "worker="])
def test_a_choice_that_is_not_offered_leads_to_the_whole_list(root: Client, query: str) -> None:
    for model in ("task", "taskresult"):
        answer = root.get(f"{list_url(model)}?{query}")
        assert (answer.status_code, answer.headers.get("Location")) == (302, f"{list_url(model)}?e=1")
