"""What a caller may rely on: what is accepted, what is refused, what is cancelled and what waits."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import transaction
from django.utils import timezone

from django_tasks import AsyncResult, states
from django_tasks.exceptions import PayloadTooLarge, TaskRevokedError
from django_tasks.models import Task, TaskResult
from tests.eventually import eventually
from tests.integration.jobs import echo, repeat, wait_at_gate, work
from tests.integration.site import ROOT, Site

MIB = 1024 * 1024


def start_producer(site: Site, path: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a process that sends tasks; return it once it has sent some."""
    command = [sys.executable, "-m", "tests.integration.producer", str(path), *options]
    process = subprocess.Popen(command, cwd=ROOT, env=site.environ())
    eventually(lambda: path.exists() and len(path.read_text().splitlines()) > 20, timeout=60)
    return process


def test_what_a_killed_producer_was_told_is_accepted_runs(site: Site) -> None:
    """R21: kill -9 of the sender; at most the one call is there of which it was not told."""
    site.start()
    accepted: set[str] = set()
    for number in range(2):
        path = site.directory / f"accepted-{number}"
        producer = start_producer(site, path)
        producer.kill()
        producer.wait()
        accepted |= set(path.read_text().split())
    site.wait_for(lambda: not Task.objects.exists())
    done = set(site.states())
    assert accepted <= done
    assert len(done - accepted) <= 2
    assert site.account(AsyncResult(id_) for id_ in done).reruns == 0


@pytest.mark.databases("sqlite", "postgresql")
def test_what_is_rolled_back_was_never_sent(site: Site) -> None:
    """R21: a task is part of its caller's transaction; neither rollback nor kill -9 leaves a ghost."""
    path = site.directory / "rolled-back"
    producer = start_producer(site, path, "--rollback")
    producer.kill()
    producer.wait()
    site.start()
    with transaction.atomic():
        work.delay()
        transaction.set_rollback(True)
    with transaction.atomic():
        kept = work.delay()
        assert kept.state == states.PENDING
    assert kept.get(timeout=60)
    assert set(site.states()) == {kept.id}


@pytest.mark.databases("sqlite")
def test_what_is_revoked_while_no_worker_runs_never_runs(site: Site) -> None:
    """R12: a revocation is a fact in the database, not a message to whoever listens."""
    revoked, other = work.delay(), work.delay()
    later = work.apply_async(countdown=0.1)
    for result in (revoked, later):
        result.revoke()
    site.start()
    assert other.get(timeout=60)
    for result in (revoked, later):
        assert result.state == states.REVOKED
        with pytest.raises(TaskRevokedError):
            result.get(timeout=60)
    assert {entry.task_id for entry in site.journal()} == {other.id}


@pytest.mark.databases("sqlite")
def test_a_running_task_that_is_revoked_does_not_run_again(site: Site) -> None:
    """R12: also when its worker dies before it is done."""
    worker = site.start(concurrency=1)
    result = wait_at_gate.delay(str(site.gates))
    start = site.wait_for_start(result)
    result.revoke()
    psutil.Process(start.pid).kill()
    site.wait_for(lambda: result.state == states.REVOKED)
    assert work.delay().get(timeout=60)
    assert len(site.journal("start", task_id=result.id)) == 1
    assert worker.stop() == 0


@pytest.mark.databases("sqlite")
def test_tasks_scheduled_for_later_are_rows_and_survive_every_crash(site: Site) -> None:
    """R10: no worker holds them in memory, so kill -9 costs them nothing and they cost no memory."""
    worker = site.start(concurrency=1)
    before = sum(each.memory_info().rss for each in worker.tree())
    scheduled = work.enqueue_many([()] * 5_000, countdown=3600)
    assert work.delay().get(timeout=60)
    grown = sum(each.memory_info().rss for each in worker.tree()) - before
    assert grown < 16 * MIB
    worker.kill_tree()
    worker = site.start(concurrency=1)
    assert work.delay().get(timeout=60)
    assert Task.objects.filter(state=states.PENDING, attempt=0).count() == len(scheduled)
    Task.objects.filter(pk__in=[result.id for result in scheduled[:100]]).update(due_at=timezone.now())
    Task.objects.filter(pk__in=[result.id for result in scheduled[100:]]).update(
        due_at=timezone.now() + timedelta(days=400)
    )
    site.wait_for(lambda: TaskResult.objects.count() == 102)
    assert {entry.task_id for entry in site.journal("start")} >= {result.id for result in scheduled[:100]}
    assert len(site.journal("start")) == 102
    assert worker.stop() == 0


@pytest.mark.databases("sqlite")
def test_a_payload_beyond_the_limit_is_refused_before_anything_is_stored(site: Site) -> None:
    """R24: in ``delay()``; a result beyond it ends its task, not the worker."""
    worker = site.start(concurrency=1)
    for size in (1, 8, 32):
        with pytest.raises(PayloadTooLarge, match="PAYLOAD_LIMIT"):
            echo.delay("x" * size * MIB)
    assert not Task.objects.exists()
    [child] = worker.children()
    result = repeat.delay("x" * 1024, 2048)
    with pytest.raises(PayloadTooLarge, match="PAYLOAD_LIMIT"):
        result.get(timeout=60)
    assert result.state == states.FAILURE
    assert echo.delay("still here").get(timeout=60) == "still here"
    assert worker.children() == [child]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("x" * (MIB - 100), id="a mebibyte"),
        pytest.param("\x00\x1f\x7f\u2028\ufeff € 𝄞 \"'\\", id="every kind of character"),
        pytest.param([None, True, -(2**70), 1e308, {"": {"ключ": [[[]]]}}], id="every kind of value"),
    ],
)
def test_a_payload_within_the_limit_comes_back_as_it_was_sent(site: Site, value: Any) -> None:
    """R24: through arguments and result, on every database."""
    site.start(concurrency=1)
    result = echo.delay(value)
    assert result.get(timeout=60) == value
