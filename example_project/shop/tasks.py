"""What the shop does in the background. A worker finds this module by its name."""

from __future__ import annotations

import csv
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from io import TextIOWrapper
from smtplib import SMTPServerDisconnected
from typing import Any

from django.core.files import File
from django.core.mail import EmailMessage
from django.utils import timezone

from django_tasks import Task, shared_task
from django_tasks.schedules import crontab, solar
from shop import pictures, sales, webhooks
from shop.models import Order, Product, Report

#: How often a running report tells where it is, in rows.
ROWS_PER_STEP = 2_000
#: Fewer pieces than this are about to run out.
FEW = 5

#: For tasks that talk to the mail server: up to eight more tries, each after a random delay of at most 0.2, 0.4, 0.8 …
#: 5 seconds. Random, so that what failed together does not come back together.
MAIL_RETRIES: dict[str, Any] = {
    "autoretry_for": (SMTPServerDisconnected,),
    "max_retries": 8,
    "retry_backoff": 0.2,
    "retry_backoff_max": 5,
    "retry_jitter": True,
}

#: The sun's schedule needs ephem: pip install "django-workbeat[solar]". Without it the task has no schedule.
AT_SUNSET = {"name": "Light the sign", "schedule": solar("sunset", 52.52, 13.405)} if find_spec("ephem") else None


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


@shared_task(
    periodic={
        "name": "Look at the shelves",
        "schedule": timedelta(minutes=1),
        "overlap": "skip",
        "description": "Tells once a minute what is about to run out.",
    }
)
def look_at_the_shelves() -> dict[str, int]:
    """Tell what is about to run out, with the number of pieces that are left."""
    return dict(Product.objects.filter(stock__lt=FEW).values_list("name", "stock"))


@shared_task(periodic={"name": "Throw old reports away", "schedule": crontab(30, 3, tz="Europe/Berlin")})
def throw_old_reports_away(days: int = 30) -> int:
    """Delete reports that were written so many days ago; return how many."""
    old = Report.objects.filter(finished_at__lt=timezone.now() - timedelta(days=days))
    for report in old:
        report.file.delete(save=False)
    return old.delete()[0]


@shared_task(periodic=AT_SUNSET)
def light_the_sign() -> str:
    """Light the sign above the door."""
    return "The sign is lit."


@shared_task(bind=True)
def write_invoices(self: Task) -> str:
    """Count the orders that an invoice is due for; ``plan_invoices`` says when it runs."""
    count = Order.objects.exclude(confirmed_at=None).count()
    return f"{count} invoices, planned for {self.request.scheduled_for}"


@shared_task(
    bind=True,
    queue="webhooks",
    rate_limit="5/s",
    autoretry_for=(webhooks.NotTaken, OSError),
    retry_backoff=0.5,
    max_retries=8,
)
def tell_partner(self: Task, number: int) -> int:
    """Tell the partner of a sale: five a second at most, of all workers together."""
    try:
        return webhooks.post({"sale": number})
    except webhooks.TooMany as error:
        raise self.retry(exc=error, countdown=error.seconds) from error


class TillIsStuck(Exception):
    """The drawer does not open."""


@shared_task
def count_the_till(till: int) -> int:
    """Count the money in a till: never works."""
    raise TillIsStuck(f"The drawer of till {till} does not open.")


@shared_task(time_limit=3)
def wait_for_the_truck(seconds: float = 60) -> str:
    """Wait longer than allowed; after three seconds the attempt is ended from outside, and is a failure."""
    time.sleep(seconds)
    return "The truck is here."


@shared_task(queue="load")
def do_nothing(number: int) -> int:
    """Do nothing, many times: what is left is the cost of a task."""
    return number


def send(order: Order, kind: str, *, subject: str, text: str) -> str:
    """Send a mail to who ordered. Returns its ``Message-ID``.

    The id is made of the order, not of the moment: a task may run twice, and the second mail then counts as the first.
    """
    message_id = f"<order-{order.pk}.{kind}@corner-shop.example>"
    EmailMessage(subject, text, to=[order.email], headers={"Message-ID": message_id}).send()
    return message_id
