"""What the shop does in the background. A worker finds this module by its name."""

from __future__ import annotations

import csv
import tempfile
from datetime import UTC, datetime
from io import TextIOWrapper
from smtplib import SMTPServerDisconnected
from typing import Any

from django.core.files import File
from django.core.mail import EmailMessage

from django_tasks import Task, shared_task
from shop import pictures, sales
from shop.models import Order, Product, Report

#: How often a running report tells where it is, in rows.
ROWS_PER_STEP = 2_000

#: For tasks that talk to the mail server: up to eight more tries, each after a random delay of at most 0.2, 0.4, 0.8 …
#: 5 seconds. Random, so that what failed together does not come back together.
MAIL_RETRIES: dict[str, Any] = {
    "autoretry_for": (SMTPServerDisconnected,),
    "max_retries": 8,
    "retry_backoff": 0.2,
    "retry_backoff_max": 5,
    "retry_jitter": True,
}


@shared_task(queue="images")
def make_thumbnail(product_id: int) -> dict[str, Any]:
    """Make the small picture of a product."""
    product = Product.objects.get(pk=product_id)
    with product.picture.open() as picture:
        product.keep_thumbnail(pictures.make_small(picture.read()))
    return {"file": product.thumbnail.name, "bytes": product.thumbnail.size}


@shared_task(bind=True)
def write_report(self: Task, report_id: int) -> dict[str, Any]:
    """Write the file of a sales report, and tell how far it is."""
    report = Report.objects.get(pk=report_id)
    prices = list(Product.objects.values_list("name", "price"))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with tempfile.TemporaryFile() as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text)
        table.writerow(sales.Sale._fields)
        for sale in sales.invent(report.rows, prices=prices, start=start, seed=report_id):
            table.writerow(sale)
            if sale.number % ROWS_PER_STEP == 0:
                self.update_state(state="PROGRESS", meta={"current": sale.number, "total": report.rows})
        text.detach()  # writes what it still holds
        report.finish(File(file))
    return {"file": report.file.name, "rows": report.rows, "bytes": report.file.size}


@shared_task(**MAIL_RETRIES)
def confirm_order(order_id: int) -> str:
    """Tell a customer by e-mail that the order has arrived."""
    order = Order.objects.select_related("product").get(pk=order_id)
    text = f"Thank you for ordering {order.quantity} x {order.product}. It is on its way."
    message_id = send(order, "confirmation", subject=f"Your order {order.pk}", text=text)
    order.confirm()
    return message_id


@shared_task(**MAIL_RETRIES)
def ask_for_review(order_id: int) -> str:
    """Ask a customer by e-mail how it was."""
    order = Order.objects.select_related("product").get(pk=order_id)
    text = f"How did you like our {order.product}? Answer this mail, a human reads it."
    return send(order, "review", subject=f"About your order {order.pk}", text=text)


def send(order: Order, kind: str, *, subject: str, text: str) -> str:
    """Send a mail to who ordered. Returns its ``Message-ID``.

    The id is made of the order, not of the moment: a task may run twice, and the second mail then counts as the first.
    """
    message_id = f"<order-{order.pk}.{kind}@corner-shop.example>"
    EmailMessage(subject, text, to=[order.email], headers={"Message-ID": message_id}).send()
    return message_id
