"""How an idle worker hears of something on a cluster, where no command waits for keys of two queues."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import closing
from itertools import count as numbers
from typing import Any

import pytest

from django_tasks.backends.base import Queues
from django_tasks.backends.database.wakers import POLL_MOST
from django_tasks.backends.message import Holder
from django_tasks.backends.redis import RedisBroker, cluster_wakers
from django_tasks.backends.redis.cluster_wakers import AGAIN, ClusterWaker
from django_tasks.backends.redis.leases import ORPHANS_EVERY
from django_tasks.backends.redis.wakers import PATIENCE
from django_tasks.exceptions import OperationalError
from tests import redis_servers
from tests.backends.bench import Bench, RedisBench, redis_bench
from tests.backends.calls import LEASE, a_message, a_worker, claim, finish, ids, send, success
from tests.conftest import a_cluster
from tests.databases import TestDatabase
from tests.eventually import eventually

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.timeout(120)]

#: Far longer than anything here should take, in seconds.
LONG = 60.0
#: Queues whose slots are on different servers.
QUEUES = ("a", "b", "default")
_NUMBERS = numbers(1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[redis_servers.Cluster]:
    """Give a cluster of three servers."""
    with a_cluster() as cluster:
        yield cluster


@pytest.fixture
def bench(database: TestDatabase, cluster: redis_servers.Cluster) -> Iterator[Bench]:
    """Give the cluster in front of the database under test."""
    url = f"{cluster.url}?prefix=waker{next(_NUMBERS)}"
    with redis_bench(database.alias, url) as bench:
        yield bench


@pytest.fixture
def broker(bench: RedisBench) -> RedisBroker:
    """Give one process's broker, which knows three queues; they are empty."""
    broker = bench.new_broker()
    assert isinstance(broker, RedisBroker)
    send(broker, *(a_message(queue=queue) for queue in QUEUES))
    holder = a_worker(broker, name="first@test")
    assert not finish(broker, holder, *map(success, claim(broker, holder)))
    broker.unregister(holder.worker)
    for queue in QUEUES:
        broker.server.command("DEL", token(broker, queue))
    broker.server.command("DEL", broker.server.shared("new"))
    return broker


@pytest.fixture
def waker(broker: RedisBroker, holder: Holder) -> Iterator[ClusterWaker]:
    """Give what wakes a worker that has said that it is idle, and waits."""
    broker.set_idle(holder.worker, True)
    with closing(broker.waker()) as waker:
        assert isinstance(waker, ClusterWaker)
        assert not waker.woken()
        yield waker


def token(broker: RedisBroker, queue: str) -> str:
    """Return the key of a queue's token."""
    return f"{broker.server.queue(queue)}:k"


def becomes_readable(waker: ClusterWaker, timeout: float = LONG) -> bool:
    """Is there a hint within ``timeout`` seconds?"""
    descriptor = waker.fileno()
    assert descriptor is not None
    return bool(select.select([descriptor], [], [], timeout)[0])


def wakes(waker: ClusterWaker, bench: Bench, queue: str) -> bool:
    """Is it told at once of what somebody else sends to this queue?"""
    send(bench.new_broker(), a_message(queue=queue))
    assert becomes_readable(waker)
    return waker.woken()


def command(bench: Bench) -> None:
    """Send one to all workers."""
    with closing(bench.new_broker().line()) as line:
        line.send("ping", "{}", lifetime=LONG)


def is_settled(waker: ClusterWaker) -> bool:
    """Does it wait for everything, with no hint left?"""
    return not waker.woken() and waker.interval(0.0) == PATIENCE / 2


def busy(broker: RedisBroker, holder: Holder, cluster: redis_servers.Cluster, waker: ClusterWaker) -> None:
    """Say that the worker is busy, and return when it waits for commands alone."""
    broker.set_idle(holder.worker, False)
    eventually(lambda: not waker.woken() and cluster.waiting() == 1)


def test_a_task_in_any_queue_is_heard_of_at_once(
    waker: ClusterWaker, broker: RedisBroker, holder: Holder, bench: Bench, cluster: redis_servers.Cluster
) -> None:
    assert len({cluster.holder(token(broker, queue)).port for queue in QUEUES}) > 1
    eventually(lambda: cluster.waiting() == len(QUEUES) + 1)
    for queue in QUEUES * 2:
        assert not becomes_readable(waker, 0)
        assert wakes(waker, bench, queue)
        assert not finish(broker, holder, *map(success, claim(broker, holder)))
        eventually(lambda: is_settled(waker))


def test_each_token_wakes_one(waker: ClusterWaker, bench: Bench) -> None:
    """The one who is woken for the first may have no time for the others."""
    send(bench.new_broker(), *(a_message(queue=queue) for queue in QUEUES))
    for _ in QUEUES:
        assert becomes_readable(waker)
        assert waker.woken()
        waker.resume()
    assert not waker.woken()


