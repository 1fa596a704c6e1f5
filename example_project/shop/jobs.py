"""What the page's buttons and the demo start: each job sends tasks and hands back their results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from textwrap import dedent
from typing import Any

from django.conf import settings
from django.contrib.admin.utils import quote
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from django_tasks import AsyncResult
from django_tasks.models import PeriodicTask
from django_tasks.schedules import clocked
from shop import tasks
from shop.models import Order, OutOfStock, Product, Report
from suppliers import lists
from suppliers import tasks as suppliers

ORDERS_AT_ONCE = 12
WEBHOOKS_AT_ONCE = 20
LOADS = (1, 100, 10_000)
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


def import_price_lists() -> list[AsyncResult]:
    directory = settings.DATA_DIR / "price-lists"
    directory.mkdir(exist_ok=True)
    lists.write_lists(directory)
    return [suppliers.import_price_lists(sorted(directory.glob("*.csv")))]


def tell_partner() -> list[AsyncResult]:
    return [tasks.tell_partner.delay(number) for number in range(1, WEBHOOKS_AT_ONCE + 1)]


def look_at_the_shelves() -> list[AsyncResult]:
    return [tasks.look_at_the_shelves.delay()]


def throw_old_reports_away() -> list[AsyncResult]:
    return [tasks.throw_old_reports_away.delay()]


def light_the_sign() -> list[AsyncResult]:
    return [tasks.light_the_sign.delay()]


def plan_invoices() -> list[AsyncResult]:
    moment = timezone.now() + timedelta(minutes=1)
    row = PeriodicTask(name=f"Invoices of {moment.isoformat()}", task=tasks.write_invoices.name)
    row.set_schedule(clocked(moment))
    row.save()
    return []  # a beat sends it when it is due


def count_the_tills() -> list[AsyncResult]:
    return [tasks.count_the_till.delay(till) for till in (1, 2, 3)]


def wait_for_the_truck() -> list[AsyncResult]:
    return [tasks.wait_for_the_truck.delay()]


def make_load(count: int) -> list[AsyncResult]:
    return tasks.do_nothing.enqueue_many((number,) for number in range(count))


@dataclass(frozen=True)
class Place:
    """A page of the admin which shows what a job does."""

    title: str
    #: As Django names it, without "admin:django_tasks_".
    view: str
    #: Of which queue or task, on a page of one.
    key: str = ""

    @property
    def url(self) -> str:
        return reverse(f"admin:django_tasks_{self.view}", args=[quote(self.key)] if self.key else [])


@dataclass(frozen=True)
class Job:
    """A part of the page: what it is called, its buttons and what they start, the code and the places to look at."""

    slug: str
    title: str
    about: str
    buttons: Mapping[str, Callable[[], list[AsyncResult]]]
    shown: tuple[Callable[..., Any], ...]
    places: tuple[Place, ...]
    #: Does what it sends have a page as a workflow?
    is_workflow: bool = False

    def behind(self, button: str | None = None) -> Callable[[], list[AsyncResult]]:
        """Return what a button starts, the first one by default. Raises ``KeyError`` when there is none of the name."""
        return self.buttons[next(iter(self.buttons)) if button is None else button]

    @property
    def code(self) -> str:
        """The lines behind the buttons, as they stand in the files."""
        return "\n\n".join(dedent(inspect.getsource(function)) for function in self.shown)


RESULTS = Place("Task results", "taskresult_changelist")
PERIODIC = Place("Periodic tasks", "periodictask_changelist")
FAILURES = Place("Failures", "taskresult_failures")

JOBS = (
    Job(
        "thumbnails",
        "Thumbnails",
        "Makes every picture small with Pillow: one task for each, in a queue of its own.",
        {"Make 24 thumbnails": make_thumbnails},
        (make_thumbnails, tasks.make_thumbnail.run),
        (Place("Queue images", "queue_change", "images"), RESULTS),
    ),
    Job(
        "report",
        "Sales report",
        "Writes a CSV file of 200,000 rows and tells how far it is; the bar below is the template tag "
        "{% task_progress %}.",
        {"Write a report": write_report},
        (write_report, tasks.write_report.run),
        (Place("Task type", "tasktype_change", tasks.write_report.name), RESULTS),
    ),
    Job(
        "orders",
        "Orders",
        "Places 12 orders. Each is confirmed by e-mail, over a mail server that hangs up half the time: the task "
        "is tried again, each time later.",
        {"Place 12 orders": place_orders},
        (place_order, tasks.confirm_order.run, tasks.send),
        (Place("Task type", "tasktype_change", tasks.confirm_order.name), RESULTS),
    ),
    Job(
        "review",
        "A question later",
        "Asks who ordered last how it was, three seconds from now.",
        {"Ask in three seconds": ask_for_review},
        (ask_for_review, tasks.ask_for_review.run),
        (Place("Tasks to do", "task_changelist"), RESULTS),
    ),
    Job(
        "rollback",
        "An order that fails",
        "Orders more than there is. The transaction is rolled back, and the confirmation with it: no task is sent.",
        {"Order too much": order_too_much},
        (order_too_much, place_order),
        (Place("Tasks to do", "task_changelist"),),
    ),
    Job(
        "pipeline",
        "The suppliers' price lists",
        "Reads three files, works on forty parts of them side by side, stores all offers or none, and tells the buyer. "
        "Part 17 goes wrong at first and is tried again.",
        {"Import the lists": import_price_lists},
        (suppliers.import_price_lists, suppliers.transform_all.run, suppliers.transform.run),
        (Place("Workflows", "workflow_changelist"),),
        is_workflow=True,
    ),
    Job(
        "webhooks",
        "Webhooks",
        "Tells a partner of 20 sales, five a second at most. The partner answers 500 now and then, which is tried "
        "again by itself, or 429, which says when to come back.",
        {"Send 20 webhooks": tell_partner},
        (tasks.tell_partner.run, tell_partner),
        (Place("Limits", "limit_changelist"), Place("Queue webhooks", "queue_change", "webhooks")),
    ),
    Job(
        "pulse",
        "Every minute",
        "A beat sends it once a minute, and leaves a minute out while the last run is not done. The button sends it "
        "now, too.",
        {"Look at the shelves now": look_at_the_shelves},
        (tasks.look_at_the_shelves.run,),
        (PERIODIC,),
    ),
    Job(
        "nightly",
        "Every night",
        "At half past three in Berlin, whatever the clocks there do, reports older than 30 days are thrown away.",
        {"Clean up now": throw_old_reports_away},
        (tasks.throw_old_reports_away.run,),
        (PERIODIC,),
    ),
    *(
        [
            Job(
                "sunset",
                "At sunset",
                "The sign is lit when the sun sets in Berlin.",
                {"Light the sign now": light_the_sign},
                (tasks.light_the_sign.run,),
                (PERIODIC,),
            )
        ]
        if tasks.AT_SUNSET
        else []
    ),
    Job(
        "invoices",
        "Once, at a moment",
        "Plans the invoices for one minute from now: a row with a clocked schedule. No task is sent yet; a beat does "
        "it when the moment has come.",
        {"Plan the invoices": plan_invoices},
        (plan_invoices, tasks.write_invoices.run),
        (PERIODIC,),
    ),
    Job(
        "failures",
        "What always fails",
        "Three tills, and none can be counted: the failures are one group, with a button to run all of it again.",
        {"Count the tills": count_the_tills},
        (count_the_tills, tasks.count_the_till.run),
        (FAILURES,),
    ),
    Job(
        "time-limit",
        "A hard time limit",
        "Wants to sleep for a minute and is ended after three seconds, whatever it does.",
        {"Wait for the truck": wait_for_the_truck},
        (tasks.wait_for_the_truck.run,),
        (FAILURES, Place("Workers", "worker_changelist")),
    ),
    Job(
        "load",
        "Generate load",
        "Sends many tasks that do nothing, a thousand rows a statement. Their queue is the worker's last one, so all "
        "else comes before it.",
        {f"Send {count:,}": partial(make_load, count) for count in LOADS},
        (make_load, tasks.do_nothing.run),
        (Place("Overview", "overview_changelist"), Place("Queue load", "queue_change", "load")),
    ),
)


def by_slug(slug: str) -> Job:
    """Return the job of that name. Raises ``KeyError`` when there is none."""
    return {job.slug: job for job in JOBS}[slug]
