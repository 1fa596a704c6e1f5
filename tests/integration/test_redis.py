"""What becomes of tasks that Redis carries when processes, connections and Redis itself fail."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection, transaction

from django_tasks import states
from django_tasks.exceptions import OperationalError
from django_tasks.models import Task, TaskResult
from tests.conftest import do_without
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.integration.jobs import echo, insert_atomically, repeat, wait_at_gate, work
from tests.integration.load import Load
from tests.integration.proxy import Proxy
from tests.integration.redis_site import RedisSite
from tests.integration.site import ROOT, SHORT_LEASE, Worker
from tests.integration.test_crashes import kill_a_child, kill_all_children
from tests.servers import ServerMissing

#: A task that faults hit again and again is no poison here.
MANY_LOSSES = {**SHORT_LEASE, "TASK_MAX_WORKER_LOSSES": 50}
#: Seconds that a machine with other things to do may add.
SLACK = 1.5
#: Seconds within which tasks run again once Redis is back.
BACK_AT_WORK = 10.0
#: Keeps what it has answered, whatever happens to the process.
DURABLY = {"appendonly": "yes", "appendfsync": "no"}

#: Faults of Redis under load; ``TEST_REDIS_RESTARTS=20`` for the full measure.
RESTARTS = int(os.environ.get("TEST_REDIS_RESTARTS", "5"))

durabilities = pytest.mark.parametrize("durable", [True, False], ids=["durable", "without rows"])


@pytest.fixture
def site(database: TestDatabase, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisSite]:
    """Give a site without workers, and a Redis of its own; ``@pytest.mark.redis(option="value")`` sets it up."""
    marker = request.node.get_closest_marker("redis")
    try:
        site = RedisSite(database, tmp_path, **(marker.kwargs if marker else {}))
    except ServerMissing as missing:
        do_without("redis", missing)
    yield site
    site.close()


@pytest.mark.databases("sqlite", "postgresql")
def test_what_is_sent_is_run_and_leaves_nothing_behind(site: RedisSite) -> None:
    """R9, too: never before its time."""
    worker = site.start()
    sent = [work.delay(), *work.enqueue_many([()] * 50), work.apply_async(durable=False)]
    began = time.monotonic()
    later = [work.apply_async(countdown=0.6, durable=durable) for durable in (True, False)]
    assert echo.apply_async(("x",), durable=False).get(timeout=30) == "x"
    for result in [*sent, *later]:
        assert result.get(timeout=30) == 1
    for result in later:
        assert 0.6 <= site.wait_for_start(result).at - began <= 0.6 + SLACK
    assert Task.objects.count() == 0
    assert worker.stop() == 0
    assert site.parts() <= {"queues", "mark", "sweeper", "new", "k"}


@durabilities
@pytest.mark.timeout(240)
@pytest.mark.databases("postgresql")
def test_a_process_killed_at_any_instant_loses_no_task(site: RedisSite, durable: bool) -> None:
    """R1, R2: kill -9 of children, supervisors and whole workers under load; reruns stay within 4 per fault."""
    site.configure(TASK_DURABLE=durable)
    workers = [site.start(**MANY_LOSSES) for _ in range(2)]
    sent = []
    faults: list[tuple[Callable[[Worker], None], bool]] = [  # what is done to a worker, and does it end the worker?
        (kill_a_child, False),
        (Worker.kill, True),
        (kill_all_children, False),
        (kill_a_child, False),
        (Worker.kill_tree, True),
        (kill_all_children, False),
        (Worker.kill_tree, True),
    ]
    for number, (fault, ends) in enumerate(faults):
        at = number % 2
        begun = len(site.journal("start"))
        sent += work.enqueue_many([(0.03,)] * 30)
        site.wait_for_entries(begun + 10, "start")
        fault(workers[at])
        if ends:
            workers[at] = site.start(**MANY_LOSSES)
    account = site.account_without_rows(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns <= 4 * len(faults)
    assert account.duplicates <= 4 * len(faults)
    assert Task.objects.count() == 0


@durabilities
@pytest.mark.databases("sqlite")
def test_nothing_runs_twice_while_workers_come_and_go_in_order(site: RedisSite, durable: bool) -> None:
    """R2: no rerun without a fault, none on a graceful stop."""
    site.configure(TASK_DURABLE=durable)
    first, second = site.start(), site.start()
    sent = work.enqueue_many([(0.001 * (number % 40),) for number in range(200)])
    site.wait_for_entries(40, "start")
    assert first.stop() == 0
    site.start()
    begun = len(site.journal("start"))
    sent += [work.delay(0.01) for _ in range(50)]
    site.wait_for_entries(begun + 20, "start")
    assert second.stop() == 0
    account = site.account_without_rows(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert (account.reruns, account.duplicates) == (0, 0)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.databases("sqlite")
def test_what_commits_with_its_result_is_not_held_any_more(site: RedisSite, pool: str) -> None:
    """``atomic=True`` with ``durable=False``: nothing is stored at the end of a child but what Redis has to hear."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE effects (task_id varchar(36))")
    worker = site.start("--pool", pool, "--max-tasks-per-child", "1", concurrency=1)
    sent = [insert_atomically.apply_async((0.1,), durable=False) for _ in range(3)]
    site.account_without_rows(sent)
    assert worker.stop() == 0
    site.launch("--burst", concurrency=1).process.wait(60)
    assert Counter(entry.task_id for entry in site.journal("start")) == {str(result.id): 1 for result in sent}


