"""Tasks that a worker does not know."""

from __future__ import annotations

import pytest

from django_tasks import send_task, states
from django_tasks.models import Task
from tests.integration.jobs import work
from tests.integration.site import SHORT_LEASE, Site

NEWER = ["tests.integration.jobs", "tests.integration.newer_jobs"]


@pytest.mark.databases("sqlite", "postgresql")
def test_a_task_nobody_knows_waits_for_a_worker_that_does_and_blocks_no_other(site: Site) -> None:
    """R16: it is set aside without an attempt that counts, and runs once a newer worker comes."""
    old = site.start(**SHORT_LEASE)
    unknown = [send_task("tests.integration.newer_jobs.newer_work") for _ in range(20)]
    known = work.enqueue_many([()] * 20)
    unknown += [send_task("tests.integration.newer_jobs.newer_work") for _ in range(20)]
    known += work.enqueue_many([()] * 20)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in known))
    site.wait_for(lambda: Task.objects.unroutable().count() == 40)
    assert {result.state for result in unknown} == {states.PENDING}, "Celery's API knows no other state for it"
    assert set(Task.objects.values_list("losses", "retries")) == {(0, 0)}
    site.start(**SHORT_LEASE, IMPORTS=NEWER)
    account = site.account([*known, *unknown])
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns == 0
    assert old.process.poll() is None
