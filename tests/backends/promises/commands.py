"""What is promised to those who send commands to workers, and to the workers that obey."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_tasks import states
from django_tasks.backends.base import Broker, Queues
from django_tasks.backends.control import Line
from django_tasks.backends.message import Holder, Outcome
from django_tasks.dashboard import database_now
from django_tasks.exceptions import WouldBlockForever
from django_tasks.models import Beat, Worker
from django_tasks.periodic import BEAT_LOST_AFTER
from tests.backends.bench import Bench
from tests.backends.calls import LEASE, a_message, a_worker, claim_one, finish, send
from tests.eventually import eventually

#: Seconds for which a command holds, unless a test is about that.
LIFETIME = 300.0


def order(line: Line, name: str = "ping", **options: Any) -> int:
    """Send a command that wants replies."""
    return line.send(name, "{}", **{"wants_replies": True, "lifetime": LIFETIME, **options})


def ids_for(broker: Broker, holder: Holder, *known: int) -> list[int]:
    """Return the ids of the commands for a worker."""
    return [one.id for one in broker.commands(holder.worker, known)]


def a_beat(name: str) -> int:
    """Store that a beat begins; return the id of this start."""
    now = database_now()
    beat = Beat.objects.create(name=name, hostname="test", pid=1, version="test", started_at=now, seen_at=now)
    return int(beat.pk)


class Commanding:
    """line(), commands(), reply(), answer_pings(), prune_commands()"""

    def test_a_worker_gets_each_command_once_in_order(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        with bench.new_broker().line() as line:
            first = line.send("rate_limit", '{"n": [1, "ü"]}', lifetime=LIFETIME)
            second = order(line)
            [one, two] = broker.commands(holder.worker)
            assert (one.id, one.name, one.arguments, one.wants_replies) == (first, "rate_limit", {"n": [1, "ü"]}, False)
            assert (two.id, two.name, two.arguments, two.wants_replies) == (second, "ping", {}, True)
            assert 0 < one.expires_in < LIFETIME + 1
            assert ids_for(broker, holder, first) == [second]
            assert ids_for(broker, holder, first, second) == []
            third = order(line)
            assert ids_for(broker, holder, first, second) == [third]

    def test_a_worker_that_starts_later_does_not_obey(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        with broker.line() as line:
            sent = order(line)
            bench.let_pass(1)
            later = a_worker(bench.new_broker(), name="worker@later")
            assert ids_for(broker, later) == []
            assert ids_for(broker, holder) == [sent]
            again = order(line)
            assert ids_for(broker, later) == [again]
            assert ids_for(broker, Holder(4_711, 1)) == []

    def test_a_command_is_for_the_nodes_that_it_names(self, broker: Broker, holder: Holder) -> None:
        other = a_worker(broker, name="w2@test")
        with broker.line() as line:
            mine = order(line, destination=[holder.name])
            theirs = order(line, destination=["w2@test", "w3@test"])
            nobodys = order(line, destination=[])
            everybodys = order(line)
            assert ids_for(broker, holder) == [mine, everybodys]
            assert ids_for(broker, other) == [theirs, everybodys]
            assert nobodys not in ids_for(broker, holder) + ids_for(broker, other)

    def test_nobody_obeys_an_expired_command(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        with broker.line() as line:
            short, long = order(line, lifetime=60.0), order(line, lifetime=6_000.0)
            bench.let_pass(61)
            assert ids_for(broker, holder) == [long]
            assert not broker.reply(short, holder.worker, "{}")
            assert broker.reply(long, holder.worker, "{}")

    def test_a_command_is_there_whatever_becomes_of_the_callers_transaction(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        if bench.shuts_others_out:
            with bench.transaction(), bench.new_broker().line() as line:
                with pytest.raises(WouldBlockForever, match="Replies to 'ping' are wanted inside"):
                    order(line)
                joined = order(line, wants_replies=False)
            assert ids_for(broker, holder) == [joined]
        with bench.rolled_back(), bench.new_broker().line() as line:
            sent = order(line, wants_replies=False)
            assert bench.shuts_others_out or ids_for(broker, holder) == [sent]
        assert bench.shuts_others_out or ids_for(broker, holder) == [sent]

    def test_what_is_no_json_object_is_taken_for_no_arguments(self, broker: Broker, holder: Holder) -> None:
        with broker.line() as line:
            for text in ("", "{", "[1]", "null", "\x01"):
                line.send("ping", text, lifetime=LIFETIME)
        assert [one.arguments for one in broker.commands(holder.worker)] == [{}] * 5

    def test_replies_reach_who_asked(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        other = a_worker(broker, name="w2@test")
        with bench.new_broker().line() as line, bench.new_broker().line() as stranger:
            command, another = order(line), order(stranger)
            assert line.replies(command) == []
            assert broker.reply(command, holder.worker, '{"ok": "pöng"}')
            assert line.replies(command) == [(holder.worker, holder.name, '{"ok": "pöng"}')]
            assert broker.reply(command, other.worker, "null")
            assert line.replies(command, [holder.worker]) == [(other.worker, "w2@test", "null")]
            assert [one.node for one in line.replies(command)] == [holder.worker, other.worker]
            assert stranger.replies(another) == []

    def test_an_answer_is_stored_once_and_only_if_it_is_wanted(self, broker: Broker, holder: Holder) -> None:
        with broker.line() as line:
            command, unasked = order(line), order(line, wants_replies=False)
            assert broker.reply(command, holder.worker, "1")
            assert not broker.reply(command, holder.worker, "2")
            assert not broker.reply(unasked, holder.worker, "3")
            assert not broker.reply(4_711, holder.worker, "4")
            assert [one.body for one in line.replies(command)] == ["1"]
            assert line.replies(unasked) == []

    def test_who_waits_for_a_reply_is_woken(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        worker = bench.new_broker()
        worker.commands(holder.worker)  # its connection is there
        with bench.new_broker().line() as line, ThreadPoolExecutor(1) as pool:
            command = order(line)
            line.wait(0)
            began = time.monotonic()
            answering = pool.submit(worker.reply, command, holder.worker, "1")
            while not line.replies(command) and time.monotonic() - began < 30:
                line.wait(30)
            assert answering.result()
            assert time.monotonic() - began < 5

    def test_a_line_knows_the_workers_whose_lease_is_fresh(self, broker: Broker, bench: Bench) -> None:
        lost, stopped = a_worker(broker, lease=50), a_worker(broker)
        first, second = a_worker(broker, name="b@test", lease=LEASE), a_worker(broker, name="a@test", lease=LEASE)
        with broker.line() as line:
            assert [node.id for node in line.nodes()] == [one.worker for one in (lost, stopped, first, second)]
            broker.unregister(stopped.worker)
            bench.let_pass(60)
            assert line.nodes() == [(first.worker, "b@test", "*"), (second.worker, "a@test", "*")]
            assert broker.nodes() == line.nodes()

    def test_others_see_what_a_worker_consumes_now(self, broker: Broker, holder: Holder) -> None:
        broker.restate(holder.worker, queues=Queues(("mail",)), concurrency=7)
        assert broker.nodes() == [(holder.worker, holder.name, "mail")]
        assert Worker.objects.get(pk=holder.worker).concurrency == 7

    def test_a_beat_answers_each_ping_once_that_names_it(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        beat, other = a_beat("beat@a"), a_beat("beat@b")
        with bench.new_broker().line() as line:
            asked = order(line, destination=["beat@a", holder.name])
            others = [
                order(line),
                order(line, "shutdown", destination=["beat@a"]),
                order(line, destination=["beat@a"], wants_replies=False),
            ]
            assert broker.answer_pings(other, "1") == 0
            assert broker.answer_pings(beat, '{"ok": "pong"}') == 1
            assert broker.answer_pings(beat, '{"ok": "pong"}') == 0
            assert line.replies(asked) == [(-beat, "beat@a", '{"ok": "pong"}')]
            assert not any(line.replies(one) for one in others)

    def test_a_beat_answers_no_ping_that_has_expired_or_was_there_before_it(self, broker: Broker, bench: Bench) -> None:
        beat = a_beat("beat@a")
        with bench.new_broker().line() as line:
            order(line, destination=["beat@a"], lifetime=0.5)
            kept = order(line, destination=["beat@a"])
            bench.let_pass(1)
            later = a_beat("beat@a")
            assert broker.answer_pings(later, "1") == 0
            assert broker.answer_pings(beat, "1") == 1
            assert [one.node for one in line.replies(kept)] == [-beat]

    def test_a_line_knows_the_beats_that_were_seen_of_late(self, broker: Broker, bench: Bench) -> None:
        with broker.line() as line:
            assert line.beats() == []
            lost = a_beat("beat@lost")
            bench.let_pass(BEAT_LOST_AFTER / 2)
            stopped, beat = a_beat("beat@stopped"), a_beat("beat@a")
            Beat.objects.filter(pk=stopped).update(stopped_at=database_now())
            assert line.beats() == [(-lost, "beat@lost", ""), (-beat, "beat@a", "")]
            bench.let_pass(BEAT_LOST_AFTER / 2 + 1)
            assert line.beats() == [(-beat, "beat@a", "")]
            assert line.nodes() == []

    def test_an_idle_worker_is_woken_by_a_command(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        broker.set_idle(holder.worker, True)
        waker = broker.waker()
        try:
            eventually(lambda: not waker.tells_commands or not (waker.woken() or waker.woken()))
            with bench.new_broker().line() as line:
                order(line)
            if waker.tells_commands:
                eventually(lambda: (waker.woken(), waker.commanded())[1])
                send(bench.new_broker())
                assert eventually(waker.woken)
                assert not waker.commanded()
            else:
                assert eventually(waker.woken)
        finally:
            waker.close()

    def test_what_has_expired_is_deleted_with_its_replies(self, broker: Broker, holder: Holder, bench: Bench) -> None:
        with broker.line() as line:
            old, new = order(line, lifetime=60.0), order(line, lifetime=6_000.0)
            for command in (old, new):
                broker.reply(command, holder.worker, "1")
            assert broker.prune_commands() == 0
            bench.let_pass(61)
            assert len(line.replies(old)) == 1
            assert broker.prune_commands() == 1
            assert (len(line.replies(old)), len(line.replies(new))) == (0, 1)
            assert ids_for(broker, holder) == [new]
            assert broker.prune_commands() == 0


class Showing:
    """peek(), scheduled(), revoked()"""

    def test_a_task_that_is_not_done_can_be_seen(self, broker: Broker, holder: Holder) -> None:
        running, waiting = send(broker, a_message(priority=9), a_message("x.y", queue="mail", custom_id="my own"))
        delivery = claim_one(broker, holder)
        seen = {one.key: one for one in broker.peek([running, waiting, a_message().id])}
        assert set(seen) == {running, waiting}
        assert (seen[running].state, seen[running].attempt, seen[running].id) == (states.STARTED, 1, running)
        own = seen[waiting]
        assert (own.id, own.name, own.queue, own.state, own.body) == ("my own", "x.y", "mail", "PENDING", "[[],{}]")
        assert abs(own.due - broker.now().timestamp()) < 60
        finish(broker, holder, Outcome(delivery.id, 1, states.SUCCESS))
        assert broker.peek([running]) == []
        assert broker.peek([]) == []

    def test_what_becomes_due_later_is_told_in_order(self, broker: Broker) -> None:
        send(broker)
        late, soon, other = send(broker, a_message(delay=900), a_message(delay=300), a_message(delay=600, queue="mail"))
        assert [one.key for one in broker.scheduled((), (), limit=9)] == [soon, other, late]
        assert [one.key for one in broker.scheduled((), ("mail",), limit=9)] == [soon, late]
        assert [one.key for one in broker.scheduled(("mail", "x"), (), limit=9)] == [other]
        assert [one.key for one in broker.scheduled((), (), limit=2)] == [soon, other]

    def test_what_was_revoked_is_told_while_it_runs_and_after(
        self, broker: Broker, holder: Holder, bench: Bench
    ) -> None:
        runs, first, second, kept = send(
            broker, a_message(priority=9), a_message(), a_message(custom_id="my own"), a_message()
        )
        claim_one(broker, holder)
        broker.revoke([runs, first])
        bench.let_pass(10)
        broker.revoke([second])
        assert broker.revoked(limit=9) == [runs, "my own", first]
        assert broker.revoked(limit=1) == [runs, "my own"]
        assert kept not in broker.revoked(limit=9)
