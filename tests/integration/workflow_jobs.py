"""Tasks of workflows, which leave a line in the journal like all others."""

from __future__ import annotations

import time
from typing import Any

from django_tasks import Task, shared_task
from tests.integration.jobs import note


@shared_task(bind=True)
def part(self: Task[..., Any], number: int, *, seconds: float = 0.01) -> int:
    note("start", self)
    time.sleep(seconds)
    return number + 1


@shared_task(bind=True, max_retries=3)
def shaky_part(self: Task[..., Any], number: int) -> int:
    """Ask twice to be run again."""
    note("start", self)
    if self.request.retries < 2:
        raise self.retry(countdown=0.01)
    return number + 1


@shared_task(bind=True)
def bad_part(self: Task[..., Any], number: int) -> int:
    note("start", self)
    raise ValueError(f"{number} is bad")


@shared_task(bind=True)
def total(self: Task[..., Any], numbers: list[int]) -> int:
    note("start", self)
    return sum(numbers)


@shared_task
def told(request: Any, exc: BaseException, traceback: Any) -> str:
    return f"{request.task.rpartition('.')[2]}: {exc!r}"
