"""Limits, pauses, fairness and uniqueness, kept by real workers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_tasks import limits, states
from django_tasks.models import Limit, Task, TaskResult
from tests.integration.jobs import Entry, work
from tests.integration.limited_jobs import of_a_tenant, only_one, paced, rebuild, two_at_a_time
from tests.integration.site import PATIENCE, ROOT, SHORT_LEASE, Site

JOBS: dict[str, Any] = {"IMPORTS": ["tests.integration.jobs", "tests.integration.limited_jobs"]}


def most_at_a_time(intervals: Iterable[tuple[float, float]]) -> int:
    """Return how many of these intervals overlap at most."""
    changes = sorted(change for start, end in intervals for change in ((start, 1), (end, -1)))
    count = most = 0
    for _, change in changes:
        count += change
        most = max(most, count)
    return most


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_five_workers_together_keep_a_rate_in_every_window(site: Site, tmp_path: Path) -> None:
    """No second ever sees more than the rate and one, wherever it begins, and little of the rate is lost."""
    for _ in range(5):
        site.launch(concurrency=1, **JOBS)
    for worker in site.workers:
        worker.wait_for_children(1)
    path = tmp_path / "starts"
    paced.enqueue_many([(str(path),)] * 60)
    site.wait_for(lambda: path.exists() and len(path.read_text().splitlines()) == 60)
    lines = [line.split() for line in path.read_text().splitlines()]
    starts = sorted(float(at) for at, _ in lines)
    assert len({pid for _, pid in lines}) > 1, "one worker alone proves nothing"
    busiest = max(sum(1 for other in starts if start <= other < start + 1.0) for start in starts)
    assert busiest <= 11
    # Each may be a little late; a machine that has much else to do may not need more than three times as long.
    assert starts[-1] - starts[0] < 3 * 5.9


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_concurrency_holds_while_workers_are_killed_and_places_come_back(site: Site) -> None:
    """Derived from live rows: never one too many, and free within a lease after the holder's death."""
    workers = [site.start(concurrency=2, **JOBS, **SHORT_LEASE) for _ in range(3)]
    sent = two_at_a_time.enqueue_many([(0.4,)] * 24)
    site.wait_for_entries(4, "start")
    first = site.wait_for(
        lambda: next((one for one in workers for entry in running(site) if entry.pid in pids(one.tree())), None)
    )
    assert first is not None
    killed_pids = pids(first.tree())
    first.kill_tree()
    killed_at = time.monotonic()
    held = [entry for entry in running(site) if entry.pid in killed_pids]
    site.wait_for(lambda: TaskResult.objects.count() == len(sent), message="the places did not come back")
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    ends = {(entry.task_id, entry.attempt): entry.at for entry in site.journal("end")}
    intervals = [(entry.at, ends.get((entry.task_id, entry.attempt), killed_at)) for entry in site.journal("start")]
    assert most_at_a_time(intervals) == 2
    again = [
        entry.at for one in held for entry in site.journal("start", task_id=one.task_id) if entry.attempt > one.attempt
    ]
    assert len(again) == len(held)
    # Its lease of two seconds, the rescue that looks every half, and a machine that has much else to do.
    assert all(at - killed_at < 12 for at in again)


@pytest.mark.databases("sqlite", "redis")
@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_limits_hold_in_pools_that_run_many_at_a_time(site: Site, tmp_path: Path, pool: str) -> None:
    path = tmp_path / "starts"
    site.launch("--pool", pool, concurrency=4, **JOBS).wait_until_it_says("is ready.")
    sent = two_at_a_time.enqueue_many([(0.2,)] * 8)
    paced.enqueue_many([(str(path),)] * 15)
    site.wait_for(lambda: Task.objects.count() == 0)
    assert all(result.state == states.SUCCESS for result in sent)
    ends = {entry.task_id: entry.at for entry in site.journal("end")}
    assert most_at_a_time((entry.at, ends[entry.task_id]) for entry in site.journal("start")) == 2
    starts = sorted(float(line.split()[0]) for line in path.read_text().splitlines())
    assert len(starts) == 15
    assert max(sum(1 for other in starts if start <= other < start + 1.0) for start in starts) <= 11


def pids(family: Iterable[object]) -> set[int]:
    """Return the ids of processes."""
    return {member.pid for member in family}  # type: ignore[attr-defined]


def running(site: Site) -> list[Entry]:
    """Return the starts that have no end."""
    ended = {(entry.task_id, entry.attempt) for entry in site.journal("end")}
    return [entry for entry in site.journal("start") if (entry.task_id, entry.attempt) not in ended]


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_a_queue_is_paused_and_resumed_under_load(site: Site) -> None:
    site.start(concurrency=2, **JOBS)
    sent = work.enqueue_many([(0.01,)] * 600)
    site.wait_for_entries(50, "start")
    limits.pause(Limit.QUEUE, "default", by="a test", reason="to see")
    # Obeyed within about a second; what is claimed by then is short.
    quiet = site.wait_for(lambda: count if (count := len(site.journal("start"))) == still(site) else 0)
    assert quiet < 600
    assert Task.objects.count() == 600 - TaskResult.objects.count()
    [other] = work.enqueue_many([(0.0,)], queue="other")
    site.wait_for_start(other)
    assert len(site.journal("start")) == quiet + 1
    assert limits.resume(Limit.QUEUE, "default")
    assert site.account([*sent, other]).reruns == 0


