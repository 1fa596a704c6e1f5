"""What becomes of tasks when processes die."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest
from django.db import connection

from django_tasks import states
from django_tasks.models import TaskResult
from tests.eventually import eventually
from tests.integration.jobs import insert_atomically, kill_own_process, wait_at_gate, work, work_at_most_once
from tests.integration.site import SHORT_LEASE, Site, Worker
from tests.servers import is_alive

#: A task that faults hit again and again is no poison here.
MANY_LOSSES = {**SHORT_LEASE, "TASK_MAX_WORKER_LOSSES": 50}


def kill_a_child(worker: Worker) -> None:
    random.choice(eventually(worker.children)).kill()


def kill_all_children(worker: Worker) -> None:
    for child in eventually(worker.children):
        child.kill()


def test_a_process_killed_at_any_instant_loses_no_task(site: Site) -> None:
    """R1, R2: kill -9 of children, supervisors and whole workers under load; reruns stay within 4 per fault."""
    workers = [site.start(**MANY_LOSSES) for _ in range(2)]
    sent = []
    faults: list[tuple[Callable[[Worker], None], bool]] = [  # what is done to a worker, and does it end the worker?
        (kill_a_child, False),
        (kill_a_child, False),
        (Worker.kill, True),
        (kill_all_children, False),
        (kill_a_child, False),
        (Worker.kill_tree, True),
        (kill_all_children, False),
        (Worker.kill_tree, True),
    ]
    for number, (fault, ends) in enumerate(faults):
        at = number % 2
        begun = len(site.journal("start"))
        sent += work.enqueue_many([(0.03,)] * 30)
        site.wait_for_entries(begun + 10, "start")
        fault(workers[at])
        if ends:
            workers[at] = site.start(**MANY_LOSSES)
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns <= 4 * len(faults)
    assert account.duplicates <= 4 * len(faults)


def test_nothing_runs_twice_while_workers_come_and_go_in_order(site: Site) -> None:
    """R2: no rerun without a fault, none on a graceful stop."""
    first, second = site.start(), site.start()
    sent = work.enqueue_many([(0.001 * (number % 40),) for number in range(200)])
    site.wait_for_entries(40, "start")
    assert first.stop() == 0
    site.start()
    begun = len(site.journal("start"))
    sent += [work.delay(0.01) for _ in range(50)]
    site.wait_for_entries(begun + 20, "start")
    assert second.stop() == 0
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert (account.reruns, account.duplicates) == (0, 0)


def test_an_atomic_task_takes_effect_exactly_once(site: Site) -> None:
    """R3: the row, the state and the result commit together, wherever kill -9 falls."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE effects (task_id varchar(36))")
    sent = []
    for _ in range(4):
        worker = site.start(**MANY_LOSSES)
        begun = len(site.journal("start"))
        sent += insert_atomically.enqueue_many([(0.02,)] * 15)
        site.wait_for_entries(begun + 6, "start")
        worker.kill_tree()
    site.start(**MANY_LOSSES)
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    with connection.cursor() as cursor:
        cursor.execute("SELECT task_id FROM effects")
        assert sorted(row[0] for row in cursor.fetchall()) == sorted(result.id for result in sent)


@pytest.mark.databases("sqlite", "redis")
def test_a_task_that_kills_its_process_is_put_aside_after_three_attempts(site: Site) -> None:
    """R14: poison ends as FAILURE with its reason; its neighbours all run."""
    site.start()
    good = work.enqueue_many([(0.02,)] * 20)
    poison = [kill_own_process.delay() for _ in range(3)]
    good += work.enqueue_many([(0.02,)] * 20)
    account = site.account([*good, *poison])
    assert {account.fates[result.id] for result in good} == {states.SUCCESS}
    for result in poison:
        assert account.fates[result.id] == states.FAILURE
        assert account.starts[result.id] == 3
        row = TaskResult.objects.get(pk=result.id)
        assert row.exception.startswith("WorkerLostError")
        assert "SIGKILL" in row.exception
        assert "poison" in row.exception


@pytest.mark.databases("postgresql")
def test_a_task_that_may_run_only_once_never_runs_twice_and_its_loss_is_told(site: Site) -> None:
    """R32: ``acks_late=False``; what a crash took ends as FAILURE with WorkerLostError."""
    worker = site.start(**SHORT_LEASE)
    sent = []
    for kill in (kill_a_child, kill_all_children, Worker.kill_tree):
        begun = len(site.journal("start"))
        sent += work_at_most_once.enqueue_many([(0.03,)] * 20)
        site.wait_for_entries(begun + 6, "start")
        kill(worker)
    site.start(**SHORT_LEASE)
    account = site.account(sent)
    assert account.reruns == 0
    lost = {id_ for id_, state in account.fates.items() if state != states.SUCCESS}
    assert {result.id for result in sent} - account.ends.keys() <= lost
    assert lost
    for row in TaskResult.objects.filter(pk__in=lost):
        assert row.state == states.FAILURE
        assert row.exception.startswith("WorkerLostError")


@pytest.mark.databases("sqlite", "redis")
def test_a_task_that_may_run_only_once_is_not_handed_back_when_a_shutdown_cuts_it_short(site: Site) -> None:
    """R32: it had begun, so it ends as FAILURE; what had not begun waits for the next worker."""
    worker = site.start("--shutdown-timeout", "0", concurrency=1)
    running = work_at_most_once.delay(60.0)
    site.wait_for_start(running)
    waiting = work_at_most_once.delay()
    assert worker.stop() == 0
    assert (running.state, waiting.state) == (states.FAILURE, states.PENDING)
    site.start(concurrency=1)
    account = site.account([running, waiting])
    assert account.fates == {running.id: states.FAILURE, waiting.id: states.SUCCESS}
    assert account.reruns == 0


@pytest.mark.databases("sqlite", "redis")
def test_a_child_that_died_is_replaced_and_its_task_runs_again_at_once(site: Site) -> None:
    """R1: the supervisor takes a dead child's tasks back without waiting for a lease, here 20 seconds."""
    worker = site.start(concurrency=1)
    result = wait_at_gate.delay(str(site.gates))
    [child] = worker.children()
    site.wait_for_start(result)
    child.kill()
    second = site.wait_for_start(result, nth=2)
    [replacement] = worker.wait_for_children(1)
    assert second.pid == replacement.pid != child.pid
    site.open_gate(second)
    assert result.get(timeout=30) == second.attempt
    assert f"Child {child.pid} was killed by SIGKILL" in worker.said()


@pytest.mark.databases("sqlite", "redis")
def test_a_child_that_stands_still_is_replaced(site: Site) -> None:
    """R1: a child stopped for ever (SIGSTOP) strands nothing."""
    worker = site.start(concurrency=1)
    result = wait_at_gate.delay(str(site.gates))
    [child] = worker.children()
    site.wait_for_start(result)
    child.suspend()
    second = site.wait_for_start(result, nth=2)
    assert not is_alive(child)
    site.open_gate(second)
    assert result.get(timeout=30) == second.attempt
    assert f"Child {child.pid} is stopped" in worker.said()


@pytest.mark.databases("sqlite", "redis")
def test_a_killed_supervisor_leaves_no_child_behind(site: Site) -> None:
    """R18: no process goes on with tasks when nobody renews its lease."""
    worker = site.start(concurrency=3)
    results = [wait_at_gate.delay(str(site.gates)) for _ in range(2)]
    for result in results:
        site.wait_for_start(result)
    worker.kill()
    eventually(lambda: not worker.orphans(), message="children outlive their supervisor")
    assert worker.process.returncode == -signal.SIGKILL
