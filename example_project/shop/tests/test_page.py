from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape
from pytest_django import Settings

from django_tasks.models import PeriodicTask, Task
from shop import jobs, webhooks
from shop.assortment import ARTICLES
from shop.models import Order, Product, Report

pytestmark = pytest.mark.django_db

#: What each button sends, by the name of the task.
SENDS = {
    ("thumbnails", "Make 24 thumbnails"): {"shop.tasks.make_thumbnail": 24},
    ("report", "Write a report"): {"shop.tasks.write_report": 1},
    ("orders", "Place 12 orders"): {"shop.tasks.confirm_order": 12},
    ("review", "Ask in three seconds"): {"shop.tasks.ask_for_review": 1},
    ("rollback", "Order too much"): {},
    ("pipeline", "Import the lists"): {
        "suppliers.tasks.extract": 3,
        "suppliers.tasks.transform_all": 1,
        "suppliers.tasks.notify": 1,
    },
    ("webhooks", "Send 20 webhooks"): {"shop.tasks.tell_partner": 20},
    ("pulse", "Look at the shelves now"): {"shop.tasks.look_at_the_shelves": 1},
    ("nightly", "Clean up now"): {"shop.tasks.throw_old_reports_away": 1},
    ("sunset", "Light the sign now"): {"shop.tasks.light_the_sign": 1},
    ("invoices", "Plan the invoices"): {},
    ("failures", "Count the tills"): {"shop.tasks.count_the_till": 3},
    ("time-limit", "Wait for the truck"): {"shop.tasks.wait_for_the_truck": 1},
    ("load", "Send 1"): {"shop.tasks.do_nothing": 1},
    ("load", "Send 100"): {"shop.tasks.do_nothing": 100},
    ("load", "Send 10,000"): {"shop.tasks.do_nothing": 10_000},
}
BUTTONS = [(job, button) for job in jobs.JOBS for button in job.buttons]


@pytest.fixture
def shelves() -> list[Product]:
    """All products, in pictures that nobody looks at."""
    return Product.objects.bulk_create(
        Product(name=article.name, price=article.price, picture="none.jpg") for article in ARTICLES
    )


@pytest.fixture
def order(shelves: list[Product]) -> Order:
    return Order.objects.create(product=shelves[0], quantity=1, email="someone@example.com")


def test_an_empty_shop_has_a_page(client: Client) -> None:
    assert client.get("/").status_code == 200


def test_the_page_shows_the_buttons_and_the_code_of_each_job(client: Client) -> None:
    page = client.get("/").content.decode()
    for job, button in BUTTONS:
        assert f'action="{reverse("start", args=[job.slug])}"' in page
        assert f'<button name="button" value="{button}">' in page
        assert escape(job.code) in page
        assert all(f'href="{place.url}"' in page for place in job.places)
    assert page.count("csrfmiddlewaretoken") == len(jobs.JOBS)
    assert "@shared_task(queue=&quot;images&quot;)" in page


def test_the_page_needs_nothing_inline(client: Client) -> None:
    response = client.get("/")
    assert response.headers["Content-Security-Policy"] == "default-src 'self'"
    assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=", response.content.decode())


@pytest.mark.django_db(transaction=True)  # some pages look through a connection of their own
@pytest.mark.usefixtures("order")
def test_every_link_into_the_admin_leads_somewhere(client: Client, admin_user: User) -> None:
    for job in jobs.JOBS:
        client.post(reverse("start", args=[job.slug]))
    links = set(re.findall(r'href="(/admin/[^"]*)"', client.get("/").content.decode()))
    client.force_login(admin_user)
    assert {link: client.get(link).status_code for link in links} == dict.fromkeys(links, 200)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize(("job", "button"), BUTTONS, ids=lambda value: getattr(value, "slug", value))
def test_each_button_sends_what_it_says(client: Client, job: jobs.Job, button: str) -> None:
    response = client.post(reverse("start", args=[job.slug]), {"button": button}, follow=True)
    assert response.redirect_chain == [(f"/#{job.slug}", 302)]
    assert f'<p class="told" role="status">{escape(job.title)}: ' in response.content.decode()
    assert Counter(Task.objects.values_list("name", flat=True)) == SENDS[job.slug, button]


def test_what_was_sent_last_is_shown_with_its_pages(client: Client) -> None:
    page = client.post(reverse("start", args=["pipeline"]), follow=True).content.decode()
    task = Task.objects.get(name="suppliers.tasks.notify")
    assert reverse("admin:django_tasks_task_change", args=[task.pk]) in page
    assert reverse("admin:django_tasks_workflow_change", args=[task.root_id]) in page
    assert page.count('class="djt-task-progress"') == 1


def test_the_invoices_are_planned_for_a_minute_from_now(client: Client) -> None:
    client.post(reverse("start", args=["invoices"]))
    row = PeriodicTask.objects.get(task="shop.tasks.write_invoices")
    assert row.one_off
    assert row.next_run_at is not None
    assert timedelta(0) < row.next_run_at - timezone.now() <= timedelta(minutes=1)


def test_a_button_wants_its_csrf_token(shelves: list[Product]) -> None:
    assert Client(enforce_csrf_checks=True).post(reverse("start", args=["orders"])).status_code == 403


def test_a_link_cannot_start_a_job(client: Client) -> None:
    assert client.get(reverse("start", args=["orders"])).status_code == 405


def test_an_unknown_job_is_not_found(client: Client) -> None:
    assert client.post(reverse("start", args=["nonsense"])).status_code == 404


def test_an_unknown_button_is_not_found(client: Client) -> None:
    assert client.post(reverse("start", args=["load"]), {"button": "Send all"}).status_code == 404


def test_a_report_that_waits_is_shown(client: Client, shelves: list[Product]) -> None:
    jobs.write_report()
    page = client.get("/").content.decode()
    assert 'data-djt-state="PENDING"' in page
    assert f'href="{reverse("admin:shop_report_change", args=[Report.objects.get().pk])}"' in page


def test_an_order_that_exceeds_the_stock_leaves_nothing_behind(shelves: list[Product]) -> None:
    assert jobs.order_too_much() == []
    assert Order.objects.count() == 0
    assert Task.objects.count() == 0


@pytest.mark.parametrize(("rate", "statuses"), [(0, {204}), (1, {429, 500})])
def test_the_partner_takes_what_is_signed_or_says_when_to_come_back(
    client: Client, settings: Settings, rate: int, statuses: set[int]
) -> None:
    settings.SHOP_PARTNER_FAILURE_RATE = rate
    headers = {webhooks.SIGNATURE: webhooks.sign(b"{}")}
    answers = [client.post("/partner/", b"{}", "application/json", headers=headers) for _ in range(40)]
    assert {answer.status_code for answer in answers} == statuses
    assert all(answer.has_header("Retry-After") == (answer.status_code == 429) for answer in answers)


def test_the_partner_takes_nothing_that_is_not_signed() -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.post("/partner/", b"{}", "application/json").status_code == 403
