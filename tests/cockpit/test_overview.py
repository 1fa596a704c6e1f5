"""The overview as a visitor gets it."""

from __future__ import annotations

import html
import re

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from django_tasks.cockpit import overview
from django_tasks.models import Beat, PeriodicTask, Rollup, Task, TaskResult, Worker
from tests.admin.conftest import Browser
from tests.admin.pages import Tags, ids_in, list_url, read, text_of
from tests.cockpit.site_rows import a_worker, durations, fill, rollup
from tests.rows import ago, failure, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

URL = "/admin/django_tasks/overview/"


def test_it_stands_in_the_index_for_who_may_see_it(browser: Browser) -> None:
    assert list_url("overview") == URL
    assert f'href="{URL}"' in read(browser("view_overview"), "/admin/")
    assert f'href="{URL}"' not in read(browser("view_worker"), "/admin/")


def test_it_says_what_is_wrong_and_what_cures_it(root: Client) -> None:
    text = text_of(read(root, URL))
    assert "No worker is online: nothing runs." in text
    assert "manage.py runworker" in text


def test_it_names_a_queue_that_nobody_consumes(root: Client) -> None:
    a_worker("w1", queues="default")
    saved([waiting(queue="mail", due_at=ago(840)) for _ in range(12)])
    text = text_of(read(root, URL))
    assert "Queue mail has 12 tasks waiting, and no online worker consumes it." in text
    assert "manage.py runworker -Q mail" in text
    assert "14 min" in text


def test_it_names_periodic_tasks_that_cannot_be_sent_but_not_what_they_were_to_be_sent_with(root: Client) -> None:
    a_worker("w1")
    Beat.objects.create(name="b", hostname="h", pid=1, version="1", started_at=ago(9), seen_at=ago(1))
    told = {"task": "shop.tasks.pulse", "interval": _every_minute()}
    for number in range(10):
        PeriodicTask.objects.create(name=f"Report {number}", **told)
    PeriodicTask.objects.create(name="Report off", enabled=False, **told)
    PeriodicTask.objects.update(last_error="ValidationError: input 'canary'")
    text = text_of(read(root, URL))
    assert "Periodic task Report 0 cannot be sent: ValidationError" in text
    assert "2 more periodic tasks cannot be sent." in text
    assert "Report off" not in text
    assert "canary" not in text


def test_health_says_what_errors_say_to_who_may_see_payloads(browser: Browser) -> None:
    told = {"task": "shop.tasks.pulse", "interval": _every_minute()}
    PeriodicTask.objects.create(name="Report", **told)
    PeriodicTask.objects.update(last_error="ValidationError: input 'canary'")
    for permissions, seen in ((("view_health",), False), (("view_health", "view_payload"), True)):
        text = text_of(read(browser(*permissions), list_url("health")))
        assert "Periodic task Report cannot be sent: ValidationError" in text
        assert ("canary" in text) == seen


def test_failures_lead_to_those_of_the_group_and_are_run_again_by_who_may(browser: Browser) -> None:
    a_worker("w1")
    many = [failure(name="shop.send", seconds_ago=at) for at in (1, 2, 8_000)]
    many += [failure(name="shop.send", exception="OSError: disk full"), failure(name="shop.send", exception="boom it")]
    saved(many)
    permissions = ("view_overview", "view_taskresult")
    looks, retries = browser(*permissions), browser(*permissions, "retry_taskresult")
    for client in (looks, retries, looks):
        page = read(client, URL)
        assert ("djt-retry" in page) == (client is retries)
        [query] = re.findall(r'<a href="/admin/django_tasks/taskresult/\?([^"]*ValueError[^"]*)"', page)
        query = html.unescape(query)
        assert len(ids_in(read(client, f"{list_url('taskresult')}?{query}"))) == 2
        assert "/admin/django_tasks/taskresult/failures/?since=1h" in page
    page = read(retries, URL)
    assert page.count('<button type="submit" form="djt-retry"') == 2  # no word finds what has no class, and no other
    token = {"action": "retry", "select_across": "1"}
    asked = retries.post(f"{list_url('taskresult')}?{query}", token).content.decode()
    assert "2 rows." in text_of(asked)
    blind = read(browser("view_overview", "retry_taskresult"), URL)
    assert "djt-retry" not in blind
    assert 'id="djt-retry"' not in retries.get(f"{URL}?fragment=1").content.decode()


def test_nothing_wrong_is_said_too(root: Client) -> None:
    a_worker("w1")
    assert "Nothing is wrong." in text_of(read(root, URL))


@pytest.mark.parametrize("person", ["root", "staff"])
@pytest.mark.databases("sqlite", "postgresql")
def test_it_costs_few_queries_however_much_there_is(person: str, browser: Browser) -> None:
    fill()
    client = browser(is_superuser=True) if person == "root" else browser("view_overview")
    read(client, "/admin/django_tasks/health/" if person == "root" else "/admin/")  # what is only asked once
    overview.forget()
    with CaptureQueriesContext(connection) as queries:
        page = read(client, URL)
    # One more, for the heads of queues, goes over the broker's own connection; Django asks two for rights of staff.
    assert len(queries) <= (13 if person == "root" else 15), [query["sql"][:100] for query in queries]
    assert page.count("<svg") > 8


