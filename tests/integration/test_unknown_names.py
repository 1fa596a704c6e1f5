"""Tasks that a worker does not know."""

from __future__ import annotations

import pytest

from django_tasks import send_task, states
from django_tasks.models import Task
from tests.integration.jobs import work
from tests.integration.site import SHORT_LEASE, Site

NAME = "tests.integration.newer_jobs.newer_work"
NEWER = ["tests.integration.jobs", "tests.integration.newer_jobs"]


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_a_task_nobody_knows_waits_for_a_worker_that_does_and_blocks_no_other(site: Site) -> None:
    """R16: it costs no attempt that counts, and runs once when a newer worker comes."""
    old = site.start(**SHORT_LEASE)
    unknown, known = [], []
    for _ in range(20):
        unknown.append(send_task(NAME))
        known.append(work.delay())
        unknown.append(send_task(NAME))
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in known))
    site.wait_for(lambda: Task.objects.unroutable().exists() and not Task.objects.filter(state=states.STARTED).exists())
    assert {result.state for result in unknown} == {states.PENDING}, "Celery's API knows no other state for it"
    assert set(Task.objects.values_list("losses", "retries")) == {(0, 0)}
    site.start(**SHORT_LEASE, IMPORTS=NEWER)
    account = site.account([*known, *unknown])
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns == 0
    assert old.process.poll() is None


@pytest.mark.databases("sqlite", "redis")
def test_a_burst_does_not_wait_for_tasks_that_it_cannot_run(site: Site) -> None:
    """R16: --burst runs what it knows, leaves the rest to others, and ends."""
    unknown = [send_task(NAME) for _ in range(20)]
    known = work.enqueue_many([()] * 20)
    assert site.launch("--burst").wait() == 0
    assert {result.state for result in known} == {states.SUCCESS}
    assert {result.state for result in unknown} == {states.PENDING}
