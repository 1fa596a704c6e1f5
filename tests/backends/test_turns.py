"""Engines that share a SQLite file queue for it, and nothing depends on it that they do."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from django_tasks.backends.base import Queues
from django_tasks.backends.database import DatabaseBroker, turns
from django_tasks.backends.database.turns import Turn
from django_tasks.backends.message import Holder
from tests.backends.bench import DatabaseBench
from tests.backends.calls import claim, finish, send, success
from tests.databases import TestDatabase
from tests.eventually import eventually

fcntl = pytest.importorskip("fcntl")

#: Takes the turn, forks a process that lives on, and holds the turn until it is killed.
HOLD = """
import os, sys, time
import django
django.setup()
from django_tasks.backends.database.turns import Turn
with Turn(sys.argv[1]).taken():
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(600)
"""
#: Tries to write at once.
WRITE = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Give a database in write-ahead mode, open, so that its log is there."""
    path = str(tmp_path / "db.sqlite3")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        yield path


@contextmanager
def a_turn(path: str) -> Iterator[Turn]:
    with closing(Turn(path)) as turn:
        yield turn


def is_taken(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Does somebody else have the turn?"""
    descriptor = turn._descriptor
    assert descriptor is not None
    with monkeypatch.context() as patch:
        patch.setattr(turns, "PATIENCE", 0.0)
        if not turns._lock(descriptor):
            return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def test_only_one_has_the_turn_and_then_the_next(path: str) -> None:
    order: list[str] = []
    second_asks = threading.Event()

    def second() -> None:
        second_asks.set()
        with a_turn(path) as turn, turn.taken():
            order.append("second")

    with a_turn(path) as turn, ThreadPoolExecutor() as threads:
        with turn.taken():
            waiting = threads.submit(second)
            assert second_asks.wait(10)
            with pytest.raises(TimeoutError):
                waiting.result(turns.PATIENCE / 4)
            order.append("first")
        waiting.result(10)
    assert order == ["first", "second"]


def test_a_turn_ends_with_an_error_in_its_block(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_turn(path) as turn, a_turn(path) as other:
        with suppress(ZeroDivisionError), turn.taken():
            assert is_taken(other, monkeypatch)
            _ = 1 / 0
        assert not is_taken(other, monkeypatch)


def test_a_killed_process_gives_its_turn_up_though_a_process_that_it_forked_lives(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    forked = 0
    try:
        forked = int(process.stdout.readline())
        with a_turn(path) as turn:
            assert is_taken(turn, monkeypatch)
            process.kill()
            process.wait(10)
            eventually(lambda: not is_taken(turn, monkeypatch))
            os.kill(forked, 0)  # it is still there
    finally:
        process.kill()
        process.wait(10)
        if forked:
            os.kill(forked, signal.SIGKILL)
        process.stdout.close()


def test_a_turn_that_does_not_come_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
    with a_turn(path) as turn, a_turn(path) as other, turn.taken():
        began = time.monotonic()
        with other.taken():
            assert time.monotonic() - began >= 0.05
        assert is_taken(other, monkeypatch), "giving up must not end the turn of who has it"


def test_there_is_no_queue_without_a_log(tmp_path: Path) -> None:
    for path in ("", str(tmp_path / "none.sqlite3")):
        with a_turn(path) as turn, turn.taken(), turn.taken():
            assert turn._descriptor is None


def test_leaving_the_queue_takes_no_lock_of_sqlite_away(path: str) -> None:
    """Closing a descriptor ends all locks of POSIX that the process has on that file, and SQLite's are such."""
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with a_turn(path) as turn, turn.taken():
            pass
        tried = subprocess.run([sys.executable, "-c", WRITE, path], capture_output=True, text=True, check=True)
        assert "locked" in tried.stdout
        writer.execute("COMMIT")


@pytest.mark.databases("sqlite")
def test_a_worker_writes_when_it_is_its_turn_and_reads_at_any_time(
    database: TestDatabase, broker: DatabaseBroker, holder: Holder, bench: DatabaseBench
) -> None:
    send(bench.new_broker())
    path = str(database.connection.settings_dict["NAME"])
    with a_turn(path) as turn, ThreadPoolExecutor() as threads:
        with turn.taken():
            claiming = threads.submit(claim, broker, holder)
            with pytest.raises(TimeoutError):
                claiming.result(turns.PATIENCE / 4)
            assert bench.new_broker().survey(Queues()).due
            send(bench.new_broker())  # the site's own connection does not queue
        [first, second] = claiming.result(10)
    assert finish(broker, holder, success(first), success(second)) == frozenset()


@pytest.mark.databases("sqlite")
def test_a_worker_writes_though_the_turn_does_not_come(
    database: TestDatabase,
    broker: DatabaseBroker,
    holder: Holder,
    bench: DatabaseBench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.01)
    send(bench.new_broker())
    with a_turn(str(database.connection.settings_dict["NAME"])) as turn, turn.taken():
        [delivery] = claim(broker, holder)
        assert finish(broker, holder, success(delivery)) == frozenset()
        assert broker.renew(holder.worker, processed=1)