@pytest.mark.databases("sqlite")
def test_an_idle_child_holds_nothing(site: RedisSite) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE effects (task_id varchar(36))")
    site.start("--pool", "threads=2", concurrency=1)
    sent = insert_atomically.apply_async((0.5,), durable=False)
    assert sent.get(timeout=30) == 1
    eventually(lambda: not any(part.startswith("l:") for part in site.parts()))


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
def test_a_redis_that_loses_everything_loses_no_task(site: RedisSite) -> None:
    """FLUSHALL under load: rows are published again, and what ran meanwhile is finished once."""
    workers = [site.start(**MANY_LOSSES) for _ in range(2)]
    later = work.apply_async(countdown=8)
    long = wait_at_gate.delay(str(site.gates))
    begun = site.wait_for_start(long)
    site.wait_for(lambda: Task.objects.get(pk=long.id).state == states.STARTED)
    with Load(seconds=0.02, pause=0.005) as load, site.redis.client() as client:
        for _ in range(4):
            site.wait_for_entries(len(site.journal("start")) + 40, "start")
            client.flushall()
        site.wait_for_entries(len(site.journal("start")) + 40, "start")
    site.open_gate(begun)
    assert long.get(timeout=30) == 1, "what was seen to run is left alone"
    account = site.account([*load.accepted, later, long], unknown=load.unknown)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns <= 4 * 500  # what a batch has, at most, for each time
    assert [worker.stop() for worker in workers] == [0, 0]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("shown", [False, True], ids=["at once", "with its row"])
def test_what_runs_without_a_row_ends_as_ever_when_redis_loses_everything(site: RedisSite, shown: bool) -> None:
    worker = site.start()
    sent = wait_at_gate.apply_async((str(site.gates),), durable=False)
    begun = site.wait_for_start(sent)
    if shown:
        site.wait_for(lambda: Task.objects.filter(pk=sent.id, state=states.STARTED).exists())
    with site.redis.client() as client:
        client.flushall()
    site.open_gate(begun)
    assert sent.get(timeout=30) == 1
    assert worker.stop() == 0
    assert [entry.task_id for entry in site.journal("start")] == [sent.id]
    assert Task.objects.count() == 0


