"""Workers write down what they did: real processes, every pool, and tasks that are ended from outside."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import Sum
from django.test import override_settings

from django_tasks import states
from django_tasks.backends import close_all
from django_tasks.metrics.rows import EVER, OUTCOMES, RUNS, WAITS
from django_tasks.models import QueueSample, Rollup
from tests.integration.jobs import block_interpreter, kill_own_process, work
from tests.integration.site import Site

MODULE = "tests.integration.jobs"


def ever(name: str, *columns: str) -> list[int]:
    """Return sums over all time."""
    rows = Rollup.objects.filter(length=EVER, name=f"{MODULE}.{name}", queue="default")
    found: dict[str, Any] = rows.aggregate(**{f"sum_{column}": Sum(column) for column in columns})
    return [int(found[f"sum_{column}"] or 0) for column in columns]


@pytest.mark.databases("postgresql", "mariadb")
def test_what_one_worker_does_is_written_down_once(site: Site) -> None:
    count_twenty_runs(site, "prefork")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_every_pool_counts_each_run_with_its_durations(site: Site, pool: str) -> None:
    count_twenty_runs(site, pool)


def count_twenty_runs(site: Site, pool: str) -> None:
    tasks = [work.delay() for _ in range(20)]
    assert site.launch("--burst", "--pool", pool).wait() == 0
    assert {task.state for task in tasks} == {states.SUCCESS}
    assert ever("work", *OUTCOMES) == [20, 0, 0, 0]
    assert sum(ever("work", *WAITS)) == sum(ever("work", *RUNS)) == 20
    assert QueueSample.objects.filter(queue="").exists()


@pytest.mark.databases("sqlite")
def test_runs_that_redis_carries_are_counted_too(site: Site, redis_url: str) -> None:
    with override_settings(DJANGO_TASKS={"BROKER_URL": redis_url}):
        close_all()
        tasks = [work.delay() for _ in range(20)]
        assert site.launch("--burst", BROKER_URL=redis_url).wait() == 0
        assert {task.state for task in tasks} == {states.SUCCESS}
        close_all()
    assert ever("work", *OUTCOMES) == [20, 0, 0, 0]
    assert sum(ever("work", *WAITS)) == 20


@pytest.mark.databases("sqlite")
def test_what_is_ended_from_outside_is_counted_as_it_ended(site: Site) -> None:
    late = block_interpreter.apply_async((30,), time_limit=0.3)
    deadly = kill_own_process.delay()
    assert site.launch("--burst", TASK_MAX_WORKER_LOSSES=1).wait() == 0
    assert (late.state, deadly.state) == (states.FAILURE, states.FAILURE)
    assert ever("block_interpreter", *OUTCOMES) == [0, 1, 0, 0]
    assert ever("kill_own_process", *OUTCOMES) == [0, 1, 0, 0]
