"""The Redis broker keeps the contract, with its rows in each kind of database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count as numbers
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_tasks import states
from django_tasks.backends import get_broker
from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.message import Holder, Message, Outcome, Replacement, Return, Unique
from django_tasks.backends.redis import RedisBroker, leases, stepping, wire
from django_tasks.backends.redis.claims import claim_of
from django_tasks.backends.redis.sweeper import UNUSED
from django_tasks.exceptions import OperationalError
from django_tasks.models import Task
from tests.backends.bench import Bench, RedisBench, redis_bench
from tests.backends.calls import ALL, LEASE, a_message, a_worker, claim, claim_one, finish, ids, send, success
from tests.backends.contract import BrokerContract
from tests.backends.promises.claiming import Claiming
from tests.backends.promises.commands import Commanding, Showing
from tests.backends.promises.control import Cancelling, Tidying, Watching
from tests.backends.promises.finishing import Finishing, Returning
from tests.backends.promises.leasing import Leasing, Slots
from tests.backends.promises.sending import Sending
from tests.conftest import a_cluster
from tests.databases import TestDatabase
from tests.eventually import eventually

_NUMBERS = numbers(1)


@pytest.fixture
def bench(database: TestDatabase, redis_url: str) -> Iterator[Bench]:
    """Give a Redis in front of the database under test."""
    with redis_bench(database.alias, redis_url) as bench:
        yield bench


def ids_to_ask_for(bench: RedisBench) -> int:
    """Return how many tasks must not start unless the database agrees."""
    server = bench.redis.server
    return int(server.command("ZCARD", f"{server.queue('default')}:s"))


def lose_all_data(bench: RedisBench) -> None:
    """Let Redis forget what this site keeps there."""
    client = bench.redis.server.client()
    for key in client.scan_iter(f"{bench.redis.server.address.prefix}:*"):
        client.delete(key)


def commit_unpublished(broker: RedisBroker, message: Message) -> None:
    """Write the row of a call whose sender has not come to tell Redis yet."""
    DatabaseBroker.publish(broker, [message])


def just_before(monkeypatch: pytest.MonkeyPatch, part: Any, name: str, act: Callable[[], object]) -> None:
    """Have somebody else act when this is about to be called next."""
    method = getattr(part, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(part, name, method)
        act()
        return method(*args, **kwargs)

    monkeypatch.setattr(part, name, called)


class Forgetting:
    """Queues that come and go."""

    def test_a_queue_that_is_not_used_any_more_is_forgotten(
        self, broker: RedisBroker, holder: Holder, bench: Bench
    ) -> None:
        send(broker, *(a_message(queue=name) for name in ("runs", "was", "is")))
        running, *rest = claim(broker, holder, "runs", "was", "is")
        finish(broker, holder, *map(success, rest))
        send(broker, a_message(queue="waits"))
        send(broker, a_message(queue="later", eta=broker.now() + timedelta(days=9)))
        bench.let_pass(UNUSED + 1)
        send(broker, a_message(queue="is"))
        finish(broker, holder, success(claim_one(broker, holder)))
        assert broker.leases.forget_unused(UNUSED) == ["was"]
        assert broker.leases.names(fresh=True) == ["is", "later", "runs", "waits"]
        finish(broker, holder, success(running), success(claim_one(broker, holder)))
        assert broker.leases.forget_unused(UNUSED) == ["runs", "waits"]
        assert broker.leases.forget_unused(UNUSED) == []

    def test_what_is_stored_with_its_effects_waits_for_nobody_in_its_process(
        self, broker: RedisBroker, holder: Holder, bench: Bench
    ) -> None:
        """Another thread may be storing what ended before, and wait for the locks of this transaction meanwhile."""
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        busy, over = threading.Event(), threading.Event()

        def store() -> None:
            with broker.engine.session():
                busy.set()
                over.wait(20)

        other = threading.Thread(target=store)
        other.start()
        busy.wait(20)
        try:
            with bench.transaction():
                assert broker.finish_within(success(delivery), "worker@test")
                assert other.is_alive()
        finally:
            over.set()
            other.join()
        assert bench.state(task_id) == states.SUCCESS

    def test_a_queue_is_not_forgotten_while_somebody_sends_to_it(
        self, broker: RedisBroker, holder: Holder, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send(broker, a_message(queue="q"))
        finish(broker, holder, success(claim_one(broker, holder)))
        bench.let_pass(UNUSED + 1)
        run, sent = broker.server.run, []

        def send_after_each(*args: Any, **kwargs: Any) -> Any:
            found = run(*args, **kwargs)
            sent.extend(send(bench.new_broker(), a_message(queue="q")))
            return found

        with monkeypatch.context() as patch:
            patch.setattr(broker.server, "run", send_after_each)
            assert broker.leases.forget_unused(UNUSED) == []
        assert broker.leases.names(fresh=True) == ["q"]
        assert sorted(ids(claim(broker, holder))) == sorted(sent)

    def test_what_is_sent_to_a_forgotten_queue_runs(self, broker: RedisBroker, holder: Holder, bench: Bench) -> None:
        send(broker, a_message(queue="q"))
        finish(broker, holder, success(claim_one(broker, holder)))
        bench.let_pass(UNUSED + 1)
        sender = bench.new_broker()
        assert broker.leases.forget_unused(UNUSED) == ["q"]
        assert broker.leases.names(fresh=True) == []
        assert not broker.survey(ALL).due
        send(sender, a_message(queue="q"))
        assert broker.survey(ALL).due
        finish(broker, holder, success(claim_one(broker, holder)))


class Idling:
    """What an idle worker is told, and what it need not ask for."""

    def test_an_idle_worker_is_woken_for_what_limits_may_let_through(
        self, broker: RedisBroker, holder: Holder, bench: Bench
    ) -> None:
        bench.limit("queue", "default", concurrency=1)
        broker.set_idle(holder.worker, True)
        sender = bench.new_broker()
        tokens = [f"{broker.server.queue('new')}:k", broker.server.shared("new")]
        with closing(broker.waker()) as waker:
            send(sender, a_message(queue="new", limit_key=""))
            assert eventually(waker.woken)
            # One is for the queue, one tells that it is new.
            assert eventually(lambda: [broker.server.command("EXISTS", *tokens), waker.woken()] == [0, False])
            with bench.transaction():
                sender.wake()
                assert not waker.woken()
            assert eventually(waker.woken)

    def test_a_heartbeat_asks_for_all_that_is_to_be_asked(
        self, broker: RedisBroker, holder: Holder, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = a_worker(bench.new_broker(), name="lost")
        send(broker, a_message(), a_message(queue="q"))
        assert len(claim(broker, lost)) == 2
        bench.let_pass(LEASE / 2)
        assert broker.renew(holder.worker, processed=0)
        assert broker.sweeper.sweep() > 0
        assert broker.rescue(max_losses=3) == 0
        bench.let_pass(LEASE / 2 + 1)
        monkeypatch.setattr(leases, "JUST_NOW", LEASE)  # however slow the machine is
        scripts, run = [], broker.server.run

        def noting(script: str, *args: Any, **options: Any) -> Any:
            scripts.append(script)
            return run(script, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(broker.server, "run", noting)
            assert broker.renew(holder.worker, processed=0)
            broker.sweep()
            assert broker.rescue(max_losses=3) == 2
        assert scripts[0] == "beat"
        assert not {"turn", "dead", "survey"} & set(scripts)
        assert len(claim(broker, holder)) == 2

    def test_who_was_idle_asks_for_queues_only_if_there_is_nothing_in_those_it_knows(
        self, broker: RedisBroker, holder: Holder, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send(broker)
        finish(broker, holder, success(claim_one(broker, holder)))
        for module in (leases, stepping):
            monkeypatch.setattr(module, "FRESH", 0.0)
        words, command = [], broker.server.command

        def noting(*given: Any, **options: Any) -> Any:
            words.append(given[0])
            return command(*given, **options)

        monkeypatch.setattr(broker.server, "command", noting)
        [sent] = send(bench.new_broker())
        assert ids(claim(broker, holder)) == [sent]
        assert "ZRANGE" not in words
        [other] = send(bench.new_broker(), a_message(queue="new"))
        assert ids(claim(broker, holder)) == [other]
        assert "ZRANGE" in words

    def test_what_a_heartbeat_heard_counts_for_a_moment_only(
        self, broker: RedisBroker, holder: Holder, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = a_worker(bench.new_broker(), name="lost", lease=2 * LEASE)
        send(broker)
        assert len(claim(broker, lost)) == 1
        monkeypatch.setattr(leases, "JUST_NOW", 0.0)
        assert broker.renew(holder.worker, processed=0)
        bench.let_pass(LEASE / 2)
        assert broker.renew(holder.worker, processed=0)  # nobody is dead
        bench.let_pass(2 * LEASE)
        assert broker.rescue(max_losses=3) == 1

    def test_whoever_has_the_turn_goes_on_without_asking_until_the_connection_is_another_one(
        self, broker: RedisBroker, holder: Holder, bench: Bench
    ) -> None:
        assert broker.renew(holder.worker, processed=0)
        first = broker.leases.turn(broker.sweeper.name, "")
        assert first
        other = bench.new_broker()
        assert isinstance(other, RedisBroker)
        other.server.command("DEL", other.server.shared("sweeper"))
        assert other.leases.turn(other.sweeper.name, "")
        assert broker.leases.turn(broker.sweeper.name, "") == first
        with closing(broker.waker()) as waker:
            other.server.command("CLIENT", "KILL", "TYPE", "normal")
            with pytest.raises(OperationalError):
                eventually(waker.woken)
        assert broker.leases.turn(broker.sweeper.name, "") is None


class TestRedisBroker(BrokerContract, Forgetting, Idling):
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

    @pytest.mark.parametrize("retries", [0, 1])
    def test_who_publishes_late_what_a_sweeper_published_starts_nothing(
        self, broker: RedisBroker, holder: Holder, retries: int
    ) -> None:
        commit_unpublished(broker, message := a_message())
        assert broker.sweeper.fill(lambda: None) == 1
        for _ in range(retries):
            finish(broker, holder, Return(message.id, claim_one(broker, holder).attempt, states.RETRY, delay=0))
        finish(broker, holder, success(claim_one(broker, holder)))
        broker._announce([message])
        assert claim(broker, holder) == []

    def test_what_is_revoked_before_it_is_published_does_not_run(
        self, broker: RedisBroker, holder: Holder, bench: Bench
    ) -> None:
        commit_unpublished(broker, message := a_message())
        assert bench.new_broker().revoke([message.id]) == 1
        broker._announce([message])
        assert claim(broker, holder) == []
        assert bench.state(message.id) == states.REVOKED

    @pytest.mark.databases("sqlite")
    def test_of_what_sweepers_published_only_so_much_is_remembered(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench
    ) -> None:
        server, most = bench.redis.server, 100_000
        commit_unpublished(broker, revoked := a_message())
        with bench.rolled_back():
            broker.revoke([revoked.id])
        now = broker.leases.now()
        for start in range(0, most, 10_000):
            words = [word for number in range(start, start + 10_000) for word in (now + 599, number)]
            server.command("ZADD", f"{server.queue('default')}:s", *words)
        send(broker, *(messages := [a_message(), a_message()]))
        broker.leases.remove("default", [one.id for one in messages])
        assert broker.sweeper.fill(lambda: None) == 3
        done = [success(one) for one in claim(broker, holder)]
        commit_unpublished(broker, revoked := a_message())
        with bench.rolled_back():
            broker.revoke([revoked.id])
        assert ids_to_ask_for(bench) == most + 1
        finish(broker, holder, *done)
        assert ids_to_ask_for(bench) == most + 1
        known = [
            f"{server.queue('default')}:s",
            *(wire.key(one) for one in (revoked.id, *(one.id for one in messages))),
        ]
        assert None not in server.command("ZMSCORE", *known)

    def test_what_is_asked_for_before_each_start_need_not_be_remembered(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench
    ) -> None:
        bench.limit("task", "tests.noop", concurrency=1)
        send(broker, a_message("tests.other", unique=Unique("x")), a_message(limit_key=""))
        broker.admit(ALL, free=9)
        finish(broker, holder, *map(success, claim(broker, holder)))
        assert not Task.objects.exists()
        assert ids_to_ask_for(bench) == 0

    @pytest.mark.databases("sqlite")
    def test_a_sweeper_reads_no_bodies_of_what_redis_knows(
        self, broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known, unknown = send(broker, a_message(), a_message(body='[["back"],{}]'))
        broker.leases.remove("default", [unknown])
        read: list[str] = []
        query = broker.engine.query

        def noting(*args: Any) -> Any:
            rows = query(*args)
            read.append(str(rows))
            return rows

        monkeypatch.setattr(broker.engine, "query", noting)
        assert broker.sweeper.fill(lambda: None) == 1
        assert "back" in "".join(read)
        read.clear()
        assert broker.sweeper.fill(lambda: None) == 0
        assert known.replace("-", "") in "".join(read)
        assert "back" not in "".join(read)

    @pytest.mark.databases("sqlite")
    @pytest.mark.parametrize("durable", [True, False])
    def test_what_is_revoked_together_costs_no_more_for_many_queues(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench, monkeypatch: pytest.MonkeyPatch, durable: bool
    ) -> None:
        send(broker, *(a_message(queue=f"q{number}") for number in range(20)))
        sent = send(broker, *(a_message(durable=durable, queue=f"q{number % 2}") for number in range(50)))
        scripts = note_scripts(broker, monkeypatch)
        assert broker.revoke(sent) == 50
        assert len(scripts) <= 4 + (0 if durable else 20)
        assert {bench.state(one) for one in sent} == {states.REVOKED}
        assert len(claim(broker, holder)) == 20

    @pytest.mark.databases("sqlite")
    def test_what_has_a_row_is_looked_for_in_its_queue_alone(
        self, broker: RedisBroker, bench: RedisBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [task_id] = send(broker, a_message(queue="zz"))
        send(broker, *(a_message(queue=f"q{number}") for number in range(20)))
        asked = get_broker(bench.alias)
        assert isinstance(asked, RedisBroker)
        assert bench.state(task_id) == states.PENDING
        scripts = note_scripts(asked, monkeypatch)
        assert bench.state(task_id) == states.PENDING
        assert scripts == ["look"]


def note_scripts(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that tells from now on which scripts run."""
    scripts: list[str] = []
    run = broker.server.run

    def noting(script: str, *args: Any, **options: Any) -> Any:
        scripts.append(script)
        return run(script, *args, **options)

    monkeypatch.setattr(broker.server, "run", noting)
    return scripts


