"""Redis behind Sentinels, as a cluster, encrypted, on a socket, with few rights; and what it is refused for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from django_tasks import chain, checks, chord, doctor, states
from django_tasks.backends import get_broker
from django_tasks.backends.redis import fitness
from django_tasks.backends.redis.broker import RedisBroker
from django_tasks.backends.redis.server import Server
from django_tasks.backends.redis.wakers import LOOK
from django_tasks.exceptions import ImproperlyConfigured, OperationalError
from django_tasks.ids import new_id
from django_tasks.models import Task
from tests import redis_servers
from tests.backends.calls import a_worker, claim, claim_one, finish, success
from tests.conftest import do_without
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.integration.jobs import echo, work
from tests.integration.load import Load
from tests.integration.redis_site import RedisSite
from tests.integration.site import ROOT, SHORT_LEASE
from tests.servers import ServerMissing, free_port

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.timeout(240)]

#: Seconds within which tasks run again once there is a server again.
BACK_AT_WORK = 10.0
#: Seconds that a machine with other things to do may add.
SLACK = 1.5
#: Seconds for which a cluster is away.
AWAY = 5.0
#: A lease outlives what is done to the server, and a task that is hit again and again is no poison.
MANY_LOSSES = {**SHORT_LEASE, "WORKER_LEASE": 15.0, "TASK_MAX_WORKER_LOSSES": 50}
#: Sends that nobody asks for; ``TEST_REDIS_SENDS=100000`` for the full measure.
SENDS = int(os.environ.get("TEST_REDIS_SENDS", "3000"))
#: Moves of a slot under load; ``TEST_REDIS_MOVES`` for more.
MOVES = int(os.environ.get("TEST_REDIS_MOVES", "3"))


@pytest.fixture
def make_site(database: TestDatabase, tmp_path: Path) -> Iterator[Callable[..., RedisSite]]:
    """Give ``make_site(url)``, or with options of a Redis of its own."""
    made = []

    def make(url: str = "", **options: str) -> RedisSite:
        try:
            made.append(RedisSite(database, tmp_path, url=url, **options))
        except ServerMissing as missing:
            do_without("redis", missing)
        return made[-1]

    yield make
    for site in made:
        site.close()


def or_skip(made: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """Give what a context manager gives, unless there is no such server here."""
    try:
        with made() as given:
            yield given
    except ServerMissing as missing:
        do_without("redis", missing)


@pytest.fixture
def watched() -> Iterator[redis_servers.Watched]:
    yield from or_skip(redis_servers.watched)


@pytest.fixture
def cluster() -> Iterator[redis_servers.Cluster]:
    yield from or_skip(redis_servers.cluster)


@pytest.fixture
def encrypted() -> Iterator[redis_servers.EncryptedRedis]:
    try:
        with redis_servers.encrypted() as server:
            yield server
    except ServerMissing as missing:  # not every program was built with TLS, that of the wheel for one
        pytest.skip(str(missing))


def make_round(site: RedisSite) -> None:
    """Let a worker run one of everything: a row, none, a time, a workflow, a caller that waits."""
    worker = site.start()
    sent = [work.delay(), work.apply_async(durable=False), work.apply_async(countdown=0.2)]
    whole = chord([echo.s(1), echo.s(2)], echo.s()).delay()
    assert [one.get(timeout=30) for one in sent] == [1, 1, 1]
    assert whole.get(timeout=30) == [1, 2]
    assert Task.objects.count() == 0
    assert worker.stop() == 0


def test_a_failover_loses_nothing(make_site: Callable[..., RedisSite], watched: redis_servers.Watched) -> None:
    """R19: the server dies, the Sentinels choose the replica, and all go on there."""
    site = make_site(watched.url)
    worker = site.start(**MANY_LOSSES)
    processes = worker.tree()
    with Load(seconds=0.01, pause=0.02) as load:
        site.wait_for_entries(20, "start")
        watched.fail_over()
        before = len(site.journal("start"))
        eventually(lambda: len(site.journal("start")) > before + 10, timeout=BACK_AT_WORK, message="no task runs")
    account = site.account(load.accepted, unknown=load.unknown)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert worker.tree() == processes
    assert worker.stop() == 0


def test_a_slot_that_moves_loses_nothing(make_site: Callable[..., RedisSite], cluster: redis_servers.Cluster) -> None:
    site = make_site(cluster.url)
    worker = site.start(**MANY_LOSSES)
    processes = worker.tree()
    with Load(seconds=0.005, pause=0.01) as load:
        for _ in range(MOVES):
            site.wait_for_entries(len(site.journal("start")) + 20, "start")
            cluster.move("djt:{default}")
            before = len(site.journal("start"))
            eventually(lambda before=before: len(site.journal("start")) > before, timeout=BACK_AT_WORK)  # type: ignore[misc]
    account = site.account(load.accepted, unknown=load.unknown)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert account.reruns <= 4 * MOVES
    assert worker.tree() == processes
    assert worker.stop() == 0


def test_workers_outlive_a_cluster_that_is_away(
    make_site: Callable[..., RedisSite], cluster: redis_servers.Cluster
) -> None:
    """R19, K1: all its servers die, with work in the hands of children, and come back without their data."""
    site = make_site(cluster.url)
    worker = site.start(**MANY_LOSSES)
    processes = worker.tree()
    sent = work.enqueue_many([(0.05,)] * 60)
    site.wait_for_entries(10, "start")
    for node in cluster.nodes:
        node.kill()
    told = []
    with transaction.atomic():
        sent += [work.delay(), work.delay()]
        transaction.on_commit(lambda: told.append("committed"))
    assert told == ["committed"]
    with pytest.raises(OperationalError, match=r"Redis at redis-cluster://\S+ cannot be reached"):
        work.apply_async(durable=False)
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > AWAY, timeout=60)  # that is the fault
    for node in cluster.nodes:
        node.start()
    before = len(site.journal("start"))
    eventually(lambda: len(site.journal("start")) > before, timeout=BACK_AT_WORK, message="no task runs")
    account = site.account(sent)
    assert set(account.fates.values()) == {states.SUCCESS}
    assert worker.tree() == processes
    assert worker.stop() == 0
    log = "".join(file.read_text(errors="replace") for file in site.directory.glob("*.log"))
    assert "Traceback" not in log


@pytest.mark.parametrize("connected", [False, True])
def test_sending_takes_no_longer_than_it_may_when_no_server_of_a_cluster_answers(
    make_site: Callable[..., RedisSite], cluster: redis_servers.Cluster, connected: bool
) -> None:
    """K1"""
    site = make_site(cluster.url)
    if connected:
        work.delay()
    for node in cluster.nodes:
        node.pause()
    try:
        check_patience(site)
    finally:
        for node in cluster.nodes:
            node.resume()


def test_sending_takes_no_longer_than_it_may_when_no_sentinel_answers(
    make_site: Callable[..., RedisSite], watched: redis_servers.Watched
) -> None:
    """K1"""
    site = make_site(watched.url)
    for one in watched.sentinels:
        one.pause()
    try:
        check_patience(site)
    finally:
        for one in watched.sentinels:
            one.resume()


def check_patience(site: RedisSite) -> None:
    """Send, while nobody answers within ``BROKER_CONNECTION_TIMEOUT``."""
    patience = site.broker["BROKER_CONNECTION_TIMEOUT"]
    began = time.monotonic()
    for _ in range(20):
        work.delay()
    with pytest.raises(OperationalError, match="cannot be reached") as caught:
        work.apply_async(durable=False, retry=False)
    assert time.monotonic() - began < patience + SLACK, "one of them waits, and the others know by then"
    assert len(str(caught.value)) < 600


def test_everything_works_on_a_cluster(make_site: Callable[..., RedisSite], cluster: redis_servers.Cluster) -> None:
    site = make_site(cluster.url)
    site.configure(RESULT_BACKEND=cluster.url)
    for queue in ("mail", "reports", "x"):
        work.apply_async(queue=queue)
    make_round(site)


def test_everything_works_by_tls(make_site: Callable[..., RedisSite], encrypted: redis_servers.EncryptedRedis) -> None:
    site = make_site(encrypted.url)
    make_round(site)
    site.configure(BROKER_URL=f"rediss://127.0.0.1:{encrypted.port}/0")  # whose certificate nobody vouches for
    with pytest.raises(OperationalError, match="certificate verify failed"):
        work.apply_async(durable=False)


def test_a_server_of_another_name_is_not_trusted(make_site: Callable[..., RedisSite], database: TestDatabase) -> None:
    """Whoever has any certificate of the same authority could listen in."""
    try:
        with redis_servers.encrypted("redis.example.com") as server:
            site = make_site(server.url)
            with pytest.raises(OperationalError, match="certificate verify failed"):
                work.apply_async(durable=False)
            site.configure(BROKER_URL=f"{server.url}&ssl_check_hostname=0")
            make_round(site)
            site.configure(BROKER_URL=f"rediss://127.0.0.1:{server.port}/0?ssl_cert_reqs=none&{server.own_files}")
            work.apply_async(durable=False)
    except ServerMissing as missing:  # not every program was built with TLS, that of the wheel for one
        pytest.skip(str(missing))


def test_a_certificate_that_is_not_there_is_named(make_site: Callable[..., RedisSite], tmp_path: Path) -> None:
    site = make_site()
    path = tmp_path / "nowhere.pem"
    site.configure(BROKER_URL=f"rediss://127.0.0.1:{site.redis.port}/0?ssl_ca_certs={path}")
    with pytest.raises(ImproperlyConfigured, match=rf"ssl_ca_certs of Redis at .* is {path}, which cannot be read"):
        work.apply_async(durable=False)


#: What the how-to guide says that a user of few rights is to be allowed.
RIGHTS = "~site:* &site:* +@all -@admin -@dangerous +info +client|unblock"


def test_a_user_of_few_rights_and_a_socket_will_do(make_site: Callable[..., RedisSite], tmp_path: Path) -> None:
    """S16, too: the password is in no log and no message."""
    own = make_site(unixsocketperm="777")
    path = own.redis.home / "socket"
    with own.redis.client() as client:
        client.execute_command("ACL SETUSER", "tasks", "on", ">canary-secret", "resetkeys", *RIGHTS.split())
    own.redis.options.update(unixsocket=str(path), **{"unixsocketperm": "777"})
    own.redis.restart()
    with own.redis.client() as client:
        client.execute_command("ACL SETUSER", "tasks", "on", ">canary-secret", "resetkeys", *RIGHTS.split())
        client.set("other", "not ours")
        for url in (
            f"unix://tasks:canary-secret@{path}?prefix=site",
            f"redis://tasks:canary-secret@127.0.0.1:{own.redis.port}/0?prefix=site",
        ):
            own.configure(BROKER_URL=url)
            make_round(own)
            assert {key.decode().partition(":")[0] for key in client.scan_iter()} == {"site", "other"}
    log = "".join(file.read_text(errors="replace") for file in own.directory.glob("*.log"))
    assert "tasks:***@" in log
    assert "canary" not in log
    own.configure(BROKER_URL=f"redis://tasks:canary-wrong@127.0.0.1:{own.redis.port}/0?prefix=site")
    with pytest.raises(OperationalError) as caught:
        work.apply_async(durable=False)
    assert "canary" not in str(caught.value)
    assert "redis://tasks:***@127.0.0.1" in str(caught.value)
    assert " refused: " in str(caught.value)


def test_a_password_of_one_letter_leaves_words_as_they_are(make_site: Callable[..., RedisSite]) -> None:
    site = make_site()
    site.configure(BROKER_URL=f"redis://:e@127.0.0.1:{free_port()}/0")
    with pytest.raises(OperationalError, match=r"redis://:\*\*\*@127.0.0.1:\d+/0 cannot be reached: Error \d+ connect"):
        work.apply_async(durable=False, retry=False)


def test_sites_with_prefixes_of_their_own_share_a_server(make_site: Callable[..., RedisSite]) -> None:
    site = make_site()
    site.configure(BROKER_URL=f"{site.redis.url}?prefix=other")
    left = work.apply_async(durable=False)
    site.configure(BROKER_URL=f"{site.redis.url}?prefix=mine")
    make_round(site)
    assert left.id not in {entry.task_id for entry in site.journal("start")}
    with site.redis.client() as client:
        assert {key.decode().partition(":")[0] for key in client.scan_iter()} == {"mine", "other"}


def test_a_server_that_evicts_is_refused(make_site: Callable[..., RedisSite]) -> None:
    """R23"""
    site = make_site(maxmemory="20mb", **{"maxmemory-policy": "allkeys-lru"})
    [problem] = checks.check_broker(None)
    assert problem.id == "django_tasks.E006"
    assert "allkeys-lru: when its memory is full it deletes tasks" in str(problem.msg)
    assert any(one.check == "settings" and "allkeys-lru" in one.problem for one in doctor.examine())
    command = [sys.executable, "-m", "tests.manage", "runworker"]
    done = subprocess.run(command, cwd=ROOT, env=site.environ(), check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "allkeys-lru" in done.stderr
    with site.redis.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
    assert checks.check_broker(None) == []


def test_a_server_that_may_forget_what_was_revoked_is_told_of(make_site: Callable[..., RedisSite]) -> None:
    """No task is in danger, so a worker uses it."""
    site = make_site(maxmemory="20mb", **{"maxmemory-policy": "volatile-lru"})
    [problem] = checks.check_broker(None)
    assert problem.id == "django_tasks.W007"
    assert "volatile-lru: when its memory is full it forgets what was revoked" in str(problem.msg)
    [found] = [one for one in doctor.examine() if one.check == "settings" and "W007" in one.problem]
    assert found.level == "warning"
    worker = site.start()
    assert "! Redis at" in worker.log.read_text()
    assert worker.stop() == 0


def test_a_server_that_is_away_is_told_by_the_doctor_alone(make_site: Callable[..., RedisSite]) -> None:
    site = make_site()
    site.redis.kill()
    assert checks.check_broker(None) == []
    [problem] = [one for one in doctor.examine() if one.check == "broker"]
    assert (problem.level, "cannot be reached" in problem.problem) == ("error", True)
    site.redis.start()


def as_if_it_were(monkeypatch: pytest.MonkeyPatch, *version: int) -> Server:
    """Return the broker's server, which says that it is of this version."""
    broker = get_broker()
    assert isinstance(broker, RedisBroker)
    monkeypatch.setattr(broker.server, "version", lambda: version)
    return broker.server


