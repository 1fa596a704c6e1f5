"""Tasks with limits, and unique ones, that leave traces as those of :mod:`tests.integration.jobs` do."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from django_tasks import Task, shared_task
from django_tasks.backends import get_broker
from tests.integration.jobs import gate, note, wait_for


def append(path: str, line: str) -> None:
    """Append a line to a file; none is torn or lost."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


@shared_task(rate_limit="10/s")
def paced(path: str) -> None:
    """Write down when it began, by the database's clock."""
    append(path, f"{get_broker().now().timestamp()} {os.getpid()}")


@shared_task(bind=True, concurrency=2)
def two_at_a_time(self: Task[..., Any], seconds: float) -> int:
    note("start", self)
    time.sleep(seconds)
    note("end", self)
    return self.request.attempt


@shared_task(bind=True, key="tenant", fair=True)
def of_a_tenant(self: Task[..., Any], tenant: str, seconds: float = 0.0) -> int:
    note(f"start-{tenant}", self)
    time.sleep(seconds)
    note("end", self)
    return self.request.attempt


@shared_task(unique="number")
def only_one(number: int) -> None: ...


@shared_task(bind=True, unique="directory", on_conflict="again")
def rebuild(self: Task[..., Any], directory: str) -> str:
    """Read what is there, then wait at a gate of this attempt's own."""
    seen = Path(directory, "content").read_text()
    note("start", self)
    wait_for(gate(directory, str(self.request.id), self.request.attempt))
    note("end", self)
    return seen
