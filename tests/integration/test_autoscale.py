"""How many children a worker has, and what it is told while it runs, by real processes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from django_tasks import control, states
from django_tasks.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from django_tasks.models import Task
from tests.eventually import eventually
from tests.integration.jobs import wait_at_gate, work
from tests.integration.long_jobs import take, tell_limits
from tests.integration.pool_jobs import where
from tests.integration.site import Site, Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql")

MODULES = ["tests.integration.jobs", "tests.integration.long_jobs", "tests.integration.pool_jobs"]
#: Seconds for a reply.
PATIENCE = 30.0


def tell(command: str, **arguments: Any) -> Any:
    """Give the only worker a command; return its reply."""
    [replies] = control.broadcast(command, arguments, reply=True, timeout=PATIENCE, limit=1) or [{}]
    [reply] = replies.values()
    return reply


def obeyed(command: str, **arguments: Any) -> None:
    assert "ok" in tell(command, **arguments)


def test_children_come_with_the_work_and_go_when_they_are_idle(site: Site) -> None:
    """``--autoscale``: nothing is lost when one goes."""
    worker = site.launch("--autoscale", "3,1", IMPORTS=MODULES, WORKER_AUTOSCALE_IDLE=1)
    worker.wait_for_children(1)
    held = [wait_at_gate.delay(str(site.gates)) for _ in range(4)]
    starts = site.wait_for_entries(3, "start")
    assert len({entry.pid for entry in starts}) == 3
    assert len(worker.children()) == 3, "no more than the most"
    for start in starts:
        site.open_gate(start)
    site.open_gate(site.wait_for_entries(4, "start")[3])
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in held))
    worker.wait_for_children(1)
    sent = work.enqueue_many([()] * 20)
    assert site.account([*held, *sent]).reruns == 0


def test_children_are_added_and_taken_away_while_they_run(site: Site) -> None:
    """``pool_grow`` and ``pool_shrink``: who goes finishes its task, and one stays."""
    worker = site.start(concurrency=1, IMPORTS=MODULES)
    obeyed("pool_grow", n=2)
    worker.wait_for_children(3)
    held = [wait_at_gate.delay(str(site.gates)) for _ in range(3)]
    starts = [site.wait_for_start(result) for result in held]
    obeyed("pool_shrink", n=2)
    assert "cannot shrink by 1" in tell("pool_shrink", n=1)["error"]
    for start in starts:
        site.open_gate(start)
    worker.wait_for_children(1)
    assert [result.get(timeout=60) for result in held] == [start.attempt for start in starts]
    obeyed("autoscale", max=2, min=2)
    worker.wait_for_children(2)
    assert "autoscale 1,2: allowed are max,min" in tell("autoscale", max=1, min=2)["error"]


def test_all_children_are_replaced_each_after_its_task(site: Site) -> None:
    """``pool_restart``: fresh ones work while old ones finish."""
    worker = site.start(concurrency=2, IMPORTS=MODULES)
    old = worker.children()
    held = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(held)
    obeyed("pool_restart")
    fresh = {where.delay().get(timeout=60)[0] for _ in range(3)}
    eventually(lambda: len([child for child in worker.children() if child not in old]) == 2, timeout=60)
    assert start.pid not in fresh
    site.open_gate(start)
    assert held.get(timeout=60) == 1
    eventually(lambda: not set(old) & set(worker.children()), timeout=60)


@pytest.mark.parametrize("pool", ["prefork=2", "threads=2", "asyncio=2"])
def test_queues_are_consumed_and_left_while_the_worker_runs(site: Site, pool: str) -> None:
    """``add_consumer`` and ``cancel_consumer``, as Celery's, in every pool; also the last one of all."""
    site.launch("-Q", "mail", "--pool", pool, IMPORTS=MODULES).wait_until_it_says("is ready.")
    assert work.apply_async(queue="mail").get(timeout=60) == 1
    other = work.apply_async(queue="images")
    obeyed("add_consumer", queue="images")
    assert other.get(timeout=60) == 1
    obeyed("cancel_consumer", queue="mail")
    obeyed("cancel_consumer", queue="images")
    left = work.apply_async(queue="mail")
    obeyed("add_consumer", queue="images")
    assert work.apply_async(queue="images").get(timeout=60) == 1
    assert left.state == states.PENDING
    obeyed("add_consumer", queue="mail")
    assert left.get(timeout=60) == 1


@pytest.mark.parametrize("pool", ["prefork=1", "threads=2"])
def test_time_limits_are_changed_while_the_worker_runs(site: Site, pool: str) -> None:
    """``time_limit``: for attempts that begin from now on; what the call says counts more."""
    site.launch("--pool", pool, IMPORTS=MODULES).wait_until_it_says("is ready.")
    assert tell_limits.delay().get(timeout=60) == [None, None]
    obeyed("time_limit", task_name=tell_limits.name, hard=50, soft=40)
    eventually(lambda: tell_limits.delay().get(timeout=60) == [50, 40], timeout=60)
    assert tell_limits.apply_async(time_limit=60).get(timeout=60) == [60, 40]
    obeyed("time_limit", task_name=take.name, hard=1, soft=None)
    eventually(lambda: tell_limits.delay().get(timeout=60) == [50, 40], timeout=60)
    slow = take.delay("wait_on_a_socket")
    site.wait_for(slow.ready)
    assert isinstance(slow.result, TimeLimitExceeded | SoftTimeLimitExceeded)
    assert "soft_time_limit is 3" in tell("time_limit", task_name=take.name, hard=1, soft=3)["error"]


def test_a_terminated_attempt_is_the_one_that_was_meant(site: Site) -> None:
    """Of a task that was terminated, REVOKED is told once; what runs in its place is left alone."""
    worker: Worker = site.start(concurrency=1, IMPORTS=MODULES)
    victim = take.delay("wait_on_a_socket")
    site.wait_for_start(victim)
    follows = wait_at_gate.delay(str(site.gates))
    began = time.monotonic()
    reply = tell("revoke", task_id=[victim.id], terminate=True, signal="SIGKILL")
    assert victim.id in reply["ok"]
    start = site.wait_for_start(follows)
    assert start.at - began < 5
    assert victim.state == states.REVOKED
    assert victim.id not in tell("revoke", task_id=[victim.id], terminate=True, signal="SIGKILL")["ok"]
    site.open_gate(start)
    assert follows.get(timeout=60) == 1
    assert not Task.objects.exists()
    assert "is terminated: SIGKILL" in worker.said()