def test_an_old_server_is_refused(make_site: Callable[..., RedisSite], monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site()
    [one] = fitness.problems(as_if_it_were(monkeypatch, 5, 0))
    assert one.fatal
    assert "is version 5.0; commands of 6.2 are needed" in one.problem
    assert site.redis.pid


def test_a_server_that_nobody_can_empty_is_told_of(
    make_site: Callable[..., RedisSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    server = as_if_it_were(monkeypatch, 6, 2)
    with site.redis.client() as client:
        assert fitness.problems(server) == []
        client.config_set("maxmemory", "20mb")
        [one] = fitness.problems(server)
    assert not one.fatal
    assert "is version 6.2 with a maxmemory: when that is full, workers cannot take or end tasks" in one.problem


def test_who_waits_is_woken_and_who_does_not_leaves_nothing(make_site: Callable[..., RedisSite]) -> None:
    """Many sends that nobody asks for leave no key, subscription or connection behind."""
    site = make_site()
    site.start()
    assert echo.delay("warm").get(timeout=30) == "warm"

    def census() -> tuple[set[str], int, int]:
        with site.redis.client() as client:
            connections = [one for one in client.client_list() if one["id"] != str(client.client_id())]
            return site.parts(), len(client.pubsub_channels()), len(connections)

    before = census()
    for _ in range(SENDS // 1000):
        echo.enqueue_many([(number,) for number in range(1000)])
    sent = [echo.delay(number) for number in range(50)]
    assert [one.get(timeout=60) for one in sent] == list(range(50))
    eventually(lambda: Task.objects.count() == 0, timeout=60)

    def is_as_before() -> bool:
        parts, channels, connections = census()
        few = before[2] + 4  # children open theirs when they first need them
        return parts <= before[0] | {"k"} and channels == before[1] and connections <= few

    eventually(is_as_before, message=f"something stays: {census()} after {before}")


@pytest.mark.parametrize("durable", [True, False])
def test_a_caller_is_woken_when_its_task_ends(make_site: Callable[..., RedisSite], durable: bool) -> None:
    """It hears of it, long before it would look again."""
    site = make_site()
    broker = get_broker()
    assert isinstance(broker, RedisBroker)
    holder = a_worker(broker)
    sent = work.apply_async(durable=durable)
    caller = broker.result_waker(sent.id)
    caller.wait(60.0)  # what ended before anybody listened is looked for at once
    delivery = claim_one(broker, holder)
    finish(broker, holder, success(delivery))
    began = time.monotonic()
    broker.step([], holder=holder)
    caller.wait(60.0)
    assert time.monotonic() - began < LOOK / 2
    caller.close()
    assert "a" not in site.parts()


def test_each_of_many_callers_is_woken_when_their_tasks_end_together(make_site: Callable[..., RedisSite]) -> None:
    """What one of them is told of arrives along with what it is not told of."""
    make_site()
    broker = get_broker()
    assert isinstance(broker, RedisBroker)
    holder = a_worker(broker)
    sent = [work.delay() for _ in range(10)]
    callers = [broker.result_waker(one.id) for one in sent]
    for caller in callers:
        caller.wait(60.0)
    finish(broker, holder, *map(success, claim(broker, holder)))
    broker.step([], holder=holder)
    began = time.monotonic()
    for caller in callers:
        caller.wait(60.0)
    assert time.monotonic() - began < LOOK / 2
    for caller in callers:
        caller.close()


def test_a_caller_of_what_is_not_in_redis_yet_is_woken_too(make_site: Callable[..., RedisSite]) -> None:
    """A task that waits for others is to run in a queue that its row names."""
    make_site()
    broker = get_broker()
    assert isinstance(broker, RedisBroker)
    holder = a_worker(broker)
    last = chain(echo.s(1), echo.s()).delay()
    caller = broker.result_waker(last.id)
    caller.wait(60.0)
    for _ in range(2):
        finish(broker, holder, success(claim_one(broker, holder), result="1", linked=True))
    began = time.monotonic()
    broker.step([], holder=holder)
    caller.wait(60.0)
    assert time.monotonic() - began < LOOK / 2
    caller.close()
    unheard_of = broker.result_waker(new_id())
    unheard_of.wait(0.01)
    unheard_of.close()
