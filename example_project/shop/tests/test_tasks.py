"""The tasks as plain functions; that a worker runs them is shown by the demo."""

from __future__ import annotations

import csv
from datetime import timedelta
from smtplib import SMTPServerDisconnected

import pytest
from django.core import mail
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from django_tasks.models import PeriodicTask
from shop import tasks, webhooks
from shop.models import Order, Product, Report

pytestmark = pytest.mark.django_db


@pytest.fixture
def order(product: Product) -> Order:
    return Order.objects.create(product=product, quantity=2, email="someone@example.com")


@pytest.fixture
def server_that_is_down(settings: Settings) -> None:
    """Take the shop's own transport in place of the outbox that tests get, and let all deliveries fail."""
    transport = "shop.mail.FlakyFileBackend"
    if hasattr(settings, "MAILERS"):
        settings.MAILERS = {"default": {"BACKEND": transport}}
    else:
        settings.EMAIL_BACKEND = transport
    settings.SHOP_MAIL_FAILURE_RATE = 1


def test_a_thumbnail_is_made(product: Product) -> None:
    told = tasks.make_thumbnail(product.pk)
    product.refresh_from_db()
    assert told == {"file": product.thumbnail.name, "bytes": product.thumbnail.size}


def test_a_report_has_the_rows_that_were_asked_for(product: Product) -> None:
    report = Report.objects.create(rows=10)
    told = tasks.write_report(report.pk)
    report.refresh_from_db()
    with report.file.open("r") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == [str(number) for number in range(1, 11)]
    assert told == {"file": report.file.name, "rows": 10, "bytes": report.file.size}
    assert report.finished_at is not None


def test_an_order_is_confirmed_when_the_mail_is_out(order: Order) -> None:
    message_id = tasks.confirm_order(order.pk)
    order.refresh_from_db()
    assert order.confirmed_at is not None
    assert [sent.extra_headers["Message-ID"] for sent in mail.outbox] == [message_id]
    assert "2 x Apples" in str(mail.outbox[0].body)


def test_what_is_about_to_run_out_is_told(product: Product) -> None:
    assert tasks.look_at_the_shelves() == {"Apples": 3}
    Product.objects.update(stock=1_000)
    assert tasks.look_at_the_shelves() == {}


def test_old_reports_are_thrown_away(product: Product) -> None:
    old, new = (Report.objects.create(rows=1) for _ in range(2))
    for report in (old, new):
        tasks.write_report(report.pk)
    Report.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(days=31))
    assert tasks.throw_old_reports_away() == 1
    assert Report.objects.get() == new


def test_the_shop_declares_what_runs_by_a_schedule() -> None:
    call_command("tasks", "sync-schedules")
    assert set(PeriodicTask.objects.values_list("name", flat=True)) >= {
        "Look at the shelves",
        "Throw old reports away",
        *(["Light the sign"] if tasks.AT_SUNSET else []),
    }


@pytest.mark.usefixtures("server_that_is_down")
def test_an_order_is_not_confirmed_when_the_server_hangs_up(order: Order) -> None:
    with pytest.raises(SMTPServerDisconnected):
        tasks.confirm_order.run(order.pk)
    order.refresh_from_db()
    assert order.confirmed_at is None


def test_a_mail_keeps_its_id_when_the_task_runs_twice(order: Order) -> None:
    assert tasks.ask_for_review(order.pk) == tasks.ask_for_review(order.pk)


def test_the_partner_is_told(live_server: LiveServer, settings: Settings) -> None:
    settings.SHOP_URL, settings.SHOP_PARTNER_FAILURE_RATE = live_server.url, 0
    assert tasks.tell_partner(1) == 204


def test_a_partner_who_does_not_take_it_is_an_error_to_retry(live_server: LiveServer, settings: Settings) -> None:
    settings.SHOP_URL, settings.SHOP_PARTNER_FAILURE_RATE = live_server.url, 1
    with pytest.raises(webhooks.NotTaken, match=r"answers 500|pause of 2 s"):
        tasks.tell_partner.run(1)


def test_no_till_can_be_counted() -> None:
    with pytest.raises(tasks.TillIsStuck, match="till 2"):
        tasks.count_the_till(2)
