"""The pool that has one process for everything."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress

import psutil
import pytest

from django_tasks import states
from django_tasks.models import Task
from django_tasks.models import Worker as WorkerRow
from tests.app.tasks import fail
from tests.eventually import eventually
from tests.integration.jobs import kill_own_process, leak, tell_progress, wait_at_gate, work
from tests.integration.site import SHORT_LEASE, Site

pytestmark = pytest.mark.databases("sqlite", "redis")


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
def test_it_runs_tasks_tells_their_progress_and_finishes_what_runs_when_told_to_stop(site: Site) -> None:
    """R2, R17: as the pool with processes does."""
    worker = site.start("--pool", "solo", WORKER_HEARTBEAT_INTERVAL=0.2)
    sent = work.enqueue_many([(0.005,)] * 50)
    failed = fail.delay("kumquat")
    site.wait_for(lambda: failed.state == states.FAILURE and all(result.state == states.SUCCESS for result in sent))
    running = tell_progress.delay(str(site.gates), in_transaction=False)
    site.wait_for(lambda: running.info == {"done": 1})
    waiting = work.enqueue_many([()] * 3)
    worker.send(signal.SIGTERM)
    site.wait_for(lambda: WorkerRow.objects.get().draining)
    for step in (1, 2):
        (site.gates / str(step)).touch()
    assert worker.wait() == 0
    assert running.state == states.SUCCESS
    assert {result.state for result in waiting} == {states.PENDING}
    assert site.launch("--pool", "solo", "--burst").wait() == 0
    assert site.account([*sent, failed, running, *waiting]).reruns == 0


def test_what_it_held_when_it_was_killed_runs_elsewhere_after_its_lease(site: Site) -> None:
    """R1, R14: nobody replaces its process, so another worker's rescue does it."""
    first = site.start("--pool", "solo", **SHORT_LEASE)
    poison = kill_own_process.delay()
    sent = [poison, *work.enqueue_many([()] * 10)]
    assert first.wait() == -signal.SIGKILL
    site.start(**SHORT_LEASE)
    account = site.account(sent)
    assert account.fates[poison.id] == states.FAILURE
    assert account.starts[poison.id] == 3
    assert list(account.fates.values()).count(states.SUCCESS) == 10


def test_it_ends_when_it_has_run_its_share_since_nobody_would_replace_it(site: Site) -> None:
    """``--max-tasks-per-child`` and ``--max-memory-per-child``: exit code 0, and the rest waits for its next start."""
    sent = work.enqueue_many([()] * 10)
    assert site.launch("--pool", "solo", "--max-tasks-per-child", "4").wait() == 0
    assert [result.state for result in sent].count(states.SUCCESS) == 4
    leaks = [leak.apply_async((64,), priority=1) for _ in range(4)]
    assert site.launch("--pool", "solo", "--max-memory-per-child", "150000").wait() == 0
    done = [result.state for result in leaks].count(states.SUCCESS)
    assert 0 < done < 4
    assert not Task.objects.filter(worker_id__isnull=False).exists()


def test_it_goes_on_when_the_shell_that_started_it_is_gone(site: Site) -> None:
    """Its parent is whoever started it, and no business of its."""
    log, pid_file = site.directory / "worker.log", site.directory / "pid"
    command = " ".join(site.command("--pool", "solo", "--pidfile", str(pid_file)))
    subprocess.run(["sh", "-c", f"{command} >{log} 2>&1 &"], env=site.environ(), check=True, timeout=60)
    eventually(lambda: log.exists() and "is ready" in log.read_text(), timeout=60)
    worker = psutil.Process(int(pid_file.read_text()))
    try:
        running = wait_at_gate.delay(str(site.gates))
        start = site.wait_for_start(running)
        # Its side thread looks after it while a task runs, many times before the task is shown as running.
        site.wait_for(lambda: Task.objects.get().started_at is not None)
        site.open_gate(start)
        assert running.get(timeout=60) == start.attempt
        worker.terminate()
        eventually(lambda: not pid_file.exists(), timeout=60)
    finally:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
