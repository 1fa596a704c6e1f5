"""Lists that follow what happens: what is given anew, to whom, and when nothing is."""

from __future__ import annotations

from html import unescape

import pytest
from django.test import Client

from django_tasks import changelists, paging
from tests.admin.conftest import Browser
from tests.admin.pages import ids_in, link, list_url, read, text_of
from tests.cockpit.site_rows import a_worker
from tests.rows import ago, failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

MODELS = ("task", "taskresult", "worker")


def live_url(page: str) -> str:
    """Return what the page asks for again and again; ``""`` if it does not."""
    found = page.partition('data-djt-live="')[2].partition('"')[0]
    return unescape(found)


@pytest.mark.usefixtures("database")
def test_the_newest_page_gives_its_rows_anew(root: Client) -> None:
    for model in MODELS:
        assert live_url(read(root, list_url(model))) == "?fragment=1"
    saved([waiting(name="shop.<b>", queue="mail")])
    saved([failure(queue="mail")])
    a_worker("w1@web")
    for model in MODELS:
        page = read(root, list_url(model))
        part = read(root, list_url(model) + live_url(page))
        assert "<html" not in part
        told = ["w1@web"] if model == "worker" else [*ids_in(page), "0 of 1 selected"]
        for text in (*told, "djt-pages"):
            assert text in page
            assert text in part
        table = part.partition('<table id="result_list"')[2].partition("</table>")[0]
        assert "fragment" not in table, "links carry it on"
    assert "shop.&lt;b&gt;" in read(root, f"{list_url('task')}?fragment=1")


@pytest.mark.usefixtures("database")
def test_filters_search_and_columns_stay(root: Client) -> None:
    [row] = saved([finished(queue="mail")])
    saved([finished()])
    page = read(root, f"{list_url('taskresult')}?queue=mail&q=state:success&columns=queue")
    part = read(root, list_url("taskresult") + live_url(page))
    assert ids_in(part) == [str(row.pk)]
    assert "field-shown_state" not in part
    assert f'{row.pk}/change/?_changelist_filters=columns%3Dqueue%26q%3Dstate%253Asuccess%26queue%3Dmail"' in part


@pytest.mark.usefixtures("database")
def test_who_has_the_newest_is_told_so_and_no_session_lives_longer(root: Client) -> None:
    saved([finished()])
    url = f"{list_url('taskresult')}?fragment=1"
    first = root.get(url)
    again = root.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert not again.cookies
    saved([finished()])
    assert root.get(url, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


@pytest.mark.usefixtures("database")
def test_only_the_newest_page_is_live(root: Client) -> None:
    saved(finished(seconds_ago=number) for number in range(150))
    first = read(root, list_url("taskresult"))
    older = read(root, list_url("taskresult") + (link(first, "next") or ""))
    assert live_url(older) == ""
    assert "data-djt-every" not in older
    assert "data-djt-every" in first


def test_what_no_index_finds_is_not_looked_for_again_and_again(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(finished(seconds_ago=number) for number in range(300))
    monkeypatch.setattr(paging, "_SQLITE_STEPS", 100)
    monkeypatch.setattr(paging, "REACH", 20)
    monkeypatch.setattr(changelists, "QUICKLY", 0.0)
    url = f"{list_url('taskresult')}?queue=rare"
    assert live_url(read(root, url)) == ""
    assert root.get(f"{url}&fragment=1").status_code == 429
    assert "looked through" not in text_of(read(root, list_url("taskresult"))), "it was told where it did not belong"


@pytest.mark.usefixtures("database")
def test_a_fragment_is_for_who_may_see_the_list(browser: Browser) -> None:
    saved([waiting(due_at=ago(5))])
    assert browser("view_taskresult").get(f"{list_url('task')}?fragment=1").status_code == 403
    assert Client().get(f"{list_url('task')}?fragment=1").status_code == 302
    mine = browser("view_task", username="who-may")
    assert len(ids_in(read(mine, f"{list_url('task')}?fragment=1"))) == 1
    assert mine.get(f"{list_url('task')}?fragment=1&state=BOGUS").status_code == 400
    assert mine.get(f"{list_url('task')}?fragment=1&body__contains=1").status_code == 400
