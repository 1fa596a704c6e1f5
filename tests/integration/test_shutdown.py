"""How a worker ends when it is told to."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from django_tasks import AsyncResult, states
from django_tasks.models import Task
from django_tasks.models import Worker as WorkerRow
from tests.eventually import eventually
from tests.integration.jobs import Entry, start_grandchild, wait_at_gate, work
from tests.integration.site import Site, Worker
from tests.servers import is_alive

pytestmark = pytest.mark.databases("sqlite", "redis")

#: Runs a command as the first process of a new namespace, which dies when the test does.
AS_PID_1 = ["unshare", "--pid", "--fork", "--kill-child"]


def can_be_pid_1() -> bool:
    """May this user make a process namespace?"""
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*AS_PID_1, "true"], capture_output=True, check=False).returncode == 0
    )


def two_at_work(site: Site) -> tuple[list[AsyncResult[int]], list[Entry]]:
    """Send two tasks that wait at the gate; return them once both run."""
    running = [wait_at_gate.delay(str(site.gates)) for _ in range(2)]
    return running, [site.wait_for_start(result) for result in running]


def wait_until_told(worker: Worker) -> None:
    """Wait until the site knows that the worker takes nothing new."""
    eventually(lambda: WorkerRow.objects.filter(pid=worker.pid, draining=True).exists(), timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_told_to_stop_finishes_what_runs_and_takes_nothing_new(site: Site, number: signal.Signals) -> None:
    """R17: exit code 0, no rerun, and what did not begin waits as if nothing had been."""
    worker = site.start(WORKER_HEARTBEAT_INTERVAL=0.2)
    running, starts = two_at_work(site)
    waiting = work.enqueue_many([()] * 5)
    worker.send(number)
    wait_until_told(worker)
    waiting.append(work.delay())
    for start in starts:
        site.open_gate(start)
    assert worker.wait() == 0
    assert [result.state for result in running] == [states.SUCCESS] * 2
    assert [result.state for result in waiting] == [states.PENDING] * 6
    assert not Task.objects.filter(worker_id__isnull=False).exists()
    assert WorkerRow.objects.get(pid=worker.pid).stopped_at is not None
    site.start()
    assert site.account([*running, *waiting]).reruns == 0


def test_what_does_not_end_in_time_is_handed_back_at_once(site: Site) -> None:
    """R17: after --shutdown-timeout; nobody waits for a lease, here 20 seconds, and nobody is to blame."""
    worker = site.start("--shutdown-timeout", "0.3")
    running, _ = two_at_work(site)
    assert worker.stop() == 0
    assert not worker.orphans()
    assert list(Task.objects.values_list("state", "worker_id", "losses")) == [(states.PENDING, None, 0)] * 2
    site.start()
    for result in running:
        site.open_gate(site.wait_for_start(result, 2))
    assert set(site.account(running).fates.values()) == {states.SUCCESS}


def test_a_second_signal_ends_the_wait(site: Site) -> None:
    """R17: SIGTERM twice hands back at once what the first one would have waited 30 seconds for."""
    worker = site.start(WORKER_HEARTBEAT_INTERVAL=0.2)
    two_at_work(site)
    worker.send(signal.SIGTERM)
    wait_until_told(worker)
    assert worker.stop() == 0
    assert list(Task.objects.values_list("state", "losses")) == [(states.PENDING, 0)] * 2


def test_sigquit_ends_a_worker_at_once_with_all_that_its_tasks_started(site: Site) -> None:
    """R17, R18: cold; running tasks are killed with their own child processes, and handed back."""
    worker = site.start()
    result = start_grandchild.delay(str(site.gates))
    grandchild = psutil.Process(int(eventually(lambda: read(site.gates / "grandchild"), timeout=60)))
    assert worker.stop(signal.SIGQUIT) == 0
    assert not worker.orphans()
    eventually(lambda: not is_alive(grandchild), message="a task's own process outlives it")
    assert result.state == states.PENDING
    assert Task.objects.get().losses == 0


def test_an_idle_worker_ends_at_once(site: Site) -> None:
    """R17: nothing runs, so there is nothing to wait for."""
    worker = site.start()
    assert worker.stop() == 0
    assert "has stopped" in worker.said()


@pytest.mark.skipif(not can_be_pid_1(), reason="needs root and unshare to make a process namespace")
def test_a_worker_that_is_the_first_process_of_a_container_ends_in_order_and_leaves_no_zombies(site: Site) -> None:
    """R17: as PID 1, whom the kernel sends only signals that it handles, and who inherits every orphan."""
    wrapper = site.launch("-n", "first", prefix=AS_PID_1, WORKER_HEARTBEAT_INTERVAL=0.2)
    wrapper.wait_until_it_says("is ready.")
    assert WorkerRow.objects.get().pid == 1
    [worker] = wrapper.children()
    result = start_grandchild.delay(str(site.gates))
    start = site.wait_for_start(result)
    [sleeper] = eventually(
        lambda: [one for one in worker.children(recursive=True) if one.name() == "sleep"], timeout=60
    )
    # Its parent, the child that runs the task, dies; it becomes the supervisor's, who must collect it in the end.
    psutil.Process(sleeper.ppid()).kill()
    eventually(lambda: sleeper.ppid() == worker.pid)
    sleeper.kill()
    eventually(lambda: not psutil.pid_exists(sleeper.pid), message="the supervisor does not collect an orphan")
    second = site.wait_for_start(result, 2)
    worker.terminate()
    eventually(lambda: WorkerRow.objects.filter(draining=True).exists(), timeout=60)
    site.open_gate(second)
    assert wrapper.wait() == 0
    assert start.attempt < second.attempt
    assert result.state == states.SUCCESS


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