def test_who_looks_at_the_same_time_shares_what_was_gathered(root: Client) -> None:
    fill()
    etag = root.get(f"{URL}?fragment=1").headers["ETag"]
    with CaptureQueriesContext(connection) as queries:
        answer = root.get(f"{URL}?fragment=1", headers={"If-None-Match": etag})
    assert len(queries) == 2  # the session, and who it is
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_fragment_comes_anew_once_something_changed(root: Client) -> None:
    a_worker("w1")
    etag = root.get(f"{URL}?fragment=1").headers["ETag"]
    a_worker("w2")
    overview.forget()
    answer = root.get(f"{URL}?fragment=1", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert answer.headers["ETag"] != etag
    assert "w2" in answer.content.decode()
    assert "<html" not in answer.content.decode()


@override_settings(MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE])
def test_who_has_seen_it_is_told_so_where_answers_are_compressed(root: Client) -> None:
    fill(minutes=2)
    compressed = {"Accept-Encoding": "gzip"}
    etag = root.get(f"{URL}?fragment=1", headers=compressed).headers["ETag"]
    assert etag.startswith('W/"')
    assert root.get(f"{URL}?fragment=1", headers={**compressed, "If-None-Match": etag}).status_code == 304


@override_settings(SESSION_SAVE_EVERY_REQUEST=True)
def test_looking_keeps_no_session_alive(root: Client) -> None:
    assert settings.SESSION_COOKIE_NAME in root.get(URL).cookies
    assert settings.SESSION_COOKIE_NAME not in root.get(f"{URL}?fragment=1").cookies


def test_who_may_not_see_it_gets_no_fragment(browser: Browser) -> None:
    assert browser("view_worker").get(f"{URL}?fragment=1").status_code == 403
    assert Client().get(f"{URL}?fragment=1").status_code == 302


@pytest.mark.parametrize("span", ["1h", "6h", "24h", "7d", "30d", "nonsense", ""])
def test_every_span_is_a_page(root: Client, span: str) -> None:
    fill(minutes=5)
    page = read(root, f"{URL}?span={span}")
    chosen = span if span.endswith(("h", "d")) else "1h"
    assert re.search(rf'<a href="\?span={chosen}" aria-current="true">', page)


@override_settings(LANGUAGE_CODE="de", USE_THOUSAND_SEPARATOR=True)
def test_it_can_be_read_in_german(root: Client) -> None:
    saved([rollup("q", "a", moment=int(ago(0).timestamp()), succeeded=12345, **durations(12345, wait=0.5, run=2.5))])
    page = read(root, URL)
    assert "12.345" in text_of(page)
    for path in re.findall(r' d="([^"]*)"', page):
        assert "," not in path


CANARY = '<img src=x onerror="alert(1)">'


def test_nothing_stored_becomes_markup(root: Client) -> None:
    moment = int(ago(0).timestamp())
    queue = "q<b>"  # no queue of ours: written past every check
    worker = a_worker(CANARY, hostname=CANARY, queues=CANARY)
    saved([rollup(queue, CANARY, moment=moment, succeeded=1, failed=9, **durations(9, wait=1, run=1))])
    saved([failure(CANARY, name=CANARY, exception=f"{CANARY}: x")])
    saved(
        [
            waiting(queue=queue, name=CANARY),
            waiting(name=CANARY, state="UNROUTABLE"),
            waiting(name=CANARY, state="STARTED", worker_id=worker.pk, started_at=ago(5)),
        ]
    )
    PeriodicTask.objects.create(name=CANARY, task=CANARY, interval=_every_minute(), next_run_at=ago(-60))
    urls = [
        URL, list_url("queue"), list_url("tasktype"), list_url("health"), list_url("worker"),
        f"/admin/django_tasks/worker/{worker.pk}/change/",
    ]  # fmt: skip
    for url in urls:
        page = read(root, url)
        assert "onerror" in text_of(page) or url == list_url("queue"), url
        tags = Tags(page).seen
        assert not [tag for tag in tags if tag[0] == "b"], url
        assert not [
            tag for tag, attributes in tags if any(name.startswith("on") or name == "style" for name in attributes)
        ], url
        assert not [tag for tag, attributes in tags if tag == "img" and attributes.get("src") == "x"], url
        assert not [tag for tag, attributes in tags if tag == "script" and not attributes.get("src")], url


def _every_minute() -> object:
    from django_tasks.models import IntervalSchedule

    return IntervalSchedule.objects.create(every=1, period="minutes")


def test_looking_changes_nothing(root: Client) -> None:
    fill(minutes=3)
    models = (Rollup, Task, TaskResult, Worker)
    before = [list(model.objects.order_by("pk").values()) for model in models]
    for url in (URL, list_url("queue"), list_url("tasktype"), list_url("health")):
        read(root, url)
        assert root.post(url).status_code in (200, 403, 405)
    assert [list(model.objects.order_by("pk").values()) for model in models] == before


def test_it_works_on_a_site_of_its_own(root: Client) -> None:
    with override_settings(ROOT_URLCONF="tests.admin.two_sites"):
        fill(minutes=2)
        page = read(root, "/operations/django_tasks/overview/")
    assert '"/operations/django_tasks/queue/mail/change/"' in page
    assert '"/admin/' not in page


def test_each_number_leads_to_where_it_is_explained(root: Client) -> None:
    fill(minutes=60)
    saved([waiting(queue="mail", due_at=ago(900))])
    for span, since in (("1h", "1h"), ("24h", "1d"), ("30d", "30d")):
        cards = read(root, f"{URL}?span={span}").partition('<dl class="djt-cards">')[2].partition("</dl>")[0]
        links = re.findall(r'<dt><a href="/admin/django_tasks/([^"]*)">', cards)
        expected = ["queue/", "task/?state=STARTED", "task/?state=PENDING", f"taskresult/failures/?since={since}"]
        assert links == [*expected, "queue/mail/change/", "worker/"]
        for link in links:
            assert root.get(f"/admin/django_tasks/{link}").status_code == 200