def test_who_is_busy_waits_for_commands_alone_and_hands_on_what_it_took(
    waker: ClusterWaker,
    broker: RedisBroker,
    holder: Holder,
    bench: Bench,
    cluster: redis_servers.Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_wakers, "BUSY_FOR", LONG)  # it takes one however busy this machine is
    broker.set_idle(holder.worker, False)
    send(bench.new_broker(), a_message(queue="a"))
    assert becomes_readable(waker)
    assert not waker.woken()
    assert broker.server.command("LLEN", token(broker, "a")) == 1
    monkeypatch.setattr(cluster_wakers, "BUSY_FOR", 0.0)
    busy(broker, holder, cluster, waker)
    send(bench.new_broker(), a_message(queue="b"))
    assert not becomes_readable(waker, 0)
    broker.set_idle(holder.worker, True)
    assert eventually(waker.woken)


@pytest.mark.parametrize("idle", [True, False])
def test_commands_are_heard_of_whether_idle_or_busy(
    waker: ClusterWaker,
    broker: RedisBroker,
    holder: Holder,
    bench: Bench,
    cluster: redis_servers.Cluster,
    monkeypatch: pytest.MonkeyPatch,
    idle: bool,
) -> None:
    if not idle:
        monkeypatch.setattr(cluster_wakers, "BUSY_FOR", 0.0)
        busy(broker, holder, cluster, waker)
    for _ in range(2):
        assert not waker.commanded()
        command(bench)
        assert becomes_readable(waker)
        assert not waker.woken()
        assert waker.commanded()


def test_a_new_queue_is_heard_of_and_then_waited_for(
    waker: ClusterWaker, broker: RedisBroker, holder: Holder, bench: Bench
) -> None:
    waker.outdated()
    assert wakes(waker, bench, "new")
    assert waker.outdated()
    assert not finish(broker, holder, *map(success, claim(broker, holder)))
    eventually(lambda: is_settled(waker))
    assert wakes(waker, bench, "new")
    assert not waker.outdated()


def test_a_queue_that_is_used_no_more_is_not_waited_for(
    waker: ClusterWaker, broker: RedisBroker, bench: Bench, cluster: redis_servers.Cluster
) -> None:
    bench.let_pass(LEASE * 2)
    assert broker.leases.forget_unused(LEASE) == sorted(QUEUES)
    broker.leases.names(fresh=True)
    eventually(lambda: not waker.woken() and cluster.waiting() == 1)
    assert wakes(waker, bench, "a")


def test_who_consumes_named_queues_waits_for_those(broker: RedisBroker, holder: Holder, bench: Bench) -> None:
    broker.restate(holder.worker, queues=Queues(("a", "b"), frozenset({"b"})), concurrency=1)
    broker.set_idle(holder.worker, True)
    with closing(broker.waker()) as waker:
        assert isinstance(waker, ClusterWaker)
        send(bench.new_broker(), a_message(queue="b"), a_message(queue="new"))
        assert not becomes_readable(waker, 0)
        assert wakes(waker, bench, "a")


@pytest.mark.parametrize("queue", ["a", "~"])
def test_a_slot_that_moves_while_it_is_waited_for_does_not_make_deaf(
    waker: ClusterWaker, broker: RedisBroker, bench: Bench, cluster: redis_servers.Cluster, queue: str
) -> None:
    """Redis says where it is now; on the way there, nobody can wait for it."""
    key = broker.server.queue(queue)
    before = cluster.holder(key)
    unaware = bench.new_broker()
    assert isinstance(unaware, RedisBroker)
    unaware.leases.names(fresh=True)  # it knows where what is
    with cluster.moving(key), closing(broker.waker()) as another:
        assert isinstance(another, ClusterWaker)
        for _ in range(2):
            assert eventually(another.woken, message="it is not told that the slot is on its way")
            assert another.interval(0.0) == AGAIN
    assert cluster.holder(key) is not before
    eventually(lambda: is_settled(waker), timeout=LONG)
    for name in ("a", "new"):
        assert wakes(waker, bench, name)
        eventually(lambda: is_settled(waker))
    unaware.server.many([("RPUSH", token(broker, "a"), b"1"), ("LTRIM", token(broker, "a"), 0, 0)])
    assert becomes_readable(waker)
    assert waker.woken()
    with closing(unaware.line()) as line:
        line.send("ping", "{}", lifetime=LONG)
    eventually(lambda: waker.woken() or waker.commanded())


