"""What tasks log, kept beside them by real workers."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from django_tasks import operations
from django_tasks.models import TaskLog
from tests.integration.log_jobs import be_discreet, talk, talk_aside, talk_in_vain
from tests.integration.site import Site

MODULES = ["tests.integration.log_jobs"]


def said(result: Any) -> list[tuple[int, str]]:
    """Return what a task said, with the numbers of the attempts."""
    parts = TaskLog.objects.filter(task_id=result.id).order_by("attempt", "pk")
    return [(part.attempt, line[3]) for part in parts for line in json.loads(part.records)]


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
@pytest.mark.databases("sqlite", "redis")
def test_every_pool_keeps_what_its_tasks_say(site: Site, pool: str) -> None:
    site.launch("--pool", pool, TASK_LOG_LEVEL="INFO", IMPORTS=MODULES)
    two = [talk.delay(), talk_aside.delay()]
    silent = [talk_in_vain.delay(), be_discreet.delay()]
    for one in two:
        one.get(timeout=60)
    site.wait_for(lambda: all(one.ready() or not one.exists() for one in silent))
    site.wait_for(lambda: said(two[0]) == [(1, "attempt 1"), (2, "attempt 2")])
    site.wait_for(lambda: said(two[1]) == [(1, "from a coroutine")])
    assert [said(one) for one in silent] == [[], []]


def test_a_running_task_can_be_followed_and_its_log_goes_with_it(site: Site) -> None:
    site.start(concurrency=1, TASK_LOG_LEVEL="INFO", IMPORTS=MODULES)
    gate = site.gates / "open"
    result = talk.delay(str(gate))
    site.wait_for(lambda: said(result) == [(1, "attempt 1")], message="seen while it runs")
    gate.touch()
    result.get(timeout=60)
    site.wait_for(lambda: [text for _, text in said(result)] == ["attempt 1", "gone on", "attempt 2", "gone on"])
    operations.prune(older_than=timedelta(0))
    assert TaskLog.objects.count() == 0


@pytest.mark.databases("sqlite", "redis")
def test_nothing_is_kept_unless_it_is_asked_for(site: Site) -> None:
    site.start(concurrency=1, IMPORTS=MODULES)
    result = talk.delay()
    result.get(timeout=60)
    assert TaskLog.objects.count() == 0
