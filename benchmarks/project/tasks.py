"""The tasks that are measured."""

from __future__ import annotations

import time
from pathlib import Path

from django_tasks import shared_task


@shared_task
def noop() -> None:
    """Do nothing; the result is stored."""


@shared_task
async def noop_async() -> None:
    """Do nothing, as a coroutine; the result is stored."""


@shared_task
def fail() -> None:
    """Fail; the error is stored."""
    raise ValueError("as expected")


@shared_task(ignore_result=True)
def noop_ignored() -> None:
    """Do nothing; nothing is stored."""


@shared_task
def pass_on(value: int) -> int:
    """Return what it is given."""
    return value


@shared_task
def count(values: list[int]) -> int:
    """Return how many it is given."""
    return len(values)


@shared_task
def linger(file: str, number: int, seconds: float) -> None:
    """Write the number, and the time of the clock that all processes share, into a file; then wait."""
    with Path(file).open("a") as journal:
        journal.write(f"{number} {time.monotonic()}\n")
    time.sleep(seconds)


@shared_task
def stamp() -> float:
    """Return the time of the clock that all processes share."""
    return time.monotonic()
