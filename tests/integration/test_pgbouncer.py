"""Behind PgBouncer in transaction mode: each transaction may be run by another server process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction

from django_tasks import AsyncResult, states
from django_tasks.backends import close_all, get_broker
from django_tasks.backends.database.wakers import Poller
from django_tasks.models import Task, Worker
from tests.databases import TestDatabase, attached
from tests.eventually import eventually
from tests.integration.jobs import echo, wait_at_gate, work
from tests.integration.pgbouncer import POOL_SIZE, PgBouncer
from tests.integration.site import SHORT_LEASE, Site
from tests.servers import ServerMissing

pytestmark = pytest.mark.databases("postgresql")

POOLED = {"DJANGO_SETTINGS_MODULE": "tests.integration.pooled_settings"}


@pytest.fixture
def bouncer(database: TestDatabase) -> Iterator[PgBouncer]:
    """Give a PgBouncer in front of the test's database, which is ``default`` through it from here on."""
    with ExitStack() as stack:
        try:
            bouncer = stack.enter_context(PgBouncer(database.url))
        except ServerMissing as missing:
            pytest.skip(str(missing))
        stack.enter_context(attached("default", bouncer.url))
        connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True
        close_all()
        stack.callback(close_all)
        yield bouncer


@pytest.fixture
def site(database: TestDatabase, bouncer: PgBouncer, tmp_path: Path) -> Iterator[Site]:
    """Give a site whose workers reach the database through PgBouncer, too."""
    site = Site(replace(database, url=bouncer.url), tmp_path)
    yield site
    site.close()


def send_in_threads(clients: int, each: int) -> list[AsyncResult[int]]:
    """Send from more connections than there are server processes, every other time within a transaction."""

    def send(_: int) -> list[AsyncResult[int]]:
        sent = []
        try:
            for number in range(each):
                if number % 2:
                    with transaction.atomic():
                        sent += [work.delay(), work.delay()]
                else:
                    sent.append(work.delay())
            with transaction.atomic():
                work.delay()
                work.delay()
                transaction.set_rollback(True)
        finally:
            connections.close_all()
        return sent

    with ThreadPoolExecutor(clients) as pool:
        return [one for many in pool.map(send, range(clients)) for one in many]


def test_a_session_does_not_outlive_its_transaction(bouncer: PgBouncer) -> None:
    """What the other tests rely on: this is transaction mode indeed."""
    options: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}
    with psycopg.connect(bouncer.url, **options) as one, psycopg.connect(bouncer.url, **options) as other:
        asked = "SELECT pg_backend_pid()"
        with one.transaction(), other.transaction():  # two server processes
            pids = {client.execute(asked).fetchone() for client in (one, other)}
        assert len(pids) == 2
        assert len({one.execute(asked).fetchone() for _ in range(20)}) == 2


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_sending_works_in_and_outside_of_transactions(bouncer: PgBouncer, told: bool) -> None:
    """Also where Django has not been told of the pooler: then prepared statements come and go."""
    connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = told
    sent = send_in_threads(2 * POOL_SIZE, 30)
    assert {one.id for one in sent} == {str(pk) for pk in Task.objects.values_list("pk", flat=True)}
    assert len(sent) == 2 * POOL_SIZE * 45


def test_two_children_run_each_task_once(site: Site) -> None:
    sent = send_in_threads(4, 33)
    sent += work.enqueue_many([()] * (200 - len(sent)))
    assert len(sent) == 200
    worker = site.start(environ=POOLED)
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert (account.reruns, account.duplicates) == (0, 0)
    assert worker.stop() == 0
    assert "Traceback" not in worker.said()


def test_a_result_is_waited_for(site: Site) -> None:
    site.start(environ=POOLED)
    assert [echo.delay(number).get(timeout=60) for number in range(5)] == list(range(5))


def test_nobody_listens_and_an_idle_worker_asks(site: Site) -> None:
    """A notification goes to the server process that heard LISTEN, which is somebody else's a moment later."""
    worker = site.start(environ=POOLED)
    assert isinstance(get_broker().waker(), Poller)
    assert [echo.delay(number).get(timeout=60) for number in range(3)] == [0, 1, 2]
    with connection.cursor() as cursor:  # a server process remembers the channels of all its clients
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT pg_listening_channels()")
        assert cursor.fetchall() == []
    assert worker.stop() == 0


def test_what_a_dead_worker_held_runs_again(site: Site) -> None:
    victim = site.start(environ=POOLED, **SHORT_LEASE)
    result = wait_at_gate.delay(str(site.gates))
    site.wait_for_start(result)
    victim.kill_tree()
    site.start(environ=POOLED, **SHORT_LEASE)
    site.open_gate(site.wait_for_start(result, nth=2))
    assert site.account([result]).fates == {result.id: states.SUCCESS}


def test_a_lease_is_renewed(site: Site) -> None:
    site.start(environ=POOLED, **SHORT_LEASE)
    first = eventually(lambda: Worker.objects.values_list("beat_at", flat=True).first())
    assert first is not None
    site.wait_for(lambda: Worker.objects.filter(beat_at__gt=first, lost_at=None).exists())