@durabilities
@pytest.mark.timeout(300)
@pytest.mark.databases("sqlite")
@pytest.mark.redis(**DURABLY)
def test_workers_outlive_restarts_of_redis(site: RedisSite, durable: bool) -> None:
    """R19: restarts, crashes and pauses, some a second apart: no process dies, nothing is lost, work goes on."""
    site.configure(TASK_DURABLE=durable)
    worker = site.start()  # whose lease is longer than any of these faults
    processes = worker.tree()
    redis = site.redis
    with Load(seconds=0.01, pause=0.02) as load:
        for number in range(RESTARTS):
            site.wait_for_entries(len(site.journal("start")) + 5, "start")
            if number % 3 == 2:
                redis.pause()
                time.sleep(3.0)  # longer than anybody waits for an answer: that is the fault
                redis.resume()
            elif number % 3 == 1:
                redis.kill()
                redis.start()
            else:
                redis.restart()
            before = len(site.journal("start"))
            eventually(
                lambda before=before: len(site.journal("start")) > before,  # type: ignore[misc]
                timeout=BACK_AT_WORK,
                message=f"no task runs after fault {number}",
            )
    account = site.account_without_rows(load.accepted)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns <= 4 * RESTARTS
    assert worker.tree() == processes
    assert worker.stop() == 0


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
def test_connections_that_are_cut_or_lead_nowhere_lose_nothing(site: RedisSite) -> None:
    """R20: cuts within a message, and a network that swallows what is sent without a word."""
    with Proxy(site.redis.url) as proxy:
        site.configure(BROKER_URL=proxy.url)
        worker = site.start()
        processes = worker.tree()
        with Load(seconds=0.005, pause=0.01) as load:
            for number in range(4):
                site.wait_for_entries(len(site.journal("start")) + 10, "start")
                proxy.cut_after(random.randint(0, 20_000))
                eventually(lambda number=number: proxy.cuts > number, timeout=60)  # type: ignore[misc]
            proxy.swallowing = True
            time.sleep(3.0)  # that is the fault
            proxy.swallowing = False
            before = len(site.journal("start"))
            eventually(lambda: len(site.journal("start")) >= before + 10, timeout=BACK_AT_WORK)
        account = site.account(load.accepted, unknown=load.unknown)
        assert set(account.fates.values()) == {states.SUCCESS}
        assert account.duplicates <= 4 * 5
        assert worker.tree() == processes
        assert worker.stop() == 0


