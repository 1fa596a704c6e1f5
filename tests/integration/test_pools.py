"""Pools: how a worker runs tasks, by real processes."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from typing import Any

import pytest

from django_tasks import states
from django_tasks.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from django_tasks.models import Task, TaskResult
from django_tasks.models import Worker as WorkerRow
from tests.app.tasks import add, fail
from tests.eventually import eventually
from tests.integration.jobs import block_interpreter, leak, wait_at_gate, work
from tests.integration.long_jobs import asleep, count_for, overrun, swallow_everything_async, take, tidy_up_async
from tests.integration.pool_jobs import (
    block_loop,
    count_results,
    fail_async,
    handled,
    handled_async,
    insert_async,
    nap,
    retry_async,
    wait_at_gate_async,
    where,
    whoami_async,
)
from tests.integration.site import SHORT_LEASE, Site, Worker

pytestmark = pytest.mark.databases("sqlite")

MODULES = ["tests.integration.jobs", "tests.integration.long_jobs", "tests.integration.pool_jobs"]
#: Each kind of pool, four tasks at a time where it can.
POOLS: dict[str, list[str]] = {
    "prefork": ["--pool", "prefork=4"],
    "threads": ["--pool", "threads=4"],
    "asyncio": ["--pool", "asyncio=4"],
    "solo": ["--pool", "solo"],
}
CONCURRENT = [POOLS["threads"], POOLS["asyncio"]]
every_pool = pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
every_concurrent_pool = pytest.mark.parametrize("pool", CONCURRENT, ids=["threads", "asyncio"])


def launch(site: Site, *options: str, **settings: Any) -> Worker:
    """Start a worker and wait until it is ready."""
    worker = Worker(
        [sys.executable, "-m", "tests.manage", "runworker", *options],
        site.environ(**{"IMPORTS": MODULES, **settings}) | {"TEST_SIGNALS": str(site.directory / "signals")},
        site.directory / f"worker-{len(site.workers) + 1}.log",
    )
    site.workers.append(worker)
    worker.wait_until_it_says("is ready.")
    return worker


@pytest.mark.databases("sqlite", "postgresql", "mariadb")
@every_pool
def test_every_pool_runs_functions_and_coroutines_and_stores_what_they_return(site: Site, pool: list[str]) -> None:
    """R2: nothing is lost, nothing runs twice; failures, retries and the ORM of coroutines work, too."""
    worker = launch(site, *pool)
    sums = [add.delay(n, n) for n in range(40)]
    sent = work.enqueue_many([(0.001,)] * 100)
    nap.enqueue_many([(0.01,)] * 20)
    fail.delay("medlar")
    fail_async.delay()
    retried, told, counted = retry_async.delay(), whoami_async.delay(), count_results.delay()
    assert [result.get(timeout=60) for result in sums] == [2 * n for n in range(40)]
    knows = told.get(timeout=60)
    assert knows["ids"] == [[told.id, whoami_async.name]] * 3
    assert counted.get(timeout=60) >= 0
    assert retried.get(timeout=60) == 2
    site.wait_for(lambda: not Task.objects.exists())
    assert Counter(TaskResult.objects.values_list("state", flat=True)) == {states.SUCCESS: 163, states.FAILURE: 2}
    assert not TaskResult.objects.filter(history__contains="LOST").exists()
    assert Counter(entry.task_id for entry in site.journal("start")) == {result.id: 1 for result in sent}
    assert worker.stop() == 0
    assert not worker.orphans()


def test_five_hundred_coroutines_wait_at_the_same_time_in_one_process(site: Site) -> None:
    worker = launch(site, "--pool", "asyncio=500")
    nap.delay(0).get(timeout=60)
    began = time.monotonic()
    sent = nap.enqueue_many([(1.0,)] * 500)
    pids = {result.get(timeout=60) for result in sent}
    took = time.monotonic() - began
    assert len(pids) == 1
    assert took < 3, f"took {took:.1f} s"
    assert worker.stop() == 0


@every_concurrent_pool
def test_a_short_task_never_waits_behind_long_ones(site: Site, pool: list[str]) -> None:
    """Places that are free are used, and only tasks known to be short are claimed beyond them."""
    launch(site, *pool)
    held = [wait_at_gate.delay(str(site.gates)) for _ in range(3)]
    starts = [site.wait_for_start(result) for result in held]
    short = work.enqueue_many([()] * 50)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in short))
    last = wait_at_gate.delay(str(site.gates))
    starts.append(site.wait_for_start(last))
    waiting = work.enqueue_many([()] * 10)
    site.wait_for(lambda: not Task.objects.filter(pk__in=[one.id for one in waiting], state=states.STARTED).exists())
    other = launch(site, "--pool", "prefork=1")
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in waiting))
    assert other.stop() == 0
    for start in starts:
        site.open_gate(start)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in [*held, last]))


def test_functions_in_an_event_loop_s_pool_do_not_hold_its_coroutines_up(site: Site) -> None:
    """They have threads, so many and no more; while these are taken, coroutines are claimed all the same."""
    launch(site, "--pool", "asyncio=20", WORKER_ASYNCIO_THREADS=2)
    held = [wait_at_gate.delay(str(site.gates)) for _ in range(4)]
    starts = site.wait_for_entries(2, "start")
    naps = nap.enqueue_many([(0.01,)] * 30)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in naps))
    assert len(site.journal("start")) == 2
    for start in starts:
        site.open_gate(start)
    for start in site.wait_for_entries(4, "start"):
        site.open_gate(start)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in held))


def test_each_thread_has_a_connection_of_its_own_and_keeps_it(site: Site) -> None:
    launch(site, "--pool", "threads=4")
    told = [result.get(timeout=60) for result in where.enqueue_many([(0.2,)] * 8)]
    assert len({pid for pid, _, _ in told}) == 1
    assert len({thread for _, thread, _ in told}) == 4
    assert len({key for _, _, key in told}) >= 4


@every_pool
def test_burst_runs_everything_that_is_due_in_every_pool(site: Site, pool: list[str]) -> None:
    sent = [*work.enqueue_many([(0.01,)] * 30), *nap.enqueue_many([(0.05,)] * 10)]
    later = work.apply_async(countdown=3600)
    assert launch(site, *pool, "--burst").wait() == 0
    assert {result.state for result in sent} == {states.SUCCESS}
    assert later.state == states.PENDING


@every_concurrent_pool
def test_a_child_is_replaced_after_its_share_while_it_finishes_what_it_runs(site: Site, pool: list[str]) -> None:
    """``--max-tasks-per-child``: nothing is lost or repeated, and nothing waits for the last task of the old child."""
    launch(site, *pool, "--max-tasks-per-child", "5")
    held = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(held)
    sent = work.enqueue_many([()] * 20)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in sent))
    assert held.state == states.STARTED
    site.open_gate(start)
    assert held.get(timeout=60) == 1
    shares = Counter(entry.pid for entry in site.journal("start"))
    assert max(shares.values()) <= 5
    assert sum(shares.values()) == 21


@every_concurrent_pool
def test_a_child_that_holds_too_much_memory_is_replaced_in_every_pool(site: Site, pool: list[str]) -> None:
    worker = launch(site, *pool, "--max-memory-per-child", "150000")
    sent = []
    for _ in range(6):
        sent.append(leak.delay(64))
        assert sent[-1].get(timeout=60) == 1
    assert site.account(sent).reruns == 0
    assert len({entry.pid for entry in site.journal("start")}) > 1
    assert "more than 150000: it is replaced" in worker.said()


@every_concurrent_pool
def test_a_pool_told_to_stop_finishes_what_runs_and_takes_nothing_new(site: Site, pool: list[str]) -> None:
    """R17: exit code 0, nothing runs twice, what did not begin waits as if nothing had been."""
    worker = launch(site, *pool, WORKER_HEARTBEAT_INTERVAL=0.2)
    running = [wait_at_gate.delay(str(site.gates)) for _ in range(4)]
    starts = [site.wait_for_start(result) for result in running]
    waiting = work.enqueue_many([()] * 5)
    worker.send(signal.SIGTERM)
    site.wait_for(lambda: WorkerRow.objects.filter(draining=True).exists())
    for start in starts:
        site.open_gate(start)
    assert worker.wait() == 0
    assert [result.state for result in running] == [states.SUCCESS] * 4
    assert [result.state for result in waiting] == [states.PENDING] * 5
    assert not Task.objects.filter(worker_id__isnull=False).exists()


@pytest.mark.parametrize("how", ["timeout", "second signal", "SIGQUIT"])
@every_concurrent_pool
def test_what_does_not_end_in_time_is_handed_back_by_every_pool(site: Site, pool: list[str], how: str) -> None:
    """R17: after the shutdown timeout, at a second signal, or at once; nobody is to blame."""
    options = ["--shutdown-timeout", "0.3"] if how == "timeout" else []
    worker = launch(site, *pool, *options, WORKER_HEARTBEAT_INTERVAL=0.2)
    running = [wait_at_gate.delay(str(site.gates)), wait_at_gate_async.delay(str(site.gates))]
    for result in running:
        site.wait_for_start(result)
    if how == "SIGQUIT":
        worker.send(signal.SIGQUIT)
    else:
        worker.send(signal.SIGTERM)
        if how == "second signal":
            site.wait_for(lambda: WorkerRow.objects.filter(draining=True).exists())
            worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert not worker.orphans()
    rows = Task.objects.values_list("state", "worker_id", "losses")
    assert list(rows) == [(states.PENDING, None, 0)] * 2
    cancelled = {entry.task_id for entry in site.journal("cancelled")}
    assert cancelled == ({running[1].id} if "asyncio" in pool[1] and how != "SIGQUIT" else set())


@every_concurrent_pool
def test_what_a_killed_child_held_runs_again_at_once(site: Site, pool: list[str]) -> None:
    """R1: another child takes its place, and its tasks with it."""
    worker = launch(site, *pool)
    running = [wait_at_gate.delay(str(site.gates)) for _ in range(3)]
    for result in running:
        site.wait_for_start(result)
    [child] = worker.wait_for_children(1)
    child.kill()
    for result in running:
        site.open_gate(site.wait_for_start(result, 2))
    assert [result.get(timeout=60) for result in running] == [2] * 3


@every_concurrent_pool
def test_soft_limits_are_raised_in_threads_and_coroutines(site: Site, pool: list[str]) -> None:
    """And no task that follows in the same thread sees anything of it."""
    launch(site, *pool)
    counting = count_for.apply_async((30,), soft_time_limit=0.3)
    tidied_async = tidy_up_async.apply_async(soft_time_limit=0.3)
    site.wait_for(counting.ready)
    assert isinstance(counting.result, SoftTimeLimitExceeded)
    assert str(counting.result) == "The soft time limit of 0.3 s has passed"
    assert tidied_async.get(timeout=60) == "tidied up SoftTimeLimitExceeded"
    sent = work.enqueue_many([(0.001,)] * 200, soft_time_limit=0.2)
    assert {result.get(timeout=60) for result in sent} == {1}


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize("way", ["sleep_in_c", "swallow_everything", "wait_on_a_socket"])
@every_concurrent_pool
def test_a_hard_limit_beside_others_is_told_at_once_and_its_child_replaced(
    site: Site, pool: list[str], way: str
) -> None:
    """R13: FAILURE within the limit and two seconds; neighbours finish, or run elsewhere, and a fresh child works."""
    worker = launch(site, *pool, "--shutdown-timeout", "60")
    [old] = worker.wait_for_children(1)
    neighbour = wait_at_gate.delay(str(site.gates))
    held = site.wait_for_start(neighbour)
    slow = overrun.delay(way)
    start = site.wait_for_start(slow)
    site.wait_for(slow.ready)
    assert time.monotonic() - start.at < 1 + 2
    assert slow.state == states.FAILURE
    assert isinstance(slow.result, TimeLimitExceeded)
    follows = work.delay()
    assert follows.get(timeout=60) == 1
    assert site.wait_for_start(follows).pid != old.pid
    site.open_gate(held)
    if way == "sleep_in_c":  # it holds the interpreter of its neighbour, too
        site.open_gate(site.wait_for_start(neighbour, 2))
    assert neighbour.get(timeout=60) in (1, 2)
    assert "TimeLimitExceeded" not in str(TaskResult.objects.get(pk=neighbour.id).history)
    eventually(lambda: old not in worker.children(), timeout=60, message="the old child lives on")


def test_a_coroutine_whose_hard_limit_has_passed_is_cancelled_without_its_neighbours(site: Site) -> None:
    """Only one that does not heed its cancellation costs the child its life."""
    worker = launch(site, "--pool", "asyncio=4")
    [child] = worker.wait_for_children(1)
    slow = asleep.apply_async(time_limit=0.5)
    site.wait_for(slow.ready)
    assert isinstance(slow.result, TimeLimitExceeded)
    assert slow.traceback is not None
    assert "long_jobs.py" in slow.traceback
    assert worker.children() == [child]
    deaf = swallow_everything_async.apply_async(time_limit=0.5)
    site.wait_for(deaf.ready)
    assert isinstance(deaf.result, TimeLimitExceeded)
    eventually(lambda: child not in worker.children(), timeout=60)
    assert work.delay().get(timeout=60) == 1


def test_a_revoked_coroutine_is_cancelled_by_itself(site: Site) -> None:
    """It sees CancelledError and ends as REVOKED, within about a second; its neighbours see nothing."""
    worker = launch(site, "--pool", "asyncio=4")
    [child] = worker.wait_for_children(1)
    first, second = wait_at_gate_async.delay(str(site.gates)), wait_at_gate_async.delay(str(site.gates))
    site.wait_for_start(first)
    start = site.wait_for_start(second)
    asked = time.monotonic()
    first.revoke()
    [cancelled] = site.wait_for_entries(1, "cancelled")
    assert cancelled.task_id == first.id
    assert cancelled.at - asked < 4
    site.wait_for(first.ready)
    assert first.state == states.REVOKED
    site.open_gate(start)
    assert second.get(timeout=60) == 1
    assert worker.children() == [child]


@pytest.mark.databases("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize("pool", [POOLS["prefork"], *CONCURRENT], ids=["prefork", "threads", "asyncio"])
def test_a_running_task_is_terminated_and_nobody_else(site: Site, pool: list[str]) -> None:
    """``revoke(terminate=True)``: REVOKED, whatever the code does; tasks beside it finish."""
    launch(site, *pool)
    victim = take.delay("swallow_everything")
    neighbour = wait_at_gate.delay(str(site.gates))
    site.wait_for_start(victim)
    start = site.wait_for_start(neighbour)
    victim.revoke(terminate=True)
    site.wait_for(victim.ready)
    assert victim.state == states.REVOKED
    site.open_gate(start)
    assert neighbour.get(timeout=60) == start.attempt
    assert work.delay().get(timeout=60) == 1


def test_several_pools_of_one_worker_consume_their_own_queues(site: Site) -> None:
    worker = launch(site, "--pool", "asyncio:io=50", "--pool", "threads:mail=2", "--pool", "prefork:default=1")
    assert len(worker.wait_for_children(3)) == 3
    row = WorkerRow.objects.get()
    assert (row.pool, row.concurrency, row.queues) == ("mixed", 53, "io,mail,default")
    told: dict[str, set[Any]] = {}
    for _ in range(3):
        for queue in ("io", "mail", "default"):
            pid, thread, _ = where.apply_async(queue=queue).get(timeout=60)
            told.setdefault(queue, set()).add((pid, thread.partition("-")[0]))
    assert len({pid for places in told.values() for pid, _ in places}) == 3
    assert {thread for _, thread in told["default"]} == {"MainThread"}
    assert {thread for _, thread in told["mail"]} == {"task"}
    elsewhere = where.apply_async(queue="elsewhere")
    assert where.apply_async(queue="io").get(timeout=60)
    assert elsewhere.state == states.PENDING
    assert worker.stop() == 0


@pytest.mark.databases("sqlite", "postgresql")
@every_pool
def test_an_atomic_coroutine_and_its_result_commit_together(site: Site, pool: list[str]) -> None:
    with site.database.connection.cursor() as cursor:
        cursor.execute("CREATE TABLE effects (task_id varchar(36))")
    launch(site, *pool)
    good, bad = insert_async.delay(), insert_async.delay(fails=True)
    site.wait_for(lambda: good.ready() and bad.ready())
    assert (good.state, bad.state) == (states.SUCCESS, states.FAILURE)
    with site.database.connection.cursor() as cursor:
        cursor.execute("SELECT task_id FROM effects")
        assert [row[0] for row in cursor.fetchall()] == [good.id]


@every_pool
def test_handlers_are_told_after_the_result_is_stored(site: Site, pool: list[str]) -> None:
    launch(site, *pool)
    for task in (handled, handled_async):
        result = task.delay()
        site.wait_for_entries(1, "on_success", task_id=result.id)
        assert [entry.event for entry in site.journal(task_id=result.id)] == ["before_start", "on_success"]


@every_pool
def test_every_pool_sends_the_signals_of_a_worker(site: Site, pool: list[str]) -> None:
    """In this order, each in the process it is about."""
    worker = launch(site, *pool, WORKER_HEARTBEAT_INTERVAL=0.2)
    assert add.delay(1, 1).get(timeout=60) == 2
    told = site.directory / "signals"
    eventually(lambda: "heartbeat_sent" in told.read_text(), timeout=60)
    assert worker.stop() == 0
    lines = [line.split() for line in told.read_text().splitlines()]
    ours = [name for name, pid in lines if int(pid) == worker.pid]
    theirs = {name for name, pid in lines if int(pid) != worker.pid}
    once = ["worker_init", "worker_ready", "worker_shutting_down", "worker_shutdown"]
    assert [name for name in ours if name in once] == once
    in_child = {"worker_process_init", "worker_process_shutdown", "task_prerun", "task_success"}
    assert in_child <= (set(ours) if "solo" in pool else theirs)


def test_a_loop_that_a_coroutine_blocks_is_told_with_the_place(site: Site) -> None:
    worker = launch(site, "--pool", "asyncio=4")
    blocking = block_loop.delay(7)
    worker.wait_until_it_says("A coroutine has blocked the event loop for")
    worker.wait_until_it_says("pool_jobs.py")
    assert blocking.get(timeout=60) is None
    assert add.delay(1, 1).get(timeout=60) == 2


@every_pool
def test_the_stacks_of_all_threads_are_dumped_at_sigusr1(site: Site, pool: list[str]) -> None:
    """As Celery's worker does; it goes on."""
    worker = launch(site, *pool)
    running = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(running)
    worker.send(signal.SIGUSR1)
    worker.wait_until_it_says("in wait_at_gate")
    worker.wait_until_it_says("worker/steward.py")  # what a thread besides does
    site.open_gate(start)
    assert running.get(timeout=60) == 1
    assert worker.stop() == 0


