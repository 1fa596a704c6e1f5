"""Views of lists that people keep, and columns that they choose."""

from __future__ import annotations

import re
from html import escape, unescape

import pytest
from django.test import Client

from django_tasks.models import SavedView
from django_tasks.task_admin.own_views import MOST
from tests.admin.conftest import Browser
from tests.admin.pages import ids_in, link, list_url, read
from tests.rows import failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

KEEP = "/admin/django_tasks/taskresult/views/"


def headers(page: str) -> list[str]:
    """Return the columns of a list."""
    return re.findall(r'class="(?:sortable )?column-(\w+)', page)


def links(page: str) -> dict[str, str]:
    """Return the saved views, names and addresses."""
    own = page[page.index('class="djt-own"') :]
    return {name: unescape(url) for url, name in re.findall(r'<li><a href="([^"]*)">([^<]*)</a>', own)}


def test_a_view_is_kept_and_leads_to_what_was_shown(root: Client) -> None:
    saved([finished(queue="mail"), failure(queue="mail"), failure()])
    query = "q=queue%3Amail&state=FAILURE&columns=shown_state%2Cqueue"
    answer = root.post(KEEP, {"name": "Mail that failed", "query": f"{query}&older=x~y"}, follow=True)
    assert answer.redirect_chain == [(f"{list_url('taskresult')}?{query}", 302)]
    found = links(read(root, KEEP))
    assert found == {"Mail that failed": answer.redirect_chain[0][0]}
    page = read(root, found["Mail that failed"])
    assert len(ids_in(page)) == 1
    assert headers(page) == ["task_name", "shown_state", "queue"]
    keep = re.search(r'<a href="([^"]*)">Saved views</a>', page)
    assert keep is not None
    assert f'name="query" value="{escape(query)}"' in read(root, unescape(keep[1]))
    root.post(KEEP, {"name": "Mail that failed", "query": "state=FAILURE"})
    assert links(read(root, KEEP)) == {"Mail that failed": f"{list_url('taskresult')}?state=FAILURE"}
    root.post(KEEP, {"name": "Mail that failed", "forget": "1"})
    assert not SavedView.objects.exists()


def test_a_view_is_of_one_person_and_one_list(root: Client, browser: Browser) -> None:
    root.post(KEEP, {"name": "<b>mine</b>", "query": "state=FAILURE"})
    other = browser("view_taskresult", "view_task")
    assert links(read(other, KEEP)) == {}
    assert links(read(root, KEEP.replace("taskresult", "task"))) == {}
    assert list(links(read(root, KEEP))) == ["&lt;b&gt;mine&lt;/b&gt;"]
    other.post(KEEP, {"name": "<b>mine</b>", "forget": "1"})
    assert SavedView.objects.count() == 1
    assert browser("view_worker").post(KEEP, {"name": "a"}).status_code == 403
    assert SavedView.objects.count() == 1


def test_views_have_names_and_are_not_too_many(root: Client) -> None:
    for name in ("", "x" * 65):
        assert "A view needs a name" in root.post(KEEP, {"name": name}, follow=True).content.decode()
    for number in range(MOST):
        root.post(KEEP, {"name": str(number)})
    assert "forget one first" in root.post(KEEP, {"name": "one more"}, follow=True).content.decode()
    assert SavedView.objects.count() == MOST
    root.post(KEEP, {"name": "0", "query": "state=FAILURE"})
    assert SavedView.objects.get(name="0").query == "state=FAILURE"


def test_columns_are_chosen_by_boxes_and_stay_on_the_way_through_the_list(root: Client) -> None:
    saved([waiting() for _ in range(101)])
    plain = read(root, list_url("task"))
    assert {"priority", "created", "worker"} <= set(headers(plain))
    assert not {"workflow", "shown_id"} & set(headers(plain)), "shown though nobody chose it"
    assert '<input type="checkbox" name="column" value="priority" checked>' in plain
    assert '<input type="checkbox" name="column" value="workflow">' in plain
    assert "workflow" in headers(read(root, list_url("task") + "?columns=workflow"))
    answer = root.get(list_url("task") + "?q=queue:default&column=task_name&column=queue&column=nonsense&column=due")
    assert answer.headers["Location"] == f"{list_url('task')}?q=queue%3Adefault&columns=task_name%2Cqueue%2Cdue"
    page = read(root, answer.headers["Location"])
    chosen = [name for name in headers(page) if name != "action_checkbox"]
    assert chosen == ["task_name", "queue", "due"]
    older = link(page, "next")
    assert older is not None
    assert "columns=" in older
    assert [one for one in headers(read(root, list_url("task") + older)) if one != "action_checkbox"] == chosen
    assert '<input type="checkbox" name="column" value="priority">' in page
    assert '<input type="checkbox" name="column" value="queue" checked>' in page


def test_payloads_do_not_become_columns_by_asking(browser: Browser) -> None:
    saved([failure("secret words")])
    page = read(browser("view_taskresult"), list_url("taskresult") + "?columns=error,body,error_class")
    assert "secret words" not in page
    assert headers(page) == ["task_name", "error_class"]
