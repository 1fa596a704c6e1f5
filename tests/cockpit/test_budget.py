"""What pages cost does not grow with what a site holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from cProfile import Profile
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from benchmarks import cockpit
from benchmarks.rows import copy, moved, settle
from django_tasks.cockpit import overview
from django_tasks.models import Task, TaskResult
from django_tasks.registry import tasks
from tests.admin.pages import read
from tests.cockpit.site_rows import fill
from tests.databases import TestDatabase
from tests.rows import failure, saved, waiting

#: Rows of the to-do list, and as many of the ledger, of a small site and of a large one.
SOME, MILLION = 20_000, 1_000_000
#: Rows of either table of one on MariaDB, and how many a page may read there.
LARGER, ROWS_READ = 300_000, 180_000
#: Members of the large site's large workflow.
LARGE = 20_000
#: All results of the small site are of this workflow.
ROOT = UUID("00000000-0000-7000-9000-000000000001")
TABLES = (Task._meta.db_table, TaskResult._meta.db_table)
PAGES = ("overview/", "task/", "taskresult/", f"workflow/{ROOT}/change/", "workflow/", "queue/", "queue/mail/change/")
#: Rows that fill a page, and how many seconds of the processor it may take more with all of them.
FULL, SLACK = 150, 0.250
#: Pages of 8 kB that the queries of a page may touch. Either large table has more than 16,000.
BLOCKS = 6_000
#: And those of one look through such a table by no index, which has to end early.
SCANNED_BLOCKS = 1_000
#: Functions that Python may call for a page: a quiet core does it in half of the 100 ms that the design allows.
CALLS = 140_000
#: How often a page is opened before it is said to cost too much: a busy machine breaks queries off, too.
TRIES = 5


def quickest(work: Callable[[], object], times: int = 5) -> float:
    found = []
    for _ in range(times):
        overview.forget()
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


@pytest.mark.databases("sqlite")
def test_pages_are_as_quick_with_many_rows_as_with_few(root: Client) -> None:
    fill()
    saved(waiting(queue="mail") for _ in range(FULL))
    saved(failure(root_id=ROOT) for _ in range(FULL))
    before = {url: opened(root, url) for url in PAGES}
    copy(Task, SOME, {"due_at": moved("due_at", "-n / 10000.0")})
    copy(TaskResult, SOME, {"finished_at": moved("finished_at", "-n / 1000.0")})
    settle()
    after = {url: opened(root, url) for url in PAGES}
    missed = []
    for url in PAGES:
        print(f"{url}: {1000 * before[url]:.0f} ms, with {SOME:,} rows {1000 * after[url]:.0f} ms")
        limit = max(2 * before[url], before[url] + SLACK)
        missed += [url] if after[url] > limit else []
    assert not missed


def opened(client: Client, url: str) -> float:
    return quickest(lambda: read(client, f"/admin/django_tasks/{url}"))


@pytest.fixture
def few_tasks() -> Iterator[None]:
    """Tests that ran before in this process leave tasks behind, and pages list what there is."""
    others = {name: task for name, task in tasks.own().items() if not name.startswith("tests.app.")}
    for name in others:
        tasks.unregister(name)
    yield
    tasks.update(others)


@pytest.mark.usefixtures("few_tasks")
@pytest.mark.databases("postgresql")
def test_no_page_costs_more_than_its_budget_with_a_million_rows(database: TestDatabase) -> None:
    """Queries, pages of the tables that they touch, and functions that are called; how long that takes is the machine's
    affair, and ``python -m benchmarks.cockpit`` tells it."""
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} SET UNLOGGED")  # made sooner
    began = time.perf_counter()
    cockpit.fill(MILLION, MILLION, LARGE)
    print(f"filled in {time.perf_counter() - began:.0f} s")
    client = Client()
    client.force_login(User.objects.create_superuser("anna"))
    missed = []
    for page in cockpit.pages(MILLION, MILLION, LARGE):
        if "{middle}" in page.url:
            page = page._replace(url=page.url.format(middle=cockpit.bookmark(MILLION)))
        wrong = ["not opened"]
        for _ in range(TRIES):
            wrong = list(faults(client, page))
            if not wrong:
                break
        missed += [(page.name, *wrong)] if wrong else []
    assert not missed


@pytest.mark.usefixtures("few_tasks")
@pytest.mark.databases("mariadb")
def test_no_page_reads_more_rows_than_its_budget_on_mariadb(database: TestDatabase) -> None:
    """Of rows and of entries of indexes; it has no partial indexes, and plans of its own."""
    cockpit.fill(LARGER, LARGER, LARGE)
    client = Client()
    client.force_login(User.objects.create_superuser("anna"))
    missed = []
    for page in cockpit.pages(LARGER, LARGER, LARGE):
        if page.limit is None or page.limit > 150:
            continue
        url = page.url.format(middle=cockpit.bookmark(LARGER))
        overview.forget()
        before = rows_read()
        read(client, url)
        print(f"{page.name}: {(count := rows_read() - before):,}")
        missed += [(page.name, count)] if count > ROWS_READ else []
    assert not missed


def rows_read() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler\\_read%'")
        return sum(int(count) for _name, count in cursor.fetchall())


def faults(client: Client, page: cockpit.Page) -> Iterator[str]:
    """Open a page and yield what it costs too much of."""
    overview.forget()
    with CaptureQueriesContext(connection) as captured, Profile(builtins=False) as profile:
        answer = client.get(page.url) if page.data is None else client.post(page.url, page.data)
    assert answer.status_code == 200, page.url
    asked = [query["sql"] for query in captured.captured_queries]
    broken_off = {before for before, after in pairwise(asked) if after == "ROLLBACK"}
    counted = sum(not cockpit.BESIDE.search(sql) for sql in asked)
    if broken_off and not page.searched:
        yield f"broken off: {broken_off}"
    if page.queries is not None and counted > page.queries:
        yield f"{counted} queries"
    calls = sum(entry.callcount for entry in profile.getstats())
    if calls > CALLS:
        yield f"{calls:,} calls"
    if page.limit is not None and page.limit <= 150:
        plans = [plan_of(sql) for sql in asked if "django_tasks_task" in sql and sql not in broken_off]
        touched = sum(blocks(plan) for plan in plans)
        print(f"{page.name}: {counted} queries, {touched:,} blocks, {calls:,} calls")
        if touched > BLOCKS:
            yield f"{touched:,} blocks"
        for plan in plans:
            yield from scans(plan)


def plan_of(sql: str) -> dict[str, Any]:
    """Return the plan of a query, run once more."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
        [[found]] = cursor.fetchall()
    plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


def blocks(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def scans(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the looks through a large table by no index that do not end early."""
    if plan.get("Relation Name") in TABLES and plan["Node Type"] == "Seq Scan" and blocks(plan) > SCANNED_BLOCKS:
        yield f"Seq Scan on {plan['Relation Name']} {plan.get('Filter', '')}"
    for child in plan.get("Plans", ()):
        yield from scans(child)
