"""What becomes of workers when their database server, or the way to it, fails."""

from __future__ import annotations

import random
import time

import pytest

from django_tasks import states
from tests.databases import attached
from tests.eventually import eventually
from tests.integration.jobs import count_workers, cut_every_connection
from tests.integration.load import Load
from tests.integration.proxy import Proxy
from tests.integration.site import Site
from tests.servers import Server

#: Seconds within which tasks run again once the server is back.
BACK_AT_WORK = 10.0
#: Seconds for which a server does not answer.
PAUSE = 5.0


def restart(server: Server) -> None:
    server.restart()


def crash(server: Server) -> None:
    server.kill()
    server.start()


def stand_still(server: Server) -> None:
    server.pause()
    time.sleep(PAUSE)  # that is the fault
    server.resume()


@pytest.mark.timeout(240)
@pytest.mark.databases("postgresql", "mariadb", private=True)
def test_workers_outlive_restarts_crashes_and_pauses_of_their_server(site: Site) -> None:
    """R19: nothing lost, nothing stuck, no worker process dies, and tasks run again within ten seconds.

    R2: a crashed PostgreSQL may forget a claim, for which nobody waits until it is on disk; then its tasks run again.
    """
    server = site.database.server
    assert server is not None
    worker = site.start()
    processes = worker.tree()
    with Load(seconds=0.01, pause=0.02) as load:
        for fault in (restart, crash, stand_still):
            site.wait_for_entries(len(site.journal("start")) + 20, "start")
            fault(server)
            before = len(site.journal("start"))
            eventually(
                lambda before=before: len(site.journal("start")) > before,  # type: ignore[misc]
                timeout=BACK_AT_WORK,
                message=f"no task runs after {fault.__name__}()",
            )
        site.wait_for_entries(len(site.journal("start")) + 20, "start")
    account = site.account(load.accepted, unknown=load.unknown)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns <= 4
    assert worker.tree() == processes
    assert worker.stop() == 0


@pytest.mark.databases("postgresql")
def test_connections_cut_in_the_middle_of_a_message_lose_nothing_and_repeat_nothing(site: Site) -> None:
    """R20: wherever the cut falls, before, within or after a statement whose answer is then never heard."""
    cuts = 12
    with Proxy(site.database.url) as proxy, attached(site.database.alias, proxy.url):
        worker = site.start(environ={"DATABASE_URL": proxy.url})
        processes = worker.tree()
        with Load(seconds=0.005, pause=0.005) as load:
            for number in range(cuts):
                site.wait_for_entries(len(site.journal("start")) + 10, "start")
                proxy.cut_after(random.randint(0, 20_000))
                eventually(lambda number=number: proxy.cuts > number, timeout=60)  # type: ignore[misc]
        account = site.account(load.accepted, unknown=load.unknown)
        assert set(account.fates.values()) == {states.SUCCESS}
        assert (account.reruns, account.duplicates) == (0, 0)
        assert worker.tree() == processes
        assert worker.stop() == 0


@pytest.mark.databases("postgresql")
def test_a_task_whose_connections_were_all_cut_still_has_its_result(site: Site) -> None:
    """R20: the engine's connections are its own, and come back by themselves; the next task finds a fresh one, too."""
    worker = site.start(concurrency=1)
    processes = worker.tree()
    sent = []
    for _ in range(3):
        sent += [cut_every_connection.delay(), count_workers.delay(), count_workers.delay()]
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns == 0
    assert worker.tree() == processes
