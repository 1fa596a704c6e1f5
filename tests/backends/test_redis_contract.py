"""The Redis broker keeps the contract, with its rows in each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count as numbers

import pytest
from django.conf import settings
from django.test import override_settings

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.backends.message import Holder, Return, Unique
from django_tasks.backends.redis import RedisBroker
from django_tasks.models import Task
from tests import redis_servers
from tests.backends.bench import Bench, RedisBench
from tests.backends.calls import ALL, a_message, claim, claim_one, finish, ids, send, success
from tests.backends.contract import BrokerContract
from tests.backends.promises.claiming import Claiming
from tests.backends.promises.commands import Commanding, Showing
from tests.backends.promises.control import Cancelling, Tidying, Watching
from tests.backends.promises.finishing import Finishing, Returning
from tests.backends.promises.leasing import Leasing, Slots
from tests.backends.promises.sending import Sending
from tests.conftest import do_without
from tests.databases import TestDatabase
from tests.eventually import eventually
from tests.servers import ServerMissing

_NUMBERS = numbers(1)


@pytest.fixture
def bench(database: TestDatabase, redis_url: str) -> Iterator[Bench]:
    """Give a Redis in front of the database under test."""
    with override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, "BROKER_URL": redis_url}):
        bench = RedisBench(database.alias, redis_url)
        yield bench
        bench.close()


def ids_to_ask_for(bench: RedisBench) -> int:
    """Return how many tasks must not start unless the database agrees."""
    server = bench.redis.server
    return int(server.command("ZCARD", f"{server.queue('default')}:s"))


class TestRedisBroker(BrokerContract):
    """On Redis."""

    def test_what_a_sweeper_publishes_when_it_has_just_ended_does_not_run_again(
        self, broker: RedisBroker, holder: Holder
    ) -> None:
        [task_id] = send(broker)
        rows = broker.rows.read([task_id])
        finish(broker, holder, success(claim_one(broker, holder)))
        assert broker.publish_rows(rows.values()) == 1
        assert claim(broker, holder) == []
        assert broker.held(holder.worker) == []

    def test_what_a_sweeper_published_is_remembered_for_a_while(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench
    ) -> None:
        for _ in range(3):
            sent = send(broker, *[a_message() for _ in range(5)])
            broker.leases.remove("default", sent)
            assert broker.sweeper.fill(lambda: None) == 5
            finish(broker, holder, *map(success, claim(broker, holder)))
            assert ids_to_ask_for(bench) == 5
            bench.let_pass(601)

    def test_what_is_asked_for_before_each_start_need_not_be_remembered(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench
    ) -> None:
        bench.limit("task", "tests.noop", concurrency=1)
        send(broker, a_message("tests.other", unique=Unique("x")), a_message(limit_key=""))
        broker.admit(ALL, free=9)
        finish(broker, holder, *map(success, claim(broker, holder)))
        assert not Task.objects.exists()
        assert ids_to_ask_for(bench) == 0


class TestWithoutRows(
    Sending, Claiming, Finishing, Returning, Leasing, Slots, Watching, Cancelling, Tidying, Commanding, Showing
):
    """On Redis with ``durable=False``: what limits count, and what is unique, has a row in any case."""

    @pytest.fixture
    def bench(self, database: TestDatabase, redis_url: str) -> Iterator[Bench]:
        """Give a Redis in front of the database under test, to which everything is sent without a row."""
        with override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, "BROKER_URL": redis_url}):
            bench = RedisBench(database.alias, redis_url, durable=False)
            yield bench
            bench.close()

    def test_a_rolled_back_transaction_leaves_nothing(self, broker: Broker, bench: Bench) -> None:
        """R21: nobody hears of it before the commit."""
        for count in (1, 3, 1_001):
            messages = [a_message() for _ in range(count)]
            with bench.rolled_back():
                broker.publish(messages)
                assert bench.record(messages[0].id) is None
            assert not broker.survey(ALL).due
            assert bench.record(messages[0].id) is None

    def test_messages_are_accepted_all_or_none(self, broker: Broker, bench: Bench) -> None:
        for count in (2, 1_001):
            messages = [a_message() for _ in range(count)]
            messages[-1].body = "\ud800"  # which cannot be written
            with pytest.raises(Exception, match="surrogates"):
                broker.publish(messages)
            assert not broker.survey(ALL).due
            assert bench.record(messages[0].id) is None

    def test_an_id_from_the_ledger_may_be_used_again_and_the_newer_result_stays(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        """It is the older one that stays: only a row could tell the second task from the first one, run again."""
        [task_id] = send(broker)
        for result in ('"old"', '"new"'):
            send(broker, a_message(id=task_id))
            finish(broker, holder, success(claim_one(broker, holder), result=result))
        record = bench.record(task_id)
        assert record is not None
        assert record.result == '"old"'

    def test_a_revoke_is_part_of_the_callers_transaction(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        [task_id] = send(broker)
        with bench.rolled_back():
            assert broker.revoke([task_id]) == 1
        assert bench.state(task_id) == states.PENDING
        assert ids(claim(broker, holder)) == [task_id]
        with bench.transaction():
            [sent_here] = send(broker)
            assert broker.revoke([sent_here]) == 0, "nobody knows it before the commit"
        assert bench.state(sent_here) == states.PENDING

    def test_what_takes_long_has_a_row(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        """So that people see it, and can stop it, as on every broker."""
        sent = send(broker, *(a_message(priority=9 - number) for number in range(4)))
        shown, told, ended, short = claim(broker, holder)
        supervisor = bench.new_broker()
        supervisor.mark_started({(one.id, one.attempt): 3.0 for one in (shown, ended)})
        assert broker.report(told.id, 1, "PROGRESS", "{}")
        rows = {str(row.pk): row for row in Task.objects.all()}
        assert set(rows) == {shown.id, told.id, ended.id}
        assert (rows[shown.id].state, rows[shown.id].attempt) == (states.STARTED, 1)
        assert (rows[shown.id].worker_id, rows[told.id].custom_state) == (holder.worker, "PROGRESS")
        assert finish(broker, holder, success(ended), success(short)) == frozenset()
        assert bench.new_broker().revoke([shown.id]) == 1
        assert broker.is_revoked(shown.id, 1)
        assert finish(broker, holder, Return(told.id, 1, states.RETRY, delay=0, retries=1)) == frozenset()
        assert finish(broker, holder, Return(shown.id, 1)) == frozenset()
        assert [bench.state(one) for one in sent] == ["REVOKED", "RETRY", "SUCCESS", "SUCCESS"]
        [again] = claim(broker, holder)
        assert (again.id, again.attempt) == (told.id, 2)
        assert finish(broker, holder, success(again)) == frozenset()
        assert not Task.objects.exists()
        assert broker.held(holder.worker) == []


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    """Give a cluster of three servers."""
    try:
        with redis_servers.cluster() as cluster:
            yield cluster.url
    except ServerMissing as missing:
        do_without("redis", missing)


@pytest.mark.databases("sqlite")
class TestOnCluster(
    Sending, Claiming, Finishing, Returning, Leasing, Slots, Watching, Cancelling, Tidying, Commanding, Showing
):
    """On a cluster, where the keys of two queues may lie on two servers."""

    @pytest.fixture
    def bench(self, database: TestDatabase, cluster_url: str) -> Iterator[Bench]:
        """Give a cluster in front of the database under test."""
        url = f"{cluster_url}?prefix=test{next(_NUMBERS)}"
        with override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, "BROKER_URL": url}):
            bench = RedisBench(database.alias, url)
            yield bench
            bench.close()

    def test_an_idle_worker_is_woken_by_a_task_in_any_queue(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        send(broker, a_message(queue="a"), a_message(queue="b"))
        finish(broker, holder, *map(success, claim(broker, holder)))
        broker.set_idle(holder.worker, True)
        with closing(broker.waker()) as waker:
            for queue in ("a", "b", "new"):
                send(bench.new_broker(), a_message(queue=queue))
                assert eventually(waker.woken)
                assert 0 < waker.interval(1_000.0) <= 1.0
