"""The life of tasks over the broker's interface, as Hypothesis likes it: any order of moves by workers alive and dead.

A model keeps what must be true of each task; after every move both tables must say the same, row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_tasks import states
from django_tasks.backends.base import Queues
from django_tasks.backends.message import Delivery, Holder, Outcome, Return
from django_tasks.models import Task, TaskResult, Worker
from tests.backends.bench import DatabaseBench
from tests.backends.calls import a_message, a_worker

QUEUES = Queues(("a", "b"))
#: Time passes in hundreds of seconds, so that the moments which a test takes by itself do not matter.
TICK = 100
#: A lease survives two ticks and not three.
LEASE = 250.0
MAX_LOSSES = 3
#: So many of the tasks of this name may hold a place at the same time.
LIMITED, PLACES = "tests.limited", 2
DELAYS = st.sampled_from([0, TICK, 2 * TICK])


@dataclass
class Fate:
    """What must be true of one task."""

    queue: str
    priority: int
    due_in: int
    at_most_once: bool
    limited: bool = False
    state: str = states.PENDING
    attempt: int = 0
    losses: int = 0
    begun: bool = False
    revoked: bool = False
    #: Who has it while it is STARTED.
    holder: Holder | None = None
    #: Once finished: the line in the ledger, or ``None`` if there is to be none; and its age in seconds.
    result: str | None = None
    kept: bool = True
    age: int = 0

    @property
    def finished(self) -> bool:
        return self.state in states.FINISHED

    @property
    def claimable(self) -> bool:
        return self.state in states.CLAIMABLE and self.due_in <= 0

    @property
    def has_place(self) -> bool:
        return self.limited and self.state in (states.PENDING, states.STARTED)

    def end(self, state: str, result: str | None = None, *, kept: bool = True) -> None:
        """No move leads out of this."""
        assert not self.finished
        self.state, self.result, self.kept, self.holder = state, result, kept, None

    def back(self, state: str = states.PENDING) -> None:
        """Nobody has it any more. The next attempt of what is limited has to be let through like the first."""
        self.state, self.holder, self.begun = state, None, False
        if self.limited and state == states.RETRY:
            self.state = states.LIMITED

    def lose(self, *, charged: bool) -> None:
        """Its worker is gone."""
        if self.revoked:
            self.end(states.REVOKED)
        elif charged and (self.at_most_once or self.losses + 1 >= MAX_LOSSES):
            self.end(states.FAILURE)
        else:
            self.losses += charged
            self.back()


class Life(RuleBasedStateMachine):
    """Moves in any order. ``deliveries`` and ``workers`` are never forgotten: each may come back as a zombie."""

    bench: ClassVar[DatabaseBench]

    def __init__(self) -> None:
        super().__init__()
        for model in (Task, TaskResult, Worker):
            model.objects.all().delete()
        self.bench.limit("task", LIMITED, concurrency=PLACES)
        self.broker = self.bench.new_broker()
        self.fates: dict[str, Fate] = {}
        self.deliveries: list[Delivery] = []
        self.workers: list[Holder] = []
        #: Seconds since the last heartbeat of those that have a lease.
        self.silent: dict[int, int] = {}
        self.count = 0

    def teardown(self) -> None:
        """Let everybody die, and one new worker do what is left: then each task must have had exactly one fate."""
        try:
            self.bench.let_pass(9_000)
            self.silent.clear()
            for fate in self.fates.values():
                fate.due_in -= 9_000
            self.rescue()
            self.adopt()
            self.start_a_worker()
            holder = self.workers[-1]
            while any(not fate.finished for fate in self.fates.values()):
                self.admit()
                found = self.claim_with(holder, limit=50)
                assert found, "something waits for ever"
                for delivery in found:
                    self.hand_in(delivery, Outcome(delivery.id, delivery.attempt, states.SUCCESS))
            self.both_tables_tell_what_must_be()
            assert all(fate.finished for fate in self.fates.values())
        finally:
            self.broker.close()

    @initialize(
        at_most_once=st.lists(st.booleans(), min_size=2, max_size=4),
        limited=st.integers(0, 4),
        claimed=st.integers(0, 3),
    )
    def begin_with_some_work(self, at_most_once: list[bool], claimed: int, limited: int) -> None:
        """Hypothesis leaves rules out of most runs, and without work nothing happens."""
        self.start_a_worker()
        self.start_a_worker()
        for once in at_most_once:
            self.send(queue="a", priority=0, delay=0, at_most_once=once, limited=False, count=1)
        if limited:
            self.send(queue="a", priority=0, delay=0, at_most_once=False, limited=True, count=limited)
            self.admit()
        if claimed:
            self.claim_with(self.workers[0], limit=claimed)

    # Hypothesis leaves rules out of many runs and tries all of them equally: so few of them, each for one kind of move.

    @rule(
        queue=st.sampled_from("ab"), priority=st.integers(-1, 1), delay=DELAYS, at_most_once=st.booleans(),
        limited=st.booleans(), count=st.integers(1, 3),
    )  # fmt: skip
    def send(self, queue: str, priority: int, delay: int, at_most_once: bool, limited: bool, count: int) -> None:
        kind: dict[str, Any] = {"name": LIMITED, "limit_key": ""} if limited else {}
        call: dict[str, Any] = {"queue": queue, "priority": priority, "delay": delay, "at_most_once": at_most_once}
        messages = [a_message(**kind, **call) for _ in range(count)]
        again = [a_message(id=id_, queue="b", delay=5_000) for id_, fate in self.fates.items() if not fate.finished]
        self.broker.publish([*messages, *again[:1]])
        for message in messages:
            self.fates[message.id] = Fate(queue, priority, delay, at_most_once, limited)
            if limited:
                self.fates[message.id].state = states.LIMITED

    @rule(data=st.data(), limit=st.integers(1, 5))
    def claim(self, data: st.DataObject, limit: int) -> None:
        self.claim_with(self.draw(data, self.workers), limit)

    def claim_with(self, holder: Holder, limit: int) -> list[Delivery]:
        due = {id_ for id_, fate in self.fates.items() if fate.claimable}
        found = self.broker.step([], holder=holder, queues=QUEUES, limit=limit).deliveries
        taken = {one.id for one in found}
        assert len(taken) == len(found) == min(limit, len(due))
        assert taken <= due
        for delivery in found:
            fate = self.fates[delivery.id]
            assert delivery.attempt == fate.attempt + 1
            assert (delivery.losses, delivery.at_most_once) == (fate.losses, fate.at_most_once)
            left = [self.fates[id_].priority for id_ in due - taken if self.fates[id_].queue == fate.queue]
            assert fate.priority >= max(left, default=fate.priority)
        for delivery in found:
            fate = self.fates[delivery.id]
            fate.state, fate.attempt, fate.holder = states.STARTED, delivery.attempt, holder
        self.deliveries += found
        return found

    @precondition(lambda self: self.deliveries)
    @rule(
        data=st.data(),
        how=st.sampled_from(["SUCCESS", "FAILURE", "not kept", "RETRY", "PENDING", "UNROUTABLE"]),
        delay=DELAYS,
    )
    def an_attempt_ends(self, data: st.DataObject, how: str, delay: int) -> None:
        delivery = self.draw(data, self.deliveries, self.owned)
        if how in states.UNFINISHED:
            self.hand_in(delivery, Return(delivery.id, delivery.attempt, how, delay=delay))
        else:
            self.count += 1
            state = states.SUCCESS if how == "not kept" else how
            self.hand_in(delivery, Outcome(delivery.id, delivery.attempt, state, str(self.count), keep=state == how))

    def hand_in(self, delivery: Delivery, done: Outcome | Return) -> None:
        """An attempt that is not the owner any more changes nothing."""
        refused = self.broker.step([done], holder=self.workers[0]).refused
        assert refused == (set() if self.owned(delivery) else {delivery.id})
        if not self.owned(delivery):
            return
        fate = self.fates[delivery.id]
        if isinstance(done, Outcome):
            fate.end(done.state, done.result, kept=done.keep)
        elif fate.revoked:
            fate.end(states.REVOKED)
        else:
            fate.due_in = int(done.delay or 0)
            fate.back(done.state)

    @precondition(lambda self: self.fates)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        task_id = self.draw(data, sorted(self.fates), lambda id_: self.fates[id_].state == states.STARTED)
        fate = self.fates[task_id]
        assert self.broker.revoke([task_id]) == (0 if fate.finished else 1)
        if fate.state == states.STARTED:
            fate.revoked = True
        elif not fate.finished:
            fate.attempt += 1
            fate.end(states.REVOKED)

    @rule(ticks=st.integers(1, 4), data=st.data())
    def time_passes(self, ticks: int, data: st.DataObject) -> None:
        """Some workers are alive and renew their leases at the end of it."""
        self.bench.let_pass(ticks * TICK)
        for worker in self.silent:
            self.silent[worker] += ticks * TICK
        for fate in self.fates.values():
            fate.due_in -= ticks * TICK
            fate.age += ticks * TICK if fate.finished else 0
        for holder in data.draw(st.lists(st.sampled_from(self.workers), max_size=2)):
            assert self.broker.renew(holder.worker, processed=1) == (holder.worker in self.silent)
            if holder.worker in self.silent:
                self.silent[holder.worker] = 0

    @rule()
    def rescue(self) -> None:
        gone = {worker for worker, seconds in self.silent.items() if seconds > LEASE}
        for worker in gone:
            del self.silent[worker]
        lost = [fate for fate in self.fates.values() if fate.holder and fate.holder.worker not in self.silent]
        assert self.broker.rescue(max_losses=MAX_LOSSES) == len(lost)
        for fate in lost:
            fate.lose(charged=fate.begun or fate.losses == 0)

    @rule(data=st.data(), how=st.sampled_from(["a slot dies", "given back", "unregistered"]))
    def claims_are_taken_back(self, data: st.DataObject, how: str) -> None:
        holder = self.draw(data, self.workers, self.holds)
        mine = sorted(id_ for id_, fate in self.fates.items() if fate.holder == holder)
        running = set(data.draw(st.lists(st.sampled_from(mine), max_size=2)) if mine else [])
        if how == "a slot dies":
            assert self.broker.lose(holder, running, max_losses=MAX_LOSSES, reason="it died") == len(mine)
            for id_ in mine:
                self.fates[id_].lose(charged=id_ in running)
        elif how == "given back":
            asked = [*running, *(id_ for id_ in self.fates if id_ not in mine)]
            assert self.broker.give_back(holder, asked) == len(running)
            for id_ in running:
                self.fates[id_].lose(charged=False)
        else:
            self.broker.unregister(holder.worker)
            self.silent.pop(holder.worker, None)
            for fate in self.fates.values():
                if fate.holder and fate.holder.worker == holder.worker:
                    fate.lose(charged=False)

    @rule()
    def admit(self) -> None:
        """The gatekeeper gives free places to the best that are due, and takes back those that nobody can use."""
        held = {id_: fate for id_, fate in self.fates.items() if fate.state == states.LIMITED}
        heads = {(fate.queue, fate.priority) for fate in held.values() if fate.due_in <= 0}
        if heads and all(seconds > LEASE for seconds in self.silent.values()):  # no worker is there
            for id_, fate in self.fates.items():
                if fate.has_place and fate.state == states.PENDING:
                    fate.state = states.LIMITED
                    held[id_] = fate
        due = {id_ for id_, fate in held.items() if fate.due_in <= 0 and (fate.queue, fate.priority) in heads}
        count = min(len(due), PLACES - sum(fate.has_place for fate in self.fates.values()))
        assert self.broker.admit(QUEUES, free=1).admitted == count
        chosen = {str(pk) for pk in Task.objects.filter(pk__in=due, state=states.PENDING).values_list("pk", flat=True)}
        assert len(chosen) == count
        left = [self.fates[id_].priority for id_ in due - chosen]
        for id_ in chosen:
            assert self.fates[id_].priority >= max(left, default=self.fates[id_].priority)
            self.fates[id_].state = states.PENDING

    @rule(data=st.data(), what=st.sampled_from(["a new worker", "a body begins", "adopt", "prune"]))
    def something_else_happens(self, data: st.DataObject, what: str) -> None:
        if what == "a new worker":
            self.start_a_worker()
        elif what == "a body begins" and self.deliveries:
            delivery = self.draw(data, self.deliveries, self.owned)
            self.broker.mark_started({(delivery.id, delivery.attempt): 0.0})
            if self.owned(delivery):
                self.fates[delivery.id].begun = True
        elif what == "adopt":
            self.adopt()
        else:
            old = [fate for fate in self.fates.values() if fate.finished and fate.kept and fate.age > TICK / 2]
            ages = {state: timedelta(seconds=TICK / 2) for state in states.FINISHED}
            assert self.broker.prune(ages, batch=2) == len(old)
            for fate in old:
                fate.kept = False

    def start_a_worker(self) -> None:
        holder = a_worker(self.broker, lease=LEASE, slot=len(self.workers) % 2)
        self.workers.append(holder)
        self.silent[holder.worker] = 0

    def adopt(self) -> None:
        aside = [fate for fate in self.fates.values() if fate.state == states.UNROUTABLE]
        assert self.broker.adopt(["tests.noop", LIMITED]) == len(aside)
        for fate in aside:
            fate.back(states.LIMITED if fate.limited else states.PENDING)

    # What must be

    @invariant()
    def both_tables_tell_what_must_be(self) -> None:
        """Each accepted task is in exactly one place, as it must be there; what is finished never changes."""
        columns = ("state", "attempt", "losses", "worker_id", "slot")
        waiting = {str(row[0]): row[1:] for row in Task.objects.values_list("pk", *columns)}
        done = {str(row[0]): row[1:] for row in TaskResult.objects.values_list("pk", "state", "attempt")}
        results = {str(pk): result for pk, result in TaskResult.objects.values_list("pk", "result")}
        fates = self.fates.items()
        assert waiting == {
            id_: (fate.state, fate.attempt, fate.losses, *(fate.holder[:2] if fate.holder else (None, None)))
            for id_, fate in fates
            if not fate.finished
        }
        assert done == {id_: (fate.state, fate.attempt) for id_, fate in fates if fate.finished and fate.kept}
        for id_, result in results.items():
            assert self.fates[id_].result in (None, result)

    @invariant()
    def a_limit_is_never_exceeded(self) -> None:
        places = Task.objects.filter(limit_key__isnull=False, state__in=[states.PENDING, states.STARTED])
        assert places.count() <= PLACES

    # Helpers

    def owned(self, delivery: Delivery) -> bool:
        fate = self.fates[delivery.id]
        return fate.state == states.STARTED and fate.attempt == delivery.attempt

    def draw(self, data: st.DataObject, choices: list[Any], telling: Callable[[Any], bool] | None = None) -> Any:
        """Choose one; mostly one of those where something is going on."""
        busy = [one for one in choices if telling is not None and telling(one)]
        mostly: int = data.draw(st.integers(0, 3))
        if busy and mostly:
            choices = busy
        back: int = data.draw(st.integers(1, len(choices)))
        return choices[-back]

    def holds(self, holder: Holder) -> bool:
        return any(fate.holder == holder for fate in self.fates.values())


@pytest.mark.timeout(900)  # a failure takes its time to be made small
@pytest.mark.databases("sqlite")
def test_every_task_has_exactly_one_fate_whatever_happens(bench: DatabaseBench) -> None:
    """R1, R2, R4, R5, R12, R14, R29, R32: in any order of claims, ends, crashes, rescues and zombies."""
    machine = type("LifeHere", (Life,), {"bench": bench})
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=slow),
    )
