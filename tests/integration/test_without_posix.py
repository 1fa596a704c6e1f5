"""A worker on a system without ``fork``: it starts with a pool that works there, and says what does not."""

from __future__ import annotations

import sys

import pytest

from django_tasks import states
from django_tasks.exceptions import SoftTimeLimitExceeded
from tests.app.tasks import add, fail
from tests.integration.long_jobs import count_for
from tests.integration.pool_jobs import nap, where
from tests.integration.site import Site, Worker

pytestmark = pytest.mark.databases("sqlite")


def launch(site: Site, *options: str) -> Worker:
    """Start a worker that lacks fork and what belongs to it."""
    worker = Worker(
        [sys.executable, "-m", "tests.integration.without_posix", "runworker", *options],
        site.environ(IMPORTS=["tests.integration.long_jobs", "tests.integration.pool_jobs"]),
        site.directory / f"worker-{len(site.workers) + 1}.log",
    )
    site.workers.append(worker)
    return worker


def test_a_worker_starts_with_the_pool_that_works_there(site: Site) -> None:
    """Nobody has to know of it: without ``--pool`` it is solo, and everything but a hard limit works."""
    sums = [add.delay(number, number) for number in range(20)]
    failed, asleep, elsewhere = fail.delay("kumquat"), nap.delay(0.01), where.delay()
    late = count_for.apply_async((30,), soft_time_limit=0.2)
    worker = launch(site, "--burst", "--health-file", str(site.directory / "health"))
    assert worker.wait() == 0
    assert "concurrency  1 (solo)" in worker.said()
    assert [result.get(timeout=5) for result in sums] == [2 * number for number in range(20)]
    assert failed.state == states.FAILURE
    assert asleep.get(timeout=5) == elsewhere.get(timeout=5)[0] == worker.pid
    assert isinstance(late.result, SoftTimeLimitExceeded)
    assert "time_limit of tests.integration.long_jobs.overrun cannot be kept" in worker.said()


@pytest.mark.parametrize("pool", ["prefork", "asyncio=5"])
def test_pools_that_need_fork_are_refused_by_name(site: Site, pool: str) -> None:
    worker = launch(site, "--pool", pool)
    assert worker.wait() == 1
    assert f"--pool {pool.partition('=')[0]} needs fork(), which this system lacks; use --pool solo" in worker.said()
