"""A long task holds up nothing but its own process."""

from __future__ import annotations

import time

import psutil
import pytest

from django_tasks import states
from django_tasks.models import Task
from tests.integration.jobs import block_interpreter, wait_at_gate, work
from tests.integration.site import Site

#: Seconds of a task that nobody waits for.
LONG = 60.0


def test_short_tasks_are_done_while_a_long_one_runs(site: Site) -> None:
    """R28: one long task and twenty short ones behind it, on two processes; none runs twice."""
    site.start()
    # They become due together, so the claim that holds the long one holds others behind it.
    long = wait_at_gate.apply_async((str(site.gates),), countdown=0.3, priority=1)
    short = work.enqueue_many([()] * 20, countdown=0.3)
    start = site.wait_for_start(long)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in short))
    assert not long.ready()
    site.open_gate(start)
    assert site.account([long, *short]).reruns == 0


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_what_is_claimed_behind_a_task_that_holds_the_interpreter_goes_to_another_process(site: Site) -> None:
    """R28: no other thread of that process can run, so its supervisor gives the claims back."""
    site.start()
    long = block_interpreter.apply_async((LONG,), countdown=0.3, priority=1)
    short = work.enqueue_many([()] * 20, countdown=0.3)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in short), timeout=LONG / 2)
    assert not long.ready()
    assert len(site.journal("start")) == 21, "one of them ran twice"


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_what_becomes_due_while_one_process_is_busy_is_run_by_the_idle_one(site: Site) -> None:
    """R9: each of several moments is kept, also when they follow each other within milliseconds."""
    site.start()
    long = wait_at_gate.apply_async((str(site.gates),), countdown=0.5)
    later = [work.apply_async(countdown=0.5 + 0.02 * number) for number in range(10)]
    start = site.wait_for_start(long)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in later), timeout=4)
    site.open_gate(start)
    assert site.account([long, *later]).reruns == 0


@pytest.mark.databases("sqlite", "postgresql", "redis")
def test_a_worker_whose_processes_are_all_busy_costs_nothing_while_something_is_due(site: Site) -> None:
    """The supervisor neither watches for what nobody could take, nor stumbles over hints that nobody could follow."""
    worker = site.start(concurrency=1)
    long, later = work.delay(4.0), [work.apply_async(countdown=0.1 * number) for number in range(20)]
    site.wait_for_start(long)
    site.wait_for(lambda: Task.objects.due().exists())
    supervisor = psutil.Process(worker.pid)
    before = supervisor.cpu_times()
    time.sleep(1)  # that is the measurement
    after = supervisor.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.3
    assert site.account([long, *later]).reruns == 0


@pytest.mark.databases("sqlite", "redis")
def test_a_long_task_is_shown_as_running_even_if_it_holds_the_interpreter(site: Site) -> None:
    """What runs for longer than about a second is visible, with its start."""
    site.start(concurrency=1)
    result = block_interpreter.delay(LONG)
    site.wait_for_start(result)
    site.wait_for(lambda: Task.objects.get().started_at is not None, timeout=LONG / 2)
    assert result.state == states.STARTED
