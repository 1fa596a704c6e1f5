"""What pages cost does not grow with what a site holds.

``COCKPIT_ROWS=1000000`` makes it a benchmark, with the budget of a page; what it measures is printed with ``-s``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from uuid import UUID

import pytest
from django.test import Client

from benchmarks.rows import copy, settle
from django_tasks.cockpit import overview
from django_tasks.models import Task, TaskResult
from tests.admin.pages import read
from tests.cockpit.site_rows import fill
from tests.rows import failure, saved, waiting

#: Rows of the to-do list, and as many of the ledger.
ROWS = int(os.environ.get("COCKPIT_ROWS") or 20_000)
#: All results are of this workflow.
ROOT = UUID("00000000-0000-7000-9000-000000000001")
#: Seconds that a page may take with a million rows, if the design says so.
BUDGETS = {
    "overview/": 0.150,
    "task/": 0.100,
    "taskresult/": 0.100,
    f"workflow/{ROOT}/change/": 0.150,
    "workflow/": 0.150,
    "queue/": None,
    "queue/mail/change/": None,
}
#: How many seconds more than without any rows, with few.
SLACK = 0.250


def quickest(work: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times):
        overview.forget()
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


@pytest.mark.databases("sqlite", "postgresql")
def test_pages_are_as_quick_with_many_rows_as_with_few(root: Client) -> None:
    fill()
    saved([waiting(queue="mail")])
    saved([failure(root_id=ROOT)])
    before = {url: opened(root, url) for url in BUDGETS}
    copy(Task, ROWS, "due_at", "-n / 10000.0")
    copy(TaskResult, ROWS, "finished_at", "-n / 1000.0")
    settle()
    after = {url: opened(root, url) for url in BUDGETS}
    missed = []
    for url, budget in BUDGETS.items():
        print(f"{url}: {1000 * before[url]:.0f} ms, with {ROWS:,} rows {1000 * after[url]:.0f} ms")
        limit = max(2 * before[url], before[url] + SLACK)
        if ROWS >= 1_000_000 and budget is not None:
            limit = min(limit, budget)
        missed += [url] if after[url] > limit else []
    assert not missed


def opened(client: Client, url: str) -> float:
    return quickest(lambda: read(client, f"/admin/django_tasks/{url}"))
