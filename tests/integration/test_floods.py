"""Floods: of tasks, of messages that nobody can read, and of data until nothing more fits."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db import connection

from django_tasks import AsyncResult, states
from django_tasks.exceptions import OperationalError
from django_tasks.models import Task, TaskResult
from tests.app.tasks import noop
from tests.integration.jobs import wait_at_gate, work
from tests.integration.pool_jobs import retry_async
from tests.integration.site import Site
from tests.rows import saved, waiting

#: A flood, and how much of it must be left when the others have been served.
BACKLOG, LEFT = 50_000, 5_000
#: Messages that nobody can read.
MALFORMED = 600


@pytest.mark.databases("sqlite", "postgresql")
def test_a_backlog_stops_neither_another_queue_nor_a_higher_priority(site: Site) -> None:
    """R28: 50,000 tasks wait; what is sent beside them starts within two seconds."""
    noop.enqueue_many([()] * BACKLOG)
    site.start(concurrency=1)
    site.wait_for(lambda: TaskResult.objects.exists())
    for options in ({"queue": "other"}, {"priority": 5}, {"queue": "other", "priority": -5}):
        began = time.monotonic()
        start = site.wait_for_start(work.apply_async(**options))
        assert start.at - began < 2, f"{options} waited {start.at - began:.1f} s"
    assert Task.objects.count() > LEFT, "the backlog was done before anybody could wait for it"


def noise(chance: random.Random) -> dict[str, object]:
    """Return fields of a row that no sender of ours would write; each makes the message unreadable."""
    garbage = "".join(chr(chance.randrange(1, 0xD800)) for _ in range(200))
    good = json.dumps([[list(range(20)), "ä" * 20], {"key": {"deep": [None, 1.5]}}])
    return chance.choice(
        [
            {"body": garbage},
            {"body": good[: chance.randrange(1, len(good))]},  # torn
            {"body": "[" * chance.randrange(1_000, 100_000)},
            {"body": chance.choice(["null", "7", '"text"', "{}", "[]", "[1,{}]", "[[],[]]", '[[],{"a":1},3]'])},
            {"body": f"[[1{'0' * 5_000}],{{}}]"},
            {"encoding": chance.choice(["pickle", "yaml", "application/x-python-serialize", "gzip", "json:zlib"])},
            {"encoding": "zlib:json", "body": "eJ" + garbage},
            {"options": chance.choice(["null", "[]", "7", "{", garbage, '{"tags": 7}', '{"node": 7}', '{"node": []}'])},
            {"options": '{"context": 7}'},
        ]
    )


@pytest.mark.databases("sqlite", "postgresql")
def test_messages_that_nobody_can_read_end_where_people_see_them_and_stop_nobody(site: Site) -> None:
    """R15: 600 of them among 600 good ones; no process ends, all good ones run once, none of the others is lost."""
    chance = random.Random(random.random())  # pytest-randomly sets the seed, and tells it
    bad = saved(waiting(name=work.name, **noise(chance)) for _ in range(MALFORMED))
    # What is said of earlier attempts cannot be read, either; that is no reason not to run.
    retried = saved(waiting(name=retry_async.name, body="[[],{}]", history=text) for text in ("[", "7", '["x"]', "{}"))
    sent = work.enqueue_many([()] * MALFORMED)
    worker = site.start(IMPORTS=["tests.integration.jobs", "tests.integration.pool_jobs"])
    processes = worker.tree()
    site.wait_for(lambda: not Task.objects.exists())
    assert worker.tree() == processes
    fates = dict(TaskResult.objects.values_list("pk", "state"))
    assert Counter(fates[row.pk] for row in bad) == {states.FAILURE: MALFORMED}
    assert {fates[row.pk] for row in retried} == {states.SUCCESS}
    assert {result.state for result in sent} == {states.SUCCESS}
    assert Counter(entry.task_id for entry in site.journal("start")) == {result.id: 1 for result in sent}
    assert max(map(len, TaskResult.objects.values_list("exception", flat=True))) <= 255


def set_room(processes: Iterable[psutil.Process], *, file: Path, more: int | None) -> None:
    """Let processes write no file beyond the size of this one and so many bytes; ``None``: as much as they like."""
    size = psutil.RLIM_INFINITY if more is None else file.stat().st_size + more
    for process in processes:
        process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@pytest.mark.databases("sqlite")
def test_a_full_disk_refuses_and_what_was_accepted_runs_once_there_is_room(site: Site) -> None:
    """R22: ``delay()`` raises; workers wait, do not die and do not spin; nothing that was accepted is lost."""
    log = Path(f"{connection.settings_dict['NAME']}-wal")
    worker = site.start(concurrency=1)
    running = wait_at_gate.delay(str(site.gates))
    accepted: list[AsyncResult[Any]] = []
    start = site.wait_for_start(running)
    ours = [psutil.Process()]
    set_room(ours, file=log, more=1_000_000)
    try:
        with pytest.raises(OperationalError, match="could not be stored"):
            accepted.extend(noop.delay("x" * 10_000) for _ in range(1_000))
    finally:
        set_room(ours, file=log, more=None)
    assert 20 < len(accepted) < 1_000
    processes = worker.tree()
    set_room(processes, file=log, more=2_000)
    site.open_gate(start)
    worker.wait_until_it_says("Trying again")
    began, before = time.monotonic(), cpu_seconds(processes)
    site.wait_for(lambda: worker.said().count("Trying again") >= 5)
    assert cpu_seconds(processes) - before < 0.5 * (time.monotonic() - began) + 0.2, "it spins"
    assert running.state == states.STARTED
    set_room(processes, file=log, more=None)
    account = site.account([running, *accepted])
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.starts[running.id] == 1
    assert worker.tree() == processes
    assert worker.stop() == 0