def still(site: Site) -> int:
    """Return how many starts there are, a second and a half later."""
    time.sleep(1.5)  # that is the measurement
    return len(site.journal("start"))


@pytest.mark.databases("sqlite", "redis")
def test_a_pause_ends_by_itself_while_the_worker_is_idle(site: Site) -> None:
    site.start(concurrency=1, **JOBS)
    began = time.monotonic()
    limits.pause(Limit.TASK, work.name, until=timedelta(seconds=3))
    result = work.delay()
    start = site.wait_for_start(result)
    assert start.at - began > 2.9


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_a_long_backlog_of_limited_tasks_delays_no_other(site: Site) -> None:
    two_at_a_time.enqueue_many([(0.05,)] * 10_000, priority=9)
    site.start(concurrency=3, **JOBS)
    site.wait_for_entries(5, "start")
    delays = []
    for _ in range(20):
        sent = time.monotonic()
        result = work.delay()
        delays.append(site.wait_for_start(result).at - sent)
    assert Task.objects.filter(state=states.LIMITED).count() > 5_000
    assert sorted(delays)[len(delays) // 2] < 0.3
    assert max(delays) < 3


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_a_tenant_with_one_task_does_not_wait_behind_one_with_thousands(site: Site) -> None:
    site.start(concurrency=2, **JOBS)
    of_a_tenant.enqueue_many([("a", 0.02)] * 3_000)
    site.wait_for_entries(100, "start-a")
    before = len(site.journal("start-a"))
    one = of_a_tenant.delay("b")
    site.wait_for_entries(1, "start-b", task_id=one.id)
    journal = site.journal("start-a", "start-b")
    between = [entry.event for entry in journal].index("start-b") - before
    # Two processes run a hundred of these in a second: what they have in hand, and as much again.
    assert between < 40
    assert Task.objects.filter(state=states.LIMITED).count() > 1_000


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_fair_tasks_run_by_the_thousand(site: Site) -> None:
    tenants = 20
    sent = of_a_tenant.enqueue_many([(f"t{number % tenants}",) for number in range(4_000)])
    site.start(concurrency=2, **JOBS)
    began = time.monotonic()
    site.account(sent)
    assert time.monotonic() - began < 30  # hundreds a second, on a machine that has much else to do
    order = [entry.event for entry in site.journal() if entry.event.startswith("start-")]
    for start in range(0, 3_000, 500):
        counts = {event: order[start : start + 500].count(event) for event in set(order)}
        assert max(counts.values()) < 100, "25 is an equal share"


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
def test_a_hundred_sends_from_four_processes_store_one(site: Site, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    command = [sys.executable, "-m", "tests.integration.unique_sender", str(gate), "25"]
    senders = [
        subprocess.Popen(command, cwd=ROOT, env=site.environ(**JOBS), stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for sender in senders:
            assert sender.stdout is not None
            assert sender.stdout.readline() == "ready\n"
        gate.touch()
        ids = [line for sender in senders for line in sender.communicate(timeout=PATIENCE)[0].split()]
        assert [sender.returncode for sender in senders] == [0] * 4
    finally:
        for sender in senders:
            sender.kill()
            sender.communicate()
    assert (len(ids), len(set(ids))) == (100, 1)
    assert [str(row.pk) for row in Task.objects.all()] == list(set(ids))
    site.start(concurrency=1, **JOBS)
    site.wait_for(lambda: Task.objects.count() == 0)
    assert not only_one.delay(1).conflict


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_a_change_that_comes_while_one_runs_is_seen_by_the_run_after_it(site: Site, tmp_path: Path) -> None:
    content = tmp_path / "gates"
    (content / "content").write_text("old")
    site.start(concurrency=2, **JOBS)
    first = rebuild.delay(str(content))
    start = site.wait_for_start(first)
    (content / "content").write_text("new")
    second, third = rebuild.delay(str(content)), rebuild.delay(str(content))
    assert (second.conflict, third.conflict, third.id == second.id) == (False, True, True)
    assert len(site.journal("start")) == 1, "never two at a time"
    site.open_gate(start)
    again = site.wait_for_start(second)
    [end] = site.journal("end")
    assert again.at > end.at
    site.open_gate(again)
    assert (first.get(timeout=PATIENCE), second.get(timeout=PATIENCE)) == ("old", "new")


@pytest.mark.databases("sqlite", "redis")
def test_a_worker_that_runs_until_nothing_is_due_runs_limited_tasks_too(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "starts"
    paced.enqueue_many([(str(path),)] * 5)
    two_at_a_time.enqueue_many([(0.01,)] * 5)
    assert site.launch("--burst", concurrency=1, **JOBS).wait() == 0
    assert Task.objects.count() == 0
    assert len(path.read_text().splitlines()) == 5