@durabilities
@pytest.mark.databases("sqlite")
def test_a_task_may_run_for_longer_than_a_lease(site: RedisSite, durable: bool) -> None:
    """A1 of the pains: no timeout is tied to how long a task runs or waits for its time."""
    site.configure(TASK_DURABLE=durable)
    for _ in range(2):
        site.start(**SHORT_LEASE)
    sent = [work.delay(5.0), work.apply_async((0.0,), countdown=5.0), work.apply_async((3.0,), countdown=2.0)]
    site.wait_for(lambda: sent[0].state == states.STARTED)
    site.wait_for(lambda: Task.objects.filter(pk=sent[0].id, started_at__isnull=False).exists())
    account = site.account_without_rows(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert (account.reruns, len(account.starts)) == (0, 3)


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite", "postgresql")
def test_a_sender_that_dies_between_commit_and_publication_loses_nothing(site: RedisSite) -> None:
    """R21"""
    file = site.directory / "accepted"
    command = [sys.executable, "-m", "tests.integration.producer", str(file), "--die-after-commit"]
    process = subprocess.run(command, cwd=ROOT, env=site.environ(), check=False)
    assert process.returncode == -signal.SIGKILL
    [task_id] = [str(key) for key in Task.objects.values_list("pk", flat=True)]
    assert "m" not in site.parts()
    site.start()
    site.wait_for(lambda: TaskResult.objects.filter(pk=task_id, state=states.SUCCESS).exists())


@pytest.mark.databases("sqlite")
def test_what_is_rolled_back_is_not_published(site: RedisSite) -> None:
    """R21"""
    for durable in (True, False):
        with transaction.atomic():
            work.apply_async(durable=durable)
            transaction.set_rollback(True)
        with transaction.atomic():
            assert not site.parts() & {"m"}
            work.apply_async(durable=durable)
            assert not site.parts() & {"m"}
        assert "m" in site.parts()
        with site.redis.client() as client:
            client.flushall()


@pytest.mark.databases("sqlite", "postgresql")
def test_what_is_sent_on_commit_is_not_lost_when_redis_is_away_by_then(site: RedisSite) -> None:
    """Without a row, it is given one; the commit is one, and what else waits for it is done."""
    told = []
    site.redis.kill()
    with transaction.atomic():
        sent = [work.apply_async(durable=False) for _ in range(2)]
        transaction.on_commit(lambda: told.append("committed"))
    assert told == ["committed"]
    assert Task.objects.count() == 2
    site.redis.start()
    site.start()
    account = site.account(sent)
    assert (set(account.fates.values()), account.reruns) == ({states.SUCCESS}, 0)


@pytest.mark.databases("sqlite")
def test_each_try_to_send_asks_redis_anew_if_it_says_no_at_once(site: RedisSite) -> None:
    """``TASK_PUBLISH_RETRY`` bridges a restart that is over in no time, for what has no row, too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        asked = []

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # at the end it is closed
                while True:
                    connection, _ = listening.accept()
                    asked.append(connection)
                    connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        site.configure(BROKER_URL=f"redis://127.0.0.1:{listening.getsockname()[1]}/")
        policy = {"max_retries": 10, "interval_start": 0.0, "interval_step": 0.05, "interval_max": 0.05}
        with pytest.raises(OperationalError, match="cannot be reached"):
            work.apply_async(durable=False, retry_policy=policy)
        assert len(asked) > 5
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def refused(site: RedisSite) -> Iterator[str]:
    """A port on which nobody listens."""
    site.redis.kill()
    yield site.redis.url
    site.redis.start()


def black_hole(site: RedisSite) -> Iterator[str]:
    """A port whose queue of connections is full: what is sent to it gets no answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(("127.0.0.1", port))
            yield f"redis://127.0.0.1:{port}/"


def paused(site: RedisSite) -> Iterator[str]:
    """A server that stands still: it lets everybody connect and answers nobody."""
    site.redis.pause()
    yield site.redis.url
    site.redis.resume()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("fault", [refused, black_hole, paused])
def test_sending_takes_no_longer_than_it_may_when_redis_does_not_answer(
    site: RedisSite, fault: Callable[[RedisSite], Iterator[str]]
) -> None:
    """K1 of the pains: with a row it succeeds, and is published later; without one it is an error."""
    for url in fault(site):
        site.configure(BROKER_URL=url, BROKER_CONNECTION_TIMEOUT=2.0)
        began = time.monotonic()
        sent = [work.delay() for _ in range(20)]
        assert time.monotonic() - began < 2.0 + SLACK, "one of them waits for Redis, and the others know by then"
        began = time.monotonic()
        with pytest.raises(OperationalError, match=r"Redis at redis://127\.0\.0\.1"):
            work.apply_async(durable=False)
        assert time.monotonic() - began < 5.0
        assert sent[0].state == states.PENDING
    site.configure(BROKER_URL=site.redis.url)
    site.start()
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns == 0


@pytest.mark.timeout(240)
@pytest.mark.databases("sqlite")
@pytest.mark.redis(maxmemory="6mb", **{"maxmemory-policy": "noeviction"})
def test_a_full_redis_refuses_and_what_it_accepted_runs(site: RedisSite) -> None:
    """R22"""
    size = 20_000
    accepted = []

    def fill() -> None:
        for _ in range(1_000):
            accepted.append(repeat.apply_async(("x" * size, 1), durable=False))

    with pytest.raises(OperationalError, match="is full"):
        fill()
    assert len(accepted) > 20
    kept = [repeat.delay("y" * size, 1) for _ in range(5)]
    assert all(result.state == states.PENDING for result in kept)
    worker = site.start()
    processes = worker.tree()
    account = site.account_without_rows([*accepted, *kept])
    assert set(account.fates.values()) == {states.SUCCESS}
    assert worker.tree() == processes
    assert worker.stop() == 0
