"""R20: ``get(timeout=…)`` obeys its timeout when nobody answers, and ``get()`` goes on when somebody does again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connections, transaction

from django_tasks import AsyncResult, models, shared_task
from django_tasks.backends import close_all, lookout
from django_tasks.exceptions import TimeoutError
from tests.databases import TestDatabase, attached
from tests.eventually import eventually
from tests.inprocess import Worker
from tests.integration.proxy import Proxy

#: Seconds that a machine with other things to do may add to the one that is promised.
SLACK = 2.0


@shared_task
def one() -> int:
    return 1


@contextmanager
def stopped(database: TestDatabase) -> Iterator[None]:
    """Let the server stand still for the block: the kernel takes connections and bytes, and nobody answers."""
    assert database.server is not None
    database.server.pause()
    try:
        yield
    finally:
        database.server.resume()


@contextmanager
def swallowed(proxy: Proxy) -> Iterator[None]:
    """Let the network lose everything for the block; connections that lived through it stay deaf."""
    proxy.swallowing = True
    try:
        yield
    finally:
        proxy.swallowing = False


def seconds_until_it_gives_up(waiting: Callable[[], Any]) -> float:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="was not done within 1 seconds"):
        waiting()
    return time.monotonic() - began


def lookouts() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "django_tasks lookout"]


@contextmanager
def waiting_elsewhere(result: AsyncResult[Any]) -> Iterator[list[Any]]:
    """Let another thread ``get()`` without a timeout; the list has its outcome when the block ends."""
    got: list[Any] = []

    def wait() -> None:
        try:
            got.append(AsyncResult[Any](result.id).get())
        finally:
            connections.close_all()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield got
    finally:
        thread.join(60)
    assert not thread.is_alive()


@pytest.mark.databases("postgresql", "mariadb", private=True)
def test_get_obeys_its_timeout_while_the_server_stands_still(database: TestDatabase) -> None:
    result = one.delay()
    assert result.state == "PENDING"
    handle = AsyncResult[Any](result.id)
    with stopped(database):
        with_an_open_connection = seconds_until_it_gives_up(lambda: handle.get(timeout=1))
        assert database.connection.connection is None
        without_one = seconds_until_it_gives_up(lambda: handle.get(timeout=1))
        asynchronous = seconds_until_it_gives_up(lambda: asyncio.run(handle.aget(timeout=1)))
    print(f"{with_an_open_connection:.2f} {without_one:.2f} {asynchronous:.2f} s")
    assert 1 <= with_an_open_connection <= 2 + SLACK
    assert 1 <= without_one <= 2 + SLACK
    assert 1 <= asynchronous <= 2 + SLACK
    assert result.state == "PENDING"  # the caller's connection comes back by itself
    Worker().drain()
    assert handle.get(timeout=60) == 1
    eventually(lambda: not lookouts(), timeout=30)


@pytest.mark.databases("postgresql", "mariadb", private=True)
def test_get_obeys_its_timeout_when_the_server_stops_in_the_middle_of_the_wait(database: TestDatabase) -> None:
    handle = AsyncResult[Any](one.delay().id)
    took: list[float] = []

    def wait() -> None:
        try:
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                handle.get(timeout=3)
            took.append(time.monotonic() - began)
        finally:
            connections.close_all()

    thread = threading.Thread(target=wait)
    thread.start()
    # PostgreSQL's caller has said that it listens; MariaDB's has nobody to tell.
    if database.kind == "postgresql":
        eventually(lambda: models.Task.objects.filter(awaited=True).exists())
    else:
        eventually(lookouts)
    with stopped(database):
        thread.join(60)
    assert took
    assert 3 <= took[0] <= 4 + SLACK


@pytest.mark.databases("postgresql", "mariadb", private=True)
def test_get_in_a_transaction_obeys_its_timeout_and_breaks_it(database: TestDatabase) -> None:
    handle = AsyncResult[Any](one.delay().id)
    with transaction.atomic():
        assert handle.state == "PENDING"
        with stopped(database):
            assert 1 <= seconds_until_it_gives_up(lambda: handle.get(timeout=1)) <= 2 + SLACK
        with pytest.raises(DatabaseError):
            models.Task.objects.count()
    assert models.Task.objects.count() == 1


@pytest.mark.databases("postgresql", "mariadb")
def test_get_obeys_its_timeout_while_the_network_swallows_everything(database: TestDatabase) -> None:
    with Proxy(database.url) as proxy, attached(database.alias, proxy.url):
        handle = AsyncResult[Any](one.delay().id)
        with swallowed(proxy):
            for _ in range(2):  # on the open connection, and on none
                assert 1 <= seconds_until_it_gives_up(lambda: handle.get(timeout=1)) <= 2 + SLACK
        assert handle.state == "PENDING"
        Worker().drain()
        assert handle.get(timeout=60) == 1
        close_all()


@pytest.mark.databases("postgresql", "mariadb", private=True)
@pytest.mark.parametrize("fault", ["stands still", "restarts", "crashes"])
def test_get_without_a_timeout_goes_on_when_the_server_is_back(database: TestDatabase, fault: str) -> None:
    result = one.delay()
    server = database.server
    assert server is not None
    with waiting_elsewhere(result) as got:
        eventually(lookouts)
        if fault == "stands still":
            with stopped(database), pytest.raises(TimeoutError):
                result.get(timeout=0.5)
        elif fault == "restarts":
            server.restart()
        else:
            server.kill()
            server.start()
        connections[database.alias].close()
        Worker().drain()
    assert got == [1]


@pytest.mark.databases("postgresql", "mariadb")
def test_get_without_a_timeout_gives_up_a_connection_that_stays_deaf(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "STALLED", 1.0)
    result = one.delay()
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(database.url))
        stack.enter_context(attached(database.alias, proxy.url))
        with waiting_elsewhere(result) as got:
            eventually(lookouts)
            with swallowed(proxy), pytest.raises(TimeoutError):
                result.get(timeout=0.5)
            Worker().drain()
        assert got == [1]
        close_all()


def test_an_answer_that_comes_too_late_is_handed_to_whoever_cleans_up(database: TestDatabase) -> None:
    late: list[str] = []
    go_on = threading.Event()

    def slow() -> str:
        go_on.wait(60)
        return "late"

    looking = lookout.Lookout(database.alias, apart=True)
    with pytest.raises(lookout.Unanswered):
        looking.ask(slow, time.monotonic(), unwanted=late.append)
    go_on.set()
    assert eventually(lambda: late) == ["late"]
    eventually(lambda: not lookouts())


@pytest.mark.databases("postgresql")
def test_get_in_asynchronous_code_is_refused(database: TestDatabase) -> None:
    handle = AsyncResult[Any](one.delay().id)

    async def wait() -> None:
        handle.get(timeout=1)

    with pytest.raises(SynchronousOnlyOperation, match="await aget"):
        asyncio.run(wait())