def retry(broker: RedisBroker, holder: Holder, task_id: str) -> None:
    assert finish(broker, holder, Return(task_id, 1, states.RETRY, delay=0, retries=1)) == frozenset()


def retry_elsewhere(broker: RedisBroker, holder: Holder, task_id: str) -> None:
    assert finish(broker, holder, Return(task_id, 1, states.RETRY, delay=0, retries=1, queue="other")) == frozenset()


def set_aside(broker: RedisBroker, holder: Holder, task_id: str) -> None:
    assert finish(broker, holder, Return(task_id, 1, states.UNROUTABLE)) == frozenset()
    assert broker.adopt(["tests.noop"]) == 1


def give_back(broker: RedisBroker, holder: Holder, task_id: str) -> None:
    assert broker.give_back(holder, [task_id]) == 1


class TestWithoutRows(
    Forgetting,
    Sending,
    Claiming,
    Finishing,
    Returning,
    Leasing,
    Slots,
    Watching,
    Cancelling,
    Tidying,
    Commanding,
    Showing,
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

    @pytest.mark.parametrize("end", [retry, retry_elsewhere, set_aside, give_back])
    @pytest.mark.parametrize("part", ["leases.settle", "leases.add_row"])
    def test_what_is_given_a_row_as_it_ends_has_one_fate(
        self,
        broker: RedisBroker,
        holder: Holder,
        bench: RedisBench,
        monkeypatch: pytest.MonkeyPatch,
        end: Callable[[RedisBroker, Holder, str], None],
        part: str,
    ) -> None:
        """Its supervisor does so in one moment of the end, or the end comes while the supervisor is about it."""
        [task_id] = send(broker)
        claim_one(broker, holder)
        supervisor = bench.new_broker()
        assert isinstance(supervisor, RedisBroker)

        def show() -> None:
            supervisor.mark_started({(task_id, 1): 3.0})

        if part == "leases.settle":
            just_before(monkeypatch, broker.leases, "settle", show)
            end(broker, holder, task_id)
        else:
            just_before(monkeypatch, supervisor.leases, "add_row", lambda: end(broker, holder, task_id))
            show()
        again = claim_one(broker, holder)
        assert (again.id, again.attempt, again.losses) == (task_id, 2, 0)
        assert claim(broker, holder) == []
        assert finish(broker, holder, success(again)) == frozenset()
        assert bench.state(task_id) == states.SUCCESS
        assert not Task.objects.exists()
        assert broker.held(holder.worker) == []
        assert broker.leases.is_empty()

    def test_a_row_that_comes_too_late_is_the_next_attempts(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [task_id] = send(broker)
        claim_one(broker, holder)
        supervisor = bench.new_broker()
        assert isinstance(supervisor, RedisBroker)

        def run_again() -> None:
            retry(broker, holder, task_id)
            broker.mark_started({(claim_one(broker, holder).id, 2): 0.0})

        just_before(monkeypatch, supervisor.leases, "add_row", run_again)
        supervisor.mark_started({(task_id, 1): 3.0})
        row = Task.objects.get()
        assert (row.state, row.attempt, row.worker_id) == (states.STARTED, 2, holder.worker)
        assert finish(broker, holder, Outcome(task_id, 2, states.SUCCESS)) == frozenset()
        assert bench.state(task_id) == states.SUCCESS
        assert not Task.objects.exists()

    def test_a_limit_may_hold_back_what_is_given_a_row(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [task_id] = send(broker)
        bench.limit("task", "tests.noop", concurrency=1)
        broker.survey(ALL)
        supervisor = bench.new_broker()
        assert isinstance(supervisor, RedisBroker)
        just_before(monkeypatch, broker.rows, "keep", lambda: supervisor.mark_started({(task_id, 1): 3.0}))
        assert claim(broker, holder) == []
        assert bench.state(task_id) == states.PENDING
        assert broker.admit(ALL).admitted == 1
        assert finish(broker, holder, success(claim_one(broker, holder))) == frozenset()
        assert not Task.objects.exists()

    def test_what_is_revoked_while_it_is_retried_runs_no_more(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [task_id] = send(broker)
        claim_one(broker, holder)
        caller = bench.new_broker()
        assert isinstance(caller, RedisBroker)
        just_before(monkeypatch, caller.leases, "add_row", lambda: retry(broker, holder, task_id))
        assert caller.revoke([task_id]) == 1
        assert claim(broker, holder) == []
        assert bench.state(task_id) == states.REVOKED
        assert not Task.objects.exists()

    def test_what_begins_as_it_is_revoked_is_stopped(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [task_id] = send(broker)
        caller = bench.new_broker()
        assert isinstance(caller, RedisBroker)
        just_before(monkeypatch, caller.leases, "stop", lambda: claim_one(broker, holder))
        assert caller.revoke([task_id]) == 1
        assert broker.is_revoked(task_id, 1)
        assert [one.id for one in broker.to_stop(holder.worker)] == [task_id]

    @pytest.mark.parametrize("end", ["rescue", "lose", "give_back"])
    @pytest.mark.parametrize("shown", [False, True])
    def test_what_was_stored_with_its_effects_does_not_run_again(
        self,
        broker: RedisBroker,
        holder: Holder,
        bench: RedisBench,
        end: str,
        shown: bool,
    ) -> None:
        """Its process dies, or its connection, before Redis is told."""
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        with bench.transaction():
            assert broker.finish_within(success(delivery), "worker@test")
        if shown:
            bench.new_broker().mark_started({(task_id, 1): 3.0})
        others = bench.new_broker()
        if end == "rescue":
            bench.let_pass(LEASE + 1)
            assert others.rescue(max_losses=9) == 0
        elif end == "lose":
            assert others.lose(holder, [task_id], max_losses=9, reason="It died") == 0
        else:
            assert broker.give_back(holder, [task_id]) == 0
            broker.step([], holder=holder)
        assert claim(others, a_worker(others)) == []
        assert bench.state(task_id) == states.SUCCESS
        assert not Task.objects.exists()
        assert broker.leases.is_empty()

    @pytest.mark.parametrize("committed", [False, True])
    def test_what_comes_back_as_its_commit_was_not_answered_runs_again_only_if_it_failed(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench, committed: bool
    ) -> None:
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        with bench.transaction() if committed else bench.rolled_back():
            assert broker.finish_within(success(delivery, keep=False), "worker@test")
        broker._unheard.clear()  # as nobody knows of the commit
        assert finish(broker, holder, Return(task_id, 1)) == frozenset()
        assert ids(claim(broker, holder)) == ([] if committed else [task_id])
        assert bench.state(task_id) == (states.SUCCESS if committed else states.STARTED)

    @pytest.mark.parametrize("atomic", [False, True])
    def test_another_may_take_the_place_of_what_has_no_row(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench, atomic: bool
    ) -> None:
        [task_id] = send(broker)
        claim_one(broker, holder)
        own = a_message("tests.other", id=task_id, queue="other")
        done = Return(task_id, 1, replacement=Replacement(own, [], []))
        if atomic:
            with bench.transaction():
                assert broker.replace_within(done)
        else:
            assert finish(broker, holder, done) == frozenset()
        found = claim_one(broker, holder)
        assert (found.id, found.name, found.queue, found.attempt) == (task_id, "tests.other", "other", 2)
        assert finish(broker, holder, success(found)) == frozenset()
        assert not Task.objects.exists()
        assert broker.leases.is_empty()

    @pytest.mark.parametrize("end", ["rescue", "rollback"])
    def test_a_replacement_in_a_transaction_happens_if_that_commits(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench, monkeypatch: pytest.MonkeyPatch, end: str
    ) -> None:
        """Also when the process dies before Redis is told."""
        [task_id] = send(broker)
        claim_one(broker, holder)
        done = Return(task_id, 1, replacement=Replacement(a_message("tests.other", id=task_id), [], []))
        monkeypatch.setattr(broker, "_correct", lambda *args: None)
        with bench.transaction() if end == "rescue" else bench.rolled_back():
            assert broker.replace_within(done)
        bench.let_pass(LEASE + 1)
        others = bench.new_broker()
        others.rescue(max_losses=9)
        found = claim_one(others, a_worker(others))
        assert (found.name, found.attempt) == ("tests.other" if end == "rescue" else "tests.noop", 2)

    def test_an_id_that_was_used_before_is_no_sign_of_an_end(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench
    ) -> None:
        [task_id] = send(broker)
        finish(broker, holder, success(claim_one(broker, holder)))
        bench.let_pass(1)
        send(broker, a_message(id=task_id))
        claim_one(broker, holder)
        bench.let_pass(LEASE + 1)
        others = bench.new_broker()
        assert others.rescue(max_losses=9) == 1
        assert claim_one(others, a_worker(others)).attempt == 2

    @pytest.mark.parametrize("end", [None, retry, retry_elsewhere, set_aside])
    @pytest.mark.parametrize("since", ["nothing", "another worker began", "its own lease began again"])
    @pytest.mark.parametrize("shown", [False, True])
    def test_what_runs_while_redis_loses_its_data_ends_as_ever(
        self,
        broker: RedisBroker,
        holder: Holder,
        bench: RedisBench,
        end: Callable[[RedisBroker, Holder, str], None] | None,
        since: str,
        shown: bool,
    ) -> None:
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        others = bench.new_broker()
        if shown:
            others.mark_started({(task_id, 1): 3.0})
        lose_all_data(bench)
        if since == "another worker began":
            a_worker(others)
        elif since == "its own lease began again":
            assert broker.renew(holder.worker, processed=0)
        assert not broker.is_revoked(task_id, 1)
        if end is not None:
            end(broker, holder, task_id)
            delivery = claim_one(broker, holder)
            assert (delivery.attempt, delivery.losses) == (2, 0)
        assert finish(broker, holder, success(delivery)) == frozenset()
        assert bench.state(task_id) == states.SUCCESS
        assert not Task.objects.exists()
        assert claim(broker, holder) == []

    def test_what_commits_after_redis_has_lost_its_data_is_done(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench
    ) -> None:
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        lose_all_data(bench)
        with bench.transaction():
            assert broker.finish_within(success(delivery, keep=False), "worker@test")
        assert bench.state(task_id) == states.SUCCESS

    def test_who_was_rescued_from_has_no_say_when_nothing_is_left_of_it(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench
    ) -> None:
        sent = send(broker, a_message(), a_message())
        stale = claim(broker, holder)
        bench.let_pass(LEASE + 1)
        others = bench.new_broker()
        others.rescue(max_losses=9)
        again = claim(others, other := a_worker(others))
        assert finish(others, other, *(success(one, keep=False) for one in again)) == frozenset()
        refused = finish(broker, holder, success(stale[0]), Return(stale[1].id, 1, states.RETRY, delay=0, retries=1))
        assert refused == set(sent)
        assert claim(others, other) == []
        assert [bench.state(one) for one in sent] == [None, None]

    def test_a_row_that_nobody_came_to_delete_starts_nothing(
        self, broker: RedisBroker, holder: Holder, bench: RedisBench
    ) -> None:
        """Who gave it the row died at once."""
        [task_id] = send(broker)
        delivery = claim_one(broker, holder)
        broker._keep_rows({task_id: claim_of(broker.leases.look([task_id])[task_id])}, states.STARTED)
        finish(broker, holder, success(delivery))
        assert Task.objects.count() == 1
        assert broker.sweeper.fill(lambda: None) == 0
        assert claim(broker, holder) == []
        assert not Task.objects.exists()
        assert bench.state(task_id) == states.SUCCESS


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    """Give a cluster of three servers."""
    with a_cluster() as cluster:
        yield cluster.url


@pytest.mark.databases("sqlite")
class TestOnCluster(
    Forgetting,
    Sending,
    Claiming,
    Finishing,
    Returning,
    Leasing,
    Slots,
    Watching,
    Cancelling,
    Tidying,
    Commanding,
    Showing,
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