def test_a_server_that_is_away_is_told_and_heard_again_when_it_is_back(
    waker: ClusterWaker, broker: RedisBroker, holder: Holder, bench: Bench, cluster: redis_servers.Cluster
) -> None:
    """R19"""
    server = cluster.holder(token(broker, "b"))
    server.kill()
    try:
        with pytest.raises(OperationalError, match="cannot be reached"):
            eventually(waker.woken)
        waker.close()
        with pytest.raises(OperationalError, match="cannot be reached"):
            broker.waker()
    finally:
        server.start()
        cluster.wait_until_complete()

    def another() -> Any:
        try:
            return broker.waker()
        except OperationalError:
            return None

    with closing(eventually(another, timeout=LONG)) as found:
        eventually(lambda: is_settled(found), timeout=LONG)
        assert wakes(found, bench, "b")


def test_a_connection_of_no_use_may_be_ended_by_redis(
    waker: ClusterWaker,
    broker: RedisBroker,
    holder: Holder,
    bench: Bench,
    cluster: redis_servers.Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a server with a ``timeout`` does, while a worker is busy for long."""
    monkeypatch.setattr(cluster_wakers, "BUSY_FOR", 0.0)
    busy(broker, holder, cluster, waker)
    for node in cluster.nodes:
        with node.client() as client:
            for one in client.client_list(_type="normal"):
                if one["cmd"] == "blpop" and "b" not in one["flags"]:
                    client.client_kill_filter(_id=one["id"])
    assert becomes_readable(waker)
    assert not waker.woken()
    broker.set_idle(holder.worker, True)
    eventually(lambda: is_settled(waker) and cluster.waiting() == len(QUEUES) + 1)
    assert wakes(waker, bench, "a")


def test_with_very_many_queues_it_asks_again_and_again(
    waker: ClusterWaker,
    broker: RedisBroker,
    holder: Holder,
    bench: Bench,
    cluster: redis_servers.Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Commands are told of all the same."""
    monkeypatch.setattr(cluster_wakers, "BUSY_FOR", 0.0)
    monkeypatch.setattr(cluster_wakers, "MOST", 2)
    eventually(lambda: waker.woken() and cluster.waiting() == 1)
    assert waker.fileno() is None
    assert 0 < waker.interval(1_000.0) <= 2 * POLL_MOST
    command(bench)
    eventually(lambda: waker.woken() and waker.commanded())
    broker.set_idle(holder.worker, False)
    assert not waker.woken()
    command(bench)
    assert becomes_readable(waker)
    assert not waker.woken()
    assert waker.commanded()


def test_all_that_waits_sends_no_more_than_one_would(waker: ClusterWaker, cluster: redis_servers.Cluster) -> None:
    """Each begins anew when its time is over, so there are fewer the more there are."""
    assert waker.net >= 20.0
    waits = list(waker._waits.values())
    with redis_servers.Monitor(cluster.nodes) as monitor:
        for wait in waits:
            wait.end()
        eventually(lambda: not waker.woken() and monitor.count("BLPOP") == len(waits))
    asked = [words[-1] for heard in monitor.heard.values() for words in heard if words[0] == "BLPOP"]
    assert asked == [str(PATIENCE * len(waits))] * len(waits)


def test_who_holds_what_is_looked_at_when_somebody_has_lost_a_lease(
    broker: RedisBroker, holder: Holder, bench: Bench, cluster: redis_servers.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1; and now and then, while every heartbeat would be too often for who is idle."""
    monkeypatch.setattr("django_tasks.backends.redis.leases.JUST_NOW", LONG)  # however slow the machine is

    def beat() -> tuple[int, int]:
        with redis_servers.Monitor(cluster.nodes) as monitor:
            assert broker.renew(holder.worker, processed=0)
            found = broker.rescue(max_losses=3)
            broker.server.many([("SET", f"{broker.server.queue(queue)}:over", "") for queue in QUEUES])
            eventually(lambda: monitor.count("SET") == len(QUEUES))
        assert monitor.count("beat") == 1
        return found, monitor.count("SMEMBERS")

    other = bench.new_broker()
    assert isinstance(other, RedisBroker)
    ends, dies = a_worker(other, name="ends@test"), a_worker(other, name="dies@test", lease=LEASE / 2)
    assert beat() == (0, len(QUEUES))  # one that has just begun looks at everything
    assert beat() == (0, 0)
    assert beat() == (0, 0)
    sent = send(other, a_message(queue="a"))
    assert ids(claim(other, ends)) == sent
    other.leases.end(ends.worker)
    assert beat() == (1, len(QUEUES))
    assert beat() == (0, len(QUEUES))  # until nobody is found
    assert beat() == (0, 0)
    assert ids(claim(other, dies)) == sent
    bench.let_pass(LEASE / 2 + 1)
    assert beat() == (1, len(QUEUES))
    assert beat() == (0, len(QUEUES))
    assert ids(claim(other, dies)) == sent  # which was frozen
    assert beat() == (0, 0)
    monkeypatch.setattr("django_tasks.backends.redis.leases.ORPHANS_EVERY", -ORPHANS_EVERY)
    assert beat() == (1, len(QUEUES))
