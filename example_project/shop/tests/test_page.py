from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from django_tasks.models import Task
from shop import jobs
from shop.models import Order, Product, Report

pytestmark = pytest.mark.django_db


@pytest.fixture
def shelves() -> list[Product]:
    return Product.objects.stock_shelves()


def test_an_empty_shop_has_a_page(client: Client) -> None:
    assert client.get("/").status_code == 200


def test_the_page_shows_a_button_and_the_code_of_each_job(client: Client) -> None:
    page = client.get("/").content.decode()
    for job in jobs.JOBS:
        assert f'action="{reverse("start", args=[job.slug])}"' in page
    assert page.count("csrfmiddlewaretoken") == len(jobs.JOBS)
    assert "@shared_task(queue=&quot;images&quot;)" in page
    assert "self.update_state(state=&quot;PROGRESS&quot;" in page


def test_the_page_needs_nothing_inline(client: Client) -> None:
    response = client.get("/")
    assert response.headers["Content-Security-Policy"] == "default-src 'self'"
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", response.content.decode())


def test_every_link_into_the_admin_leads_somewhere(client: Client, admin_user: User, shelves: list[Product]) -> None:
    for job in jobs.JOBS:
        client.post(reverse("start", args=[job.slug]))
    links = set(re.findall(r'href="(/admin/[^"]*)"', client.get("/").content.decode()))
    client.force_login(admin_user)
    assert {link: client.get(link).status_code for link in links} == dict.fromkeys(links, 200)


@pytest.mark.parametrize("job", jobs.JOBS, ids=lambda job: job.slug)
def test_each_button_starts_its_job(client: Client, shelves: list[Product], job: jobs.Job) -> None:
    response = client.post(reverse("start", args=[job.slug]), follow=True)
    assert response.status_code == 200
    assert f"{job.title}: " in response.content.decode()


def test_a_button_wants_its_csrf_token(shelves: list[Product]) -> None:
    assert Client(enforce_csrf_checks=True).post(reverse("start", args=["orders"])).status_code == 403


def test_a_link_cannot_start_a_job(client: Client) -> None:
    assert client.get(reverse("start", args=["orders"])).status_code == 405


def test_an_unknown_job_is_not_found(client: Client) -> None:
    assert client.post(reverse("start", args=["nonsense"])).status_code == 404


def test_a_report_that_waits_is_shown(client: Client, shelves: list[Product]) -> None:
    jobs.write_report()
    page = client.get("/").content.decode()
    assert "PENDING" in page
    assert 'max="200000" value="0"' in page
    assert Report.objects.get().task_id


def test_an_order_that_exceeds_the_stock_leaves_nothing_behind(shelves: list[Product]) -> None:
    assert jobs.order_too_much() == []
    assert Order.objects.count() == 0
    assert Task.objects.count() == 0
