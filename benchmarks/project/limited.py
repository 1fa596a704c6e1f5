"""The same tasks under each kind of flow control, far from its limits: what is measured is the control."""

from __future__ import annotations

from django_tasks import shared_task


@shared_task(concurrency=10_000)
def concurrency(number: int) -> None:
    """So many at a time."""


@shared_task(rate_limit="100000/s")
def rate(number: int) -> None:
    """So many in a time."""


@shared_task(key="number", fair=True)
def fair(number: int) -> None:
    """Keys take turns."""


@shared_task(unique="number")
def unique(number: int) -> None:
    """Each number once."""


@shared_task(tags=["measured"])
def tagged(number: int) -> None:
    """With a tag."""
