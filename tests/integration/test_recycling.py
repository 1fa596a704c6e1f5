"""Children that are replaced in time, and memory that does not grow."""

from __future__ import annotations

from collections import Counter

import psutil
import pytest

from django_tasks import states
from django_tasks.models import Task, TaskResult
from tests.app.tasks import fail, noop
from tests.eventually import eventually
from tests.integration.jobs import leak, work
from tests.integration.site import Site, Worker

pytestmark = pytest.mark.databases("sqlite")


def test_a_child_is_replaced_after_its_share_of_tasks(site: Site) -> None:
    """R2: --max-tasks-per-child loses and repeats nothing."""
    site.start("--max-tasks-per-child", "7")
    sent = work.enqueue_many([()] * 50)
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns == 0
    shares = Counter(entry.pid for entry in site.journal("start"))
    assert max(shares.values()) <= 7
    assert len(shares) >= 50 / 7


def test_a_child_that_holds_too_much_memory_is_replaced(site: Site) -> None:
    """S14: --max-memory-per-child in KiB, looked at after each batch; nothing is lost or repeated."""
    worker = site.start("--max-memory-per-child", "150000", concurrency=1)
    sent = [leak.delay(64) for _ in range(6)]
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns == 0
    assert len({entry.pid for entry in site.journal("start")}) > 1
    assert "more than 150000: it is replaced" in worker.said()


def test_memory_stays_bounded_over_many_tasks_and_over_a_flood_of_failures(site: Site) -> None:
    """R26: 20,000 tasks and 2,000 failures after a warm-up of 2,000."""
    worker = site.start("--loglevel", "CRITICAL")
    before = run_and_weigh(worker, successes=2_000, failures=200)
    after = run_and_weigh(worker, successes=20_000, failures=2_000)
    assert TaskResult.objects.count() == 24_200
    assert after - before < 24 * 1024 * 1024, f"grew from {before:,} to {after:,} bytes"


def run_and_weigh(worker: Worker, *, successes: int, failures: int) -> int:
    """Have so many tasks run; return the resident memory of all the worker's processes in bytes."""
    processes = worker.tree()
    noop.enqueue_many([()] * successes)
    fail.enqueue_many([()] * failures)
    eventually(lambda: not Task.objects.exists(), timeout=60)
    assert worker.tree() == processes, "a process was replaced"
    return sum(psutil.Process(each.pid).memory_info().rss for each in processes)