def test_no_process_of_any_pool_outlives_its_supervisor(site: Site) -> None:
    """R18: whatever it runs; nobody renews its lease any more."""
    worker = launch(site, "--pool", "asyncio:io=2", "--pool", "threads:mail=2", "--pool", "prefork:default=2")
    for queue in ("io", "mail", "default"):
        for task in (wait_at_gate, wait_at_gate_async):
            site.wait_for_start(task.apply_async((str(site.gates),), queue=queue))
    assert len(worker.children()) == 4
    worker.kill()
    eventually(lambda: not worker.orphans(), message="children outlive their supervisor")


@every_concurrent_pool
def test_a_child_whose_interpreter_is_held_by_one_task_is_replaced(site: Site, pool: list[str]) -> None:
    """The watchdog: one task may hold its own interpreter for as long as it likes, but not that of others."""
    patient = [*MODULES, "tests.integration.impatient"]
    worker = launch(site, *pool, IMPORTS=patient, TASK_MAX_WORKER_LOSSES=1)
    [old] = worker.wait_for_children(1)
    holds = block_interpreter.delay(60.0)
    site.wait_for_start(holds)
    follows = work.delay()
    assert site.wait_for_start(follows).pid != old.pid
    assert f"Child {old.pid} is silent: it is replaced" in worker.said()
    site.wait_for(holds.ready)
    assert holds.state == states.FAILURE
    assert follows.get(timeout=60) >= 1


@every_concurrent_pool
def test_the_lease_of_a_frozen_child_is_not_the_worker_s_end(site: Site, pool: list[str]) -> None:
    """The watchdog: a child that was stopped is replaced, and its tasks run elsewhere."""
    worker = launch(site, *pool, **SHORT_LEASE)
    [child] = worker.wait_for_children(1)
    running = wait_at_gate.delay(str(site.gates))
    site.wait_for_start(running)
    child.suspend()
    site.open_gate(site.wait_for_start(running, 2))
    assert running.get(timeout=60) == 2
    assert "stopped: it is replaced" in worker.said()
