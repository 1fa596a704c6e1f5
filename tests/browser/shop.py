"""Tasks of the shop that a browser looks at; only the served site knows them."""

from __future__ import annotations

import enum
from datetime import date
from typing import Any, Literal

from django_tasks import shared_task


class Size(enum.Enum):
    """How large a picture is wanted."""

    SMALL = "small"
    LARGE = "large"


@shared_task(name="shop.tasks.pulse")
def pulse() -> None:
    """Say that the shop is alive."""


@shared_task(name="shop.tasks.send_mail", queue="mail", max_retries=5, autoretry_for=(ConnectionError,))
def send_mail(order_id: int, template: Literal["welcome", "receipt"] = "welcome", *, urgent: bool = False) -> str:
    """Write to a customer about an order.

    The mail server is asked once more if it does not answer.
    """
    return f"{order_id} {template} {urgent}"


@shared_task(name="shop.tasks.shrink", queue="images", time_limit=60)
def shrink(picture: str, size: Size = Size.SMALL, taken: date | None = None, *marks: Any, **options: Any) -> None:
    """Make a thumbnail."""
