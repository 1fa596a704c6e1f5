"""How often a busy process asks Redis: what ends a batch brings the next one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from django_tasks import states
from django_tasks.backends.message import Delivery, Holder, Outcome
from django_tasks.backends.redis import RedisBroker
from django_tasks.backends.redis.leases import Move
from django_tasks.exceptions import OperationalError
from django_tasks.models import Task, TaskResult
from tests import redis_servers
from tests.backends.bench import Bench, RedisBench, redis_bench
from tests.backends.calls import ALL, LEASE, a_message, a_worker, claim, claim_one, finish, ids, send, success
from tests.conftest import do_without
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.servers import Redis, ServerMissing, new_server

pytestmark = pytest.mark.databases("sqlite")

BATCHES, SIZE = 10, 12
#: Commands besides, however many batches there are: the names of the queues are looked up once a second.
FEW = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Give a Redis that nobody else uses."""
    try:
        server = new_server("redis")
    except ServerMissing as missing:
        do_without("redis", missing)
    assert isinstance(server, Redis)
    yield server
    server.close()


@pytest.fixture
def bench(database: TestDatabase, server: Redis) -> Iterator[Bench]:
    """Give it in front of the database under test."""
    with redis_bench(database.alias, server.url) as bench:
        yield bench


def ended(deliveries: Sequence[Delivery], *, keep: bool) -> list[Outcome]:
    """Return outcomes, of which the ledger is to know or not."""
    return [success(one, keep=keep) for one in deliveries]


@pytest.mark.parametrize("queues", [1, 3])
@pytest.mark.parametrize(("durable", "keep", "checks"), [(True, True, 0), (False, False, 0), (False, True, BATCHES)])
def test_one_script_ends_a_batch_and_takes_the_next(
    broker: RedisBroker,
    holder: Holder,
    bench: RedisBench,
    server: Redis,
    durable: bool,
    keep: bool,
    checks: int,
    queues: int,
) -> None:
    """Who has no row asks before the ledger is written whether the lease still counts: for all queues at once."""
    names = [f"q{number % queues}" for number in range(BATCHES * SIZE)]
    send(bench.new_broker(), *(a_message(queue=name, durable=durable) for name in names))
    deliveries = claim(broker, holder, limit=SIZE)
    with redis_servers.Monitor([server]) as monitor:
        for _ in range(BATCHES):
            assert len(deliveries) == SIZE
            stepped = broker.step(ended(deliveries, keep=keep), holder=holder, queues=ALL, limit=SIZE)
            assert not stepped.refused
            deliveries = stepped.deliveries
        broker.server.command("SET", broker.server.shared("over"), "")
        eventually(lambda: monitor.count("SET"))
    assert deliveries == []
    found = Counter(words[0] for words in monitor.heard[server.port])
    assert (found.pop("step"), found.pop("check", 0)) == (BATCHES, checks), found
    assert found.total() <= FEW, found
    assert broker.held(holder.worker) == []
    assert Task.objects.count() == 0
    assert TaskResult.objects.count() == (BATCHES * SIZE if keep else 0)


def test_what_the_ledger_is_not_to_know_is_refused_once_its_lease_is_lost(
    broker: RedisBroker, holder: Holder, bench: RedisBench
) -> None:
    """A zombie's end does not count, while that of others in its batch does."""
    sent = send(broker, *(a_message(durable=False) for _ in range(2)))
    lost, kept = claim(broker, holder)
    broker.leases.settle("default", holder.worker, [Move(lost.id, lost.attempt, "back")])
    more = send(broker, a_message(durable=False))
    stepped = broker.step(ended([lost, kept], keep=False), holder=holder, queues=ALL, limit=1_000)
    assert stepped.refused == {lost.id}
    assert ids(stepped.deliveries) == [sent[0], *more]
    assert stepped.deliveries[0].attempt == lost.attempt + 1
    assert not finish(broker, holder, *ended(stepped.deliveries, keep=False))
    assert broker.leases.is_empty()


def test_what_was_given_a_row_meanwhile_ends_with_its_row(
    broker: RedisBroker, holder: Holder, bench: RedisBench
) -> None:
    send(broker, *(a_message(durable=False) for _ in range(2)))
    first, second = claim(broker, holder)
    bench.new_broker().mark_started({(first.id, first.attempt): 1.0})  # by the supervisor
    assert Task.objects.get().state == states.STARTED
    assert not broker.step(ended([first, second], keep=False), holder=holder, queues=ALL, limit=1).refused
    assert not Task.objects.exists()
    assert broker.leases.is_empty()


def test_what_redis_has_forgotten_counts_if_nobody_else_has_it(
    broker: RedisBroker, holder: Holder, bench: RedisBench, server: Redis
) -> None:
    send(broker, a_message(durable=False))
    delivery = claim_one(broker, holder)
    broker.renew(holder.worker, processed=0)
    with server.client() as client:
        client.flushall()
    broker.renew(holder.worker, processed=0)
    assert not broker.step(ended([delivery], keep=False), holder=holder, queues=ALL, limit=1).refused
    assert broker.leases.is_empty()


def test_an_end_whose_answer_was_lost_is_told_again_without_harm(
    broker: RedisBroker, holder: Holder, bench: RedisBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: the process has found out meanwhile that it does not hold the task any more."""
    send(broker, a_message(durable=False))
    delivery = claim_one(broker, holder)
    run = broker.server.run

    def unheard(*args: object, **options: object) -> None:
        run(*args, **options)  # type: ignore[arg-type]
        raise OperationalError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(broker.server, "run", unheard)
        with pytest.raises(OperationalError):
            broker.step(ended([delivery], keep=False), holder=holder, queues=ALL, limit=1)
    assert broker.held(holder.worker) == []
    [sent] = send(bench.new_broker(), a_message(durable=False))
    stepped = broker.step([], holder=holder, queues=ALL, limit=1)
    assert (ids(stepped.deliveries), stepped.refused) == ([sent], frozenset())
    other = a_worker(bench.new_broker(), name="other@test", lease=LEASE)
    assert claim(bench.new_broker(), other) == []
