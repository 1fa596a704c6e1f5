"""What pages cost does not grow with what a site holds.

``COCKPIT_ROWS=1000000`` makes it a benchmark, with the budget of a page; what it measures is printed with ``-s``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

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
#: Seconds that the overview may take with a million rows, and how much more than without any, with few.
BUDGET, SLACK = 0.150, 0.250
URLS = ("/admin/django_tasks/overview/", "/admin/django_tasks/queue/", "/admin/django_tasks/queue/mail/change/")


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
    before = {url: quickest(lambda url=url: read(root, url)) for url in URLS}  # type: ignore[misc]
    saved([waiting(queue="mail")])
    copy(Task, ROWS, "due_at", "-n / 10000.0")
    saved([failure()])
    copy(TaskResult, ROWS, "finished_at", "-n / 1000.0")
    settle()
    after = {url: quickest(lambda url=url: read(root, url)) for url in URLS}  # type: ignore[misc]
    for url in URLS:
        print(f"{url}: {1000 * before[url]:.0f} ms, with {ROWS:,} rows {1000 * after[url]:.0f} ms")
        assert after[url] < max(2 * before[url], before[url] + SLACK), url
    if ROWS >= 1_000_000:
        assert after[URLS[0]] < BUDGET
