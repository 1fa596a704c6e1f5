"""Tasks of a newer release: only workers that are told to import this module know them."""

from __future__ import annotations

from typing import Any

from django_tasks import Task, shared_task
from tests.integration.jobs import note


@shared_task(bind=True)
def newer_work(self: Task[..., Any]) -> int:
    note("start", self)
    note("end", self)
    return self.request.attempt
