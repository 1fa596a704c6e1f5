"""What the page's buttons and the demo start: each job sends tasks and hands back their results."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

from django.db import transaction

from django_tasks import AsyncResult
from shop import tasks
from shop.models import Order, OutOfStock, Product, Report

ORDERS_AT_ONCE = 12
#: Seconds between the order and the question how it was.
REVIEW_AFTER = 3


def make_thumbnails() -> list[AsyncResult]:
    products = Product.objects.order_by("pk")
    return [tasks.make_thumbnail.delay(product.pk) for product in products]


def write_report() -> list[AsyncResult]:
    with transaction.atomic():
        report = Report.objects.create()
        result = tasks.write_report.delay(report.pk)
        report.task_id = result.id
        report.save(update_fields=["task_id"])
    return [result]


def place_order(product: Product, quantity: int, email: str) -> AsyncResult:
    with transaction.atomic():
        order = Order.objects.create(product=product, quantity=quantity, email=email)
        result = tasks.confirm_order.delay(order.pk)
        product.take(quantity)  # raises OutOfStock: then neither order nor task ever was
    return result


def place_orders() -> list[AsyncResult]:
    products = Product.objects.order_by("?")[:ORDERS_AT_ONCE]
    return [
        place_order(product, quantity, f"customer-{quantity}@example.com")
        for quantity, product in enumerate(products, start=1)
    ]


def order_too_much() -> list[AsyncResult]:
    product = Product.objects.order_by("?")[0]
    try:
        return [place_order(product, product.stock + 1, "greedy@example.com")]
    except OutOfStock:
        return []


def ask_for_review() -> list[AsyncResult]:
    orders = Order.objects.order_by("-pk")[:1]
    return [tasks.ask_for_review.apply_async((order.pk,), countdown=REVIEW_AFTER) for order in orders]


@dataclass(frozen=True)
class Job:
    """A button: what it is called, what it starts, and the code to show beside it."""

    slug: str
    title: str
    about: str
    start: Callable[[], list[AsyncResult]]
    shown: tuple[Callable[..., Any], ...]

    @property
    def code(self) -> str:
        """The lines behind the button, as they stand in the files."""
        return "\n\n".join(dedent(inspect.getsource(function)) for function in self.shown)


JOBS = (
    Job(
        "thumbnails",
        "Thumbnails",
        "Makes every picture small with Pillow: one task for each, in a queue of its own.",
        make_thumbnails,
        (make_thumbnails, tasks.make_thumbnail.run),
    ),
    Job(
        "report",
        "Sales report",
        "Writes a CSV file of 200,000 rows and tells how far it is.",
        write_report,
        (write_report, tasks.write_report.run),
    ),
    Job(
        "orders",
        "Orders",
        "Places 12 orders. Each is confirmed by e-mail, over a mail server that hangs up half the time: the task "
        "is tried again, each time later.",
        place_orders,
        (place_order, tasks.confirm_order.run, tasks.send),
    ),
    Job(
        "review",
        "A question later",
        "Asks who ordered last how it was, three seconds from now.",
        ask_for_review,
        (ask_for_review, tasks.ask_for_review.run),
    ),
    Job(
        "rollback",
        "An order that fails",
        "Orders more than there is. The transaction is rolled back, and the confirmation with it: no task is sent.",
        order_too_much,
        (order_too_much, place_order),
    ),
)


def by_slug(slug: str) -> Job:
    """Return the job of that name. Raises ``KeyError`` when there is none."""
    return {job.slug: job for job in JOBS}[slug]
