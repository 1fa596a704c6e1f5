"""Looks at what the jobs left behind, and tells it: files, mails, rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence

from django.template.defaultfilters import filesizeformat
from PIL import Image

from django_tasks.models import TaskResult
from shop import mail
from shop.models import Order, Product, Report
from shop.pictures import THUMBNAIL_SIZE
from showcase.errors import ShowcaseError
from showcase.lines import Line


def print_thumbnails() -> None:
    """Print the sizes of the pictures. Raises ``ShowcaseError`` when a thumbnail is missing or too large."""
    before = after = 0
    products = Product.objects.all()
    for product in products:
        if not product.thumbnail:
            raise ShowcaseError(f"{product} has no thumbnail.")
        with product.thumbnail.open() as file, Image.open(file) as thumbnail:
            if any(is_ > allowed for is_, allowed in zip(thumbnail.size, THUMBNAIL_SIZE, strict=True)):
                raise ShowcaseError(f"The thumbnail of {product} is {thumbnail.size} pixels; {THUMBNAIL_SIZE} at most.")
        before += product.picture.size
        after += product.thumbnail.size
    print(f"   Thumbnails: {len(products)} pictures, {_size(before)}, made small: {_size(after)}")


def print_reports() -> None:
    """Print size and turnover of each report. Raises ``ShowcaseError`` when one is missing or has too few rows."""
    for report in Report.objects.all():
        if not report.file:
            raise ShowcaseError(f"{report} has no file.")
        with report.file.open("r") as file:
            *_, last = rows = list(csv.DictReader(file))
        if len(rows) != report.rows:
            raise ShowcaseError(f"{report} has {len(rows):,} rows; {report.rows:,} were asked for.")
        print(f"   {report}: {report.file.name}, {report.rows:,} rows, {_size(report.file.size)}, ", end="")
        print(f"turnover {last['turnover']}")


def print_mails(message_ids: Iterable[str]) -> None:
    """Print each mail and how often it was tried. Raises ``ShowcaseError`` when one is missing or was never retried."""
    tries = []
    for message_id in message_ids:
        if not mail.mail_file(message_id).exists():
            raise ShowcaseError(f"The mail {message_id} was never delivered.")
        tries.append(mail.attempts(message_id))
        print(f"   Mail {mail.mail_file(message_id).name}: delivered at attempt {tries[-1]}")
    hung_up = sum(tries) - len(tries)
    print(f"   {len(tries)} mails; the server hung up {hung_up} times in {sum(tries)} deliveries")
    if not hung_up:
        raise ShowcaseError("The mail server never hung up, so no retry was shown.")


def check_orders() -> None:
    """Raise ``ShowcaseError`` when an order was not confirmed, or should have been rolled back and is there."""
    if unconfirmed := Order.objects.filter(confirmed_at=None).count():
        raise ShowcaseError(f"{unconfirmed} orders were not confirmed.")
    if Order.objects.filter(email="greedy@example.com").exists():
        raise ShowcaseError("The order that exceeds the stock was placed.")


def print_task_results(lines: Sequence[Line]) -> None:
    """Print the rows of ``TaskResult``. Raises ``ShowcaseError`` when there is not one for each task that was sent."""
    sent = {result.id for line in lines for result in line.results}
    results = list(TaskResult.objects.order_by("finished_at"))
    rows = [
        (
            result.task_id,
            result.name,
            result.queue,
            result.state,
            "" if result.runtime is None else f"{result.runtime:.3f} s",
            str(result.attempt),
            result.worker,
        )
        for result in results
    ]
    _print_table(("id", "name", "queue", "state", "run time", "attempts", "worker"), rows)
    if (found := {result.task_id for result in results}) != sent:
        raise ShowcaseError(f"{len(sent)} tasks were sent, but TaskResult has {len(found)} rows, or others.")


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("   " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _size(count: int) -> str:
    # Django writes a no-break space, which not every terminal can show.
    return filesizeformat(count).replace("\xa0", " ")
