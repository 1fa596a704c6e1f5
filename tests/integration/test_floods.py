"""Floods: of tasks, of messages that nobody can read, and of data until nothing more fits."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from django.db import connection

from django_tasks import states
from django_tasks.exceptions import OperationalError
from django_tasks.models import Task, TaskResult
from tests.app.tasks import noop
from tests.integration.jobs import repeat, wait_at_gate, work
from tests.integration.pool_jobs import retry_async
from tests.integration.site import Site
from tests.rows import saved, waiting

#: A flood, and how much of it must be left when the others have been served.
BACKLOG, LEFT = 100_000, 20_000
#: Messages that nobody can read.
MALFORMED = 600


@pytest.mark.databases("sqlite", "postgresql")
def test_a_backlog_stops_neither_another_queue_nor_a_higher_priority(site: Site) -> None:
    """R28: 100,000 tasks wait; what is sent beside them starts within two seconds."""
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
    garbage = "".join(chr(chance.choice((*range(1, 0xD800), *range(0xE000, 0x11000)))) for _ in range(200))
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
    chance = random.Random()  # noqa: S311 - pytest-randomly seeds it, and tells the seed
    bad = saved(waiting(name=work.name, **noise(chance)) for _ in range(MALFORMED))
    # What is said of earlier attempts cannot be read, either; that is no reason not to run.
    retried = saved(waiting(name=retry_async.name, body="[[],{}]", history=text) for text in ("[", "7", '["x"]', "{}"))
    sent = work.enqueue_many([()] * MALFORMED)
    worker = site.start(IMPORTS=["tests.integration.jobs", "tests.integration.pool_jobs"])
    processes = worker.tree()
    site.wait_for(lambda: not Task.objects.exists())
    assert worker.tree() == processes
    fates = dict(TaskResult.objects.values_list("pk", "state"))
    huge = {row.pk for row in bad if row.body.startswith("[[10")}  # read, and more than work() takes: a failure, too
    assert Counter(fates[row.pk] for row in bad) == {states.FAILURE: MALFORMED}, huge
    assert {fates[row.pk] for row in retried} == {states.SUCCESS}
    assert {result.state for result in sent} == {states.SUCCESS}
    assert Counter(entry.task_id for entry in site.journal("start")) == {result.id: 1 for result in sent}
    assert max(map(len, TaskResult.objects.values_list("exception", flat=True))) <= 255


@contextmanager
def room_for(pages: int) -> Iterator[None]:
    """Let the SQLite database grow by so many pages on this connection, and no more."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA page_count")
        [count] = cursor.fetchone()
        cursor.execute(f"PRAGMA max_page_count = {count + pages}")
        yield
        cursor.execute("PRAGMA max_page_count = 4294967294")


@pytest.mark.databases("sqlite")
def test_a_full_database_refuses_and_what_it_accepted_runs_once_there_is_room(site: Site, tmp_path: Path) -> None:
    """R22: ``delay()`` raises; workers wait, do not die and do not spin; nothing that was accepted is lost."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE ballast (data blob)")
        cursor.execute("INSERT INTO ballast VALUES (zeroblob(2000000))")
    running = wait_at_gate.delay(str(site.gates))
    accepted = []
    with room_for(300), pytest.raises(OperationalError, match="full"):
        for _ in range(1_000):
            accepted.append(repeat.delay("x" * 10_000, 1))
    assert 20 < len(accepted) < 1_000
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA page_count")
        [count] = cursor.fetchone()
    settings = tmp_path / "full_settings.py"
    options = f"DATABASES['default'].setdefault('OPTIONS', {{}})['init_command'] = 'PRAGMA max_page_count = {count}'"
    settings.write_text(f"from tests.settings import *\n{options}\n")
    worker = site.start(concurrency=1, environ={"DJANGO_SETTINGS_MODULE": "full_settings"})
    processes = worker.tree()
    site.open_gate(site.wait_for_start(running))
    worker.wait_until_it_says("full")
    before, cpu = time.monotonic(), sum(sum(psutil.Process(each.pid).cpu_times()[:2]) for each in processes)
    site.wait_for(lambda: worker.said().count("Trying again") >= 4)
    used = sum(sum(psutil.Process(each.pid).cpu_times()[:2]) for each in processes) - cpu
    assert used < 0.5 * (time.monotonic() - before) + 0.2, "it spins"
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE ballast")
    account = site.account([running, *accepted])
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.starts[running.id] == 1
    assert worker.tree() == processes
    assert worker.stop() == 0
