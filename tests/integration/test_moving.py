"""Moving from one broker to another, with senders and workers of both at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from django_tasks import states
from django_tasks.backends import close_all, get_broker, mover
from django_tasks.backends.base import Queues
from django_tasks.models import Task, TaskResult, Worker
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.inprocess import Worker as Inside
from tests.integration.jobs import echo, work
from tests.integration.load import Load
from tests.integration.redis_site import RedisSite
from tests.integration.site import ROOT

DATABASE = "database://"
#: Only if the environment asks for it: it takes half a minute, and has nothing of its own.
LONG = pytest.param(
    ("redis", "other"), marks=pytest.mark.skipif("TEST_REDIS_LONG" not in os.environ, reason="TEST_REDIS_LONG is unset")
)


@pytest.fixture
def site(database: TestDatabase, tmp_path: Path) -> Iterator[RedisSite]:
    """Give a site without workers, and a Redis of its own."""
    with closing(RedisSite.open(database, tmp_path)) as site:
        yield site


def urls(site: RedisSite, names: Sequence[str]) -> list[str]:
    """Return the URLs that stand for ``database``, ``redis`` and ``other``, another Redis."""
    known = {"database": DATABASE, "redis": site.redis.url, "other": f"{site.redis.url}?prefix=other"}
    return [known[name] for name in names]


def move(source: str, target: str) -> dict[str, int]:
    """Run the command once; return what it says."""
    out = StringIO()
    call_command("tasks", "migrate-broker", source, target, "--once", "--json", stdout=out)
    said: dict[str, int] = json.loads(out.getvalue())
    return said


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("names", [("database", "redis"), ("redis", "database"), LONG], ids=" to ".join)
def test_a_site_that_moves_while_it_works_loses_nothing_and_runs_nothing_twice(
    site: RedisSite, names: tuple[str, str]
) -> None:
    source, target = urls(site, names)
    site.configure(BROKER_URL=source)
    old = [site.start() for _ in range(2)]
    sent = [work.apply_async(countdown=3600 if number % 2 else 0.1) for number in range(10)]
    far = [one.id for number, one in enumerate(sent) if number % 2]
    volatile = [work.apply_async((0.001,), durable=False) for _ in range(20)] if "database" not in source else []
    command = [sys.executable, "-m", "tests.manage", "tasks", "migrate-broker", source, target]
    said = site.directory / "mover.log"
    with said.open("wb") as log, Load(seconds=0.005, pause=0.01) as load:
        site.wait_for_entries(20, "start")
        process = subprocess.Popen(command, cwd=ROOT, env=site.environ(), stdout=log, stderr=subprocess.STDOUT)
        try:
            eventually(lambda: "Ready" in said.read_text(), timeout=60, message="the mover is not ready")
            site.configure(BROKER_URL=target)
            new = [site.start() for _ in range(2)]
            seen = len(site.journal("start"))
            site.wait_for_entries(seen + 60, "start")  # both are at work
            assert [one.stop() for one in old] == [0, 0]
            site.wait_for_entries(len(site.journal("start")) + 30, "start")
            assert process.wait(60) == 0, said.read_text()
        finally:
            process.kill()
            process.wait()
    near = [one for one in sent if one.id not in far]
    account = site.account_without_rows([*near, *volatile, *load.accepted, *load.unknown])
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns == 0
    assert not Worker.objects.filter(name__startswith="migrate-broker", stopped_at=None).exists()
    assert {str(key) for key in Task.objects.values_list("pk", flat=True)} == set(far)
    Task.objects.update(due_at="2020-01-01T00:00Z")
    if target != DATABASE:
        broker = get_broker()
        broker.reschedule(far, delay=0.0)
    site.account_without_rows(sent)
    assert [one.stop() for one in new] == [0, 0]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("names", [("redis", "database"), ("redis", "other")], ids=" to ".join)
def test_what_waits_is_moved_as_it_is(site: RedisSite, names: tuple[str, str]) -> None:
    """Without workers: priorities, times, queues, and messages that have no row."""
    source, target = urls(site, names)
    site.configure(BROKER_URL=source)
    sent = [
        work.apply_async(durable=durable, priority=priority, queue=queue, countdown=countdown)
        for durable in (True, False)
        for priority, queue, countdown in ((0, "default", None), (5, "mail", None), (1, "default", 3600))
    ]
    assert move(source, target)["taken"] == len(sent)
    assert "m" not in {part for part in site.parts() if "other" not in target} or target != DATABASE
    rows = {str(row.pk): row for row in Task.objects.all()}
    assert set(rows) == {one.id for one in sent}
    assert {row.state for row in rows.values()} == {states.PENDING}
    assert [(rows[one.id].priority, rows[one.id].queue) for one in sent[3:]] == [
        (0, "default"),
        (5, "mail"),
        (1, "default"),
    ]
    site.configure(BROKER_URL=target)
    worker = Inside()
    assert worker.drain(hurry=False) == 4
    assert get_broker().survey(Queues()).due is False
    assert {str(key) for key in TaskResult.objects.values_list("pk", flat=True)} == {
        one.id for number, one in enumerate(sent) if number % 3 != 2
    }


@pytest.mark.databases("sqlite")
def test_a_mover_that_died_half_way_is_no_loss(site: RedisSite) -> None:
    """A row that nobody takes may have been made, and its message be there still or not."""
    source = site.redis.url
    site.configure(BROKER_URL=source)
    there, gone = (work.apply_async(durable=False) for _ in range(2))
    moving = mover(source, DATABASE)
    broker = moving._source
    assert broker is not None
    places = list(broker.leases.look([there.id, gone.id]).values())
    calls = [one.entry.delivery(one.id, one.queue, one.due or 0.0, 0.0, 0) for one in places]
    broker.rows.keep(calls, states.WAITING, ages={one.id: (0.0, None) for one in calls})
    broker.leases.give("default", [gone.id])
    moving.close()
    assert move(source, DATABASE)["taken"] == 1
    assert dict(Task.objects.values_list("state", "pk")).keys() == {states.PENDING}
    assert Task.objects.count() == 2
    site.configure(BROKER_URL=DATABASE)
    assert Inside().drain() == 2


@pytest.mark.databases("sqlite", "mariadb")
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "ignored"])
def test_what_runs_after_a_mover_died_half_way_does_not_run_again(site: RedisSite, kept: bool) -> None:
    """Its row was made, and its message was still there: workers of the old broker take it."""
    source = site.redis.url
    site.configure(BROKER_URL=source)
    sent = [echo.apply_async((number,), durable=False, ignore_result=not kept) for number in range(2)]
    moving = mover(source, DATABASE)
    broker = moving._source
    assert broker is not None
    places = list(broker.leases.look([one.id for one in sent]).values())
    calls = [one.entry.delivery(one.id, one.queue, one.due or 0.0, 0.0, 0) for one in places]
    broker.rows.keep(calls, states.WAITING, ages={one.id: (0.0, None) for one in calls})
    moving.close()
    old = Inside()
    first = old.claim()
    assert first is not None
    get_broker().mark_started({(first.id, 1): 3.0})
    assert old.run(first).done.state == states.SUCCESS
    assert old.drain() == 1
    assert move(source, DATABASE)["taken"] == 0
    assert Task.objects.count() == 0
    assert TaskResult.objects.count() == (2 if kept else 0)
    site.configure(BROKER_URL=DATABASE)
    assert Inside().drain() == 0


@pytest.mark.databases("sqlite")
def test_what_makes_no_sense_is_refused(site: RedisSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD_BROKER", "redis://:canary@host/x")
    for words, said in (
        (("database://", "database://"), "are the same"),
        ((site.redis.url, "settings"), "are the same"),
        (("env:NOWHERE", "settings"), "has no variable NOWHERE"),
        (("env:OLD_BROKER", "settings"), "The database must be a number"),
        (("amqp://guest@host", "settings"), "amqp:// is not available"),
        (("nothing", "settings"), "FROM: is 'no URL' Allowed"),
    ):
        with pytest.raises(CommandError) as caught:
            call_command("tasks", "migrate-broker", *words)
        assert said in str(caught.value)
        assert "canary" not in str(caught.value)
        assert caught.value.returncode == 2
    close_all()


@pytest.mark.databases("sqlite")
def test_a_broker_that_is_away_is_told(site: RedisSite) -> None:
    site.redis.kill()
    with pytest.raises(CommandError, match=r"Redis at redis://.* cannot be reached.*Start it again") as caught:
        call_command("tasks", "migrate-broker", "database://", site.redis.url)
    assert caught.value.returncode == 1
    site.redis.start()
