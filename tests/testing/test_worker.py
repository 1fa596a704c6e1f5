"""``worker``: a real worker for the length of a block."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import transaction
from django.test import override_settings

from django_tasks import models
from django_tasks.testing import eager_tasks, worker
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.servers import is_alive
from tests.testing import jobs

ROOT = Path(__file__).resolve().parents[2]
ONLY_SQLITE = pytest.mark.databases("sqlite")
JOBS = [jobs.__name__]
#: Seconds; several times what a busy machine with two cores needs.
PATIENCE = 60


def test_a_worker_runs_what_the_test_commits_until_the_block_ends(database: TestDatabase) -> None:
    with eager_tasks(), worker(imports=JOBS, concurrency=2) as started:
        result = jobs.price.delay(3, each=2)
        assert result.get(timeout=PATIENCE) == 6
        assert str(result.worker).startswith("testing@")
        assert jobs.where.delay().get(timeout=PATIENCE)["pid"] not in (os.getpid(), started.pid)
        assert "is ready." in started.said()
    [row] = models.Worker.objects.all()
    assert (row.pid, row.concurrency, row.stopped_at is not None) == (started.pid, 2, True)
    assert not psutil.pid_exists(started.pid)
    assert jobs.price.delay(1).state == "PENDING"


@ONLY_SQLITE
def test_a_worker_has_the_settings_that_the_test_has_changed(database: TestDatabase) -> None:
    with override_settings(TIME_ZONE="Asia/Tokyo", SHOP={"open": [8, 9]}), worker(imports=JOBS, pool="solo") as started:
        found = jobs.where.delay().get(timeout=PATIENCE)
    assert found == {"pid": started.pid, "zone": "Asia/Tokyo", "shop": {"open": [8, 9]}}


@ONLY_SQLITE
def test_a_worker_takes_only_the_queues_that_are_named(database: TestDatabase) -> None:
    other = jobs.price.apply_async((1,), queue="other")
    with worker(imports=JOBS, queues=["slow", "mail"], pool="solo"):
        results = [jobs.price.apply_async((2,), queue=queue) for queue in ("slow", "mail")]
        assert [result.get(timeout=PATIENCE) for result in results] == [2, 2]
    assert other.state == "PENDING"


def test_a_worker_within_a_transaction_is_refused(database: TestDatabase) -> None:
    told = r"no other process sees its rows\. Instead of TestCase use TransactionTestCase"
    with transaction.atomic(), pytest.raises(RuntimeError, match=told), worker():
        pass


@pytest.mark.django_db(transaction=True)
def test_a_worker_on_a_database_in_memory_is_refused() -> None:
    told = r'Give the tests a file: DATABASES\["default"\]\["TEST"\] = {"NAME"'
    with pytest.raises(RuntimeError, match=told), worker():
        pass


@ONLY_SQLITE
def test_a_worker_that_does_not_start_tells_why(database: TestDatabase) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"imports": ["not_there"]}, "(?s)The worker ended with 1:.*No module named 'not_there'"),
        ({"concurrency": 0}, "(?s)The worker ended with 1:.*--concurrency 0: must be at least 1"),
        ({"timeout": 0}, "The worker was not ready within 0 s"),
    ]
    for options, told in refused:
        with pytest.raises(RuntimeError, match=told), worker(**options):
            pass
    with pytest.raises(ValueError, match="queue is 'no queue'"), worker(queues=["no queue"]):
        pass
    handed = pytest.raises(RuntimeError, match="cannot hand the setting SHOP to another process")
    with override_settings(SHOP=lambda: None), handed, worker():
        pass


@ONLY_SQLITE
def test_a_worker_that_dies_is_told_of_and_one_whose_test_fails_tells_what_it_said(database: TestDatabase) -> None:
    def kill_it() -> None:
        with worker() as started:
            process = psutil.Process(started.pid)
            process.kill()
            eventually(lambda: not is_alive(process))

    def fail() -> None:
        with worker():
            raise ZeroDivisionError

    with pytest.raises(RuntimeError, match=r"(?s)The worker ended with -9:.*queues  "):
        kill_it()
    with pytest.raises(ZeroDivisionError) as raised:
        fail()
    assert "queues  " in raised.value.__notes__[0]
    assert [row.stopped_at is None for row in models.Worker.objects.order_by("pk")] == [True, False]


@ONLY_SQLITE
def test_a_worker_ends_when_the_process_of_its_test_is_killed(database: TestDatabase, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import django, time; django.setup()\n"
        "from django_tasks.testing import worker\n"
        "with worker(pool='solo') as started:\n"
        "    print(started.pid, flush=True)\n"
        f"    time.sleep({PATIENCE})\n"
    )
    environ = {**database.environ(), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], env=environ, stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        left = psutil.Process(int(test.stdout.readline()))
        test.kill()
    eventually(lambda: not is_alive(left), timeout=PATIENCE, message="the worker outlives its test")
