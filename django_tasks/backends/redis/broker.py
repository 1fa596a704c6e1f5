"""The Redis broker: rows and results as with the database broker, while Redis says what waits and who runs it.

A task has a row as long as it is not done, unless it was sent with ``durable=False``. The row is written in the caller's
transaction and published when that commits; :mod:`.sweeper` publishes what a crash kept back, or Redis has forgotten.
:mod:`.ledger` tells why each task is finished once, :mod:`.rows` what becomes of its row.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from django.db import connections, transaction

from ... import addresses, exceptions, states
from ...conf import settings
from ...ids import dashed
from .. import stores
from ..base import Held, Queues, ResultWaker, Waker, WorkerInfo
from ..control import Line, Seen
from ..database.arrivals import TAG
from ..database.broker import MANY, UNSTORABLE, WITHHOLDINGS, DatabaseBroker, _failure, _revoked, _unstorable
from ..database.dialect import LIMITED, RESULT, TASK, WORKER, rules_of
from ..database.plan import ROTATION, SURVEY_EVERY
from ..database.workflow import Released
from ..message import Admission, Delivery, Edge, Holder, Message, Outcome, Return, Stepped, Survey
from . import wire
from .leases import FRESH, HELD, Leases, Move, Place, Proof, Taken
from .ledger import Written, ledger_of
from .rows import Row, Rows, message_of
from .server import Server
from .sweeper import Sweeper
from .wakers import RedisCaller, RedisLine, RedisWaker
from .workflow import RedisWorkflows

logger = logging.getLogger(__name__)

#: What may be lost: a row, or the message of a task that has none.
_Lost = Row | Place


class Claim(NamedTuple):
    """What this process holds, as far as it knows."""

    queue: str
    worker: int
    attempt: int
    durable: bool
    #: Of a task that has no row: what its line in the ledger is written from.
    delivery: Delivery | None = None
    published: float = 0.0
    expires_at: float | None = None


class RedisBroker(DatabaseBroker):
    """Redis or Valkey in front of the site's own database."""

    def __init__(self, alias: str = "default", url: str | None = None) -> None:
        super().__init__(alias)
        self.server = Server(addresses.parse(url or settings.BROKER_URL), settings.BROKER_CONNECTION_TIMEOUT)
        self.leases = Leases(self.server)
        self.rows = Rows(self.engine)
        self.ledger = ledger_of(self.engine)
        self._workflows = RedisWorkflows(alias, self.ledger, self._arrivals)
        self.sweeper = Sweeper(self.leases, self.rows, self._take_back_rows)
        self._claims: dict[str, Claim] = {}
        #: What the database has stored, and Redis has not heard of yet, by queue.
        self._unheard: dict[str, dict[str, Proof]] = {}
        #: The last start of a worker in this process, and its lease in seconds.
        self._worker = 0
        self._lease = 0.0
        self._consumed = Queues()
        self._mark = ""
        self._turn = 0
        self._waker: RedisWaker | None = None

    @property
    def generation(self) -> int:
        return self.engine.generation + self.server.generation

    # Sending

    def publish(self, messages: Sequence[Message]) -> None:
        durable = [one for one in messages if one.durable]
        volatile = [one for one in messages if not one.durable]
        for one in volatile:
            _refuse_to_forget(one)
        inside = connections[self.alias].in_atomic_block
        if durable:
            super().publish(durable)
            if inside:
                transaction.on_commit(partial(self._announce, durable), using=self.alias)
            else:
                self._announce(durable)
        if volatile and inside:
            transaction.on_commit(partial(self._send, volatile), using=self.alias)
        elif volatile:
            self._send(volatile)

    def publish_workflow(self, messages: Sequence[Message], edges: Sequence[Edge]) -> None:
        super().publish_workflow(messages, edges)
        self._announce_on_commit(messages)

    def extend_chord(self, body: str, messages: Sequence[Message], edges: Sequence[Edge], value: Any) -> bool:
        extended = super().extend_chord(body, messages, edges, value)
        if extended:
            self._announce_on_commit(messages)
        return extended

    def _announce_on_commit(self, messages: Sequence[Message]) -> None:
        ready = [one for one in messages if not one.waiting]
        if ready:
            transaction.on_commit(partial(self._announce, ready), using=self.alias)

    def _announce(self, messages: Sequence[Message]) -> None:
        """Publish what is committed; when Redis is away, a sweeper does so later."""
        try:
            plain = [one for one in messages if one.limit_key is None and one.unique is None]
            self._publish(plain, wire.DURABLE)
            if unique := {one.id: one.conflict for one in messages if one.unique is not None}:
                self._publish_unique(unique)
        except exceptions.OperationalError as error:
            logger.warning("%s. %d tasks are published later", error, len(messages))

    def _send(self, messages: Sequence[Message]) -> None:
        self._publish(messages, wire.VOLATILE)

    def _publish(self, messages: Sequence[Message], kind: str) -> None:
        if messages:
            self.leases.publish([(one, wire.entry_of(one, kind), _due(one)) for one in messages], "new", avoid=True)

    def _publish_unique(self, ids: Mapping[str, bool]) -> None:
        """Publish calls as their rows say: their time is not the callers', and another call may have taken the place of
        one that waits, perhaps in another queue."""
        rows = [row for row in self.rows.read(ids).values() if row.leasable]
        for row in rows:
            for queue in self.leases.names(fresh=True) if ids[row.id] else ():
                if queue != row.queue:
                    self.leases.remove(queue, [row.id])
        self.publish_rows(rows, "renew")

    def publish_rows(self, rows: Iterable[Row], mode: str = "sweep") -> int:
        """Let tasks wait as their rows say."""
        return self.sweeper.publish(rows, mode)

    def _release(self, released: Sequence[Released]) -> None:
        """Publish what waits for nothing any more, now that this is committed."""
        if not released:
            return
        rows = [row for row in self.rows.read([one.id for one in released]).values() if row.leasable]
        entries = [(message_of(row), self.sweeper.entry(row, swept=False), f"+{row.due_in:.6f}") for row in rows]
        try:
            self.leases.publish(entries, "new", avoid=True)
        except exceptions.OperationalError as error:
            logger.warning("%s. %d tasks are published later", error, len(entries))

    def _release_on_commit(self, released: Sequence[Released]) -> None:
        transaction.on_commit(partial(self._release, released), using=self.alias)

    def wake(self) -> None:
        """What is woken for is let through by limits, and published then."""

    # The step

    def step(
        self,
        done: Sequence[Outcome | Return],
        *,
        holder: Holder,
        queues: Queues = Queues(),  # noqa: B008 - immutable
        limit: int = 0,
        unknown: Sequence[str] = (),
    ) -> Stepped:
        refused = self._store(done, holder) if done else set()
        if not limit:
            self._exchange([], holder, 0, ())
            return Stepped([], frozenset(refused))
        claimed = self._claim(queues, holder, limit, unknown)
        if claimed and self._rules.age > SURVEY_EVERY:  # they may have been changed since
            self._rules = rules_of(self.engine.query(self.dialect.rules_sql()))
        if self._rules and claimed:
            claimed = self._hold_back(claimed, holder, queues, limit, unknown)
        return Stepped(claimed, frozenset(refused))

    def _claim(self, queues: Queues, holder: Holder, limit: int, unknown: Sequence[str]) -> list[Delivery]:
        names = self._in_turn(self.leases.of(queues))
        claimed = self._exchange(names, holder, limit, unknown)
        if len(claimed) < limit and not queues.names and self.leases.age > FRESH:
            new = [name for name in self.leases.of(queues, fresh=True) if name not in names]
            if new := [name for name in new if name not in self._rules.paused_queues()]:
                claimed += self._exchange(new, holder, limit - len(claimed), unknown)
        return claimed

    def _in_turn(self, names: Sequence[str]) -> list[str]:
        """Return queues in the order of this claim: now and then another one is the first, so that a backlog does not
        stop the others."""
        paused = self._rules.paused_queues()
        order = [name for name in names if name not in paused] if paused else list(names)
        self._turn += 1
        if len(order) < 2 or self._turn % ROTATION:
            return order
        start = (self._turn // ROTATION) % len(order)
        return order[start:] + order[:start]

    def _exchange(self, names: Sequence[str], holder: Holder, limit: int, unknown: Sequence[str]) -> list[Delivery]:
        """Tell Redis what ended, and take what is due."""
        unheard, self._unheard = self._unheard, {}
        if not unheard and not names:
            return []
        proofs = {queue: list(some.values()) for queue, some in unheard.items()}
        try:
            now, taken, with_row = self.leases.step(
                proofs, names, worker=holder.worker, slot=holder.slot, limit=limit, unknown=unknown
            )
        except BaseException:
            for queue, some in unheard.items():
                self._unheard.setdefault(queue, {}).update(some)
            raise
        for queue, some in unheard.items():
            for task_id in some:
                self._claims.pop(task_id, None)
            self._drop_rows([one for one in with_row if one in some], {one.id: one.attempt for one in proofs[queue]})
        deliveries = [self._delivery(one, holder, now) for one in taken]
        asked = [one for one in taken if one.stopped or wire.TRACKED in one.entry.flags]
        return self._ask(asked, deliveries, holder) if asked else deliveries

    def _delivery(self, one: Taken, holder: Holder, now: float) -> Delivery:
        found = one.entry.delivery(one.id, one.queue, one.due, now, one.attempt)
        if wire.DURABLE in one.entry.flags:
            self._claims[one.id] = Claim(one.queue, holder.worker, one.attempt, True)
        else:
            about = (found, one.entry.published, one.entry.expires_at)
            self._claims[one.id] = Claim(one.queue, holder.worker, one.attempt, False, *about)
        return found

    def _ask(self, asked: Sequence[Taken], deliveries: list[Delivery], holder: Holder) -> list[Delivery]:
        """Ask the database whether these may start, and how."""
        tracked = {one.id: one.attempt for one in asked if wire.TRACKED in one.entry.flags}
        rows = self.rows.take(tracked, holder.worker, holder.slot) if tracked else {}
        others = [one for one in asked if one.id not in tracked]
        known = self.rows.read([one.id for one in others if wire.DURABLE in one.entry.flags])
        rows |= {key: row for key, row in known.items() if row.leasable and not row.revoked}
        ended = self._ended([one.id for one in others if wire.DURABLE not in one.entry.flags])
        places = {one.id: one for one in asked}
        found = []
        for delivery in deliveries:
            place = places.get(delivery.id)
            if place is None:
                found.append(delivery)
            elif wire.DURABLE not in place.entry.flags:
                if delivery.id in ended:
                    self._settle(place.queue, holder.worker, [Move(place.id, place.attempt, "drop")])
                else:
                    found.append(delivery)
            elif (row := rows.get(delivery.id)) is not None and row.queue == place.queue:
                found.append(row.delivery(delivery.attempt, delivery.due))
            else:
                self._correct(place.queue, holder.worker, {place.id: place.attempt})
        return found

    def _ended(self, ids: Sequence[str]) -> set[str]:
        """Return which of these are in the ledger."""
        if not ids:
            return set()
        marks = ", ".join([self.dialect.uuid] * len(ids))
        rows = self.engine.query(f"SELECT id FROM {RESULT} WHERE id IN ({marks})", [self._key(one) for one in ids])
        return {dashed(row[0]) for row in rows}

    def _hold_back(
        self, deliveries: list[Delivery], holder: Holder, queues: Queues, limit: int, unknown: Sequence[str]
    ) -> list[Delivery]:
        """Put aside what may not start; return the rest, or what is found behind it."""
        for _ in range(WITHHOLDINGS):
            held = [one for one in deliveries if self._rules.hold(one)]
            free = [one for one in deliveries if not self._rules.hold(one)] if held else deliveries
            self._put_aside(holder, [one.id for one in held])
            for one in free:
                one.watched = one.limit_key is not None and self._rules.watch(one)
            if free or not held:
                return free
            deliveries = self._claim(queues, holder, limit, unknown)
        self._put_aside(holder, [one.id for one in deliveries if self._rules.hold(one)])
        return [one for one in deliveries if not self._rules.hold(one)]

    def _put_aside(self, holder: Holder, ids: Sequence[str]) -> None:
        """Turn claims into tasks that wait to be let through; those revoked meanwhile end."""
        mine = {one: self._claims[one] for one in ids if one in self._claims}
        forgetful = {one: claim for one, claim in mine.items() if not claim.durable}
        self._give_rows(forgetful, states.LIMITED)
        durable = {one: claim for one, claim in mine.items() if claim.durable}
        for queue, some in _by_queue(durable).items():
            ended = self.rows.give_back(some, state=states.LIMITED)
            self._end_revoked({one: attempt for one, attempt in some.items() if one not in ended}, holder)
            self._correct(queue, holder.worker, some)

    # What became of claims

    def _store(self, done: Sequence[Outcome | Return], holder: Holder) -> set[str]:
        """Store what ended; return the ids of what had no right to."""
        stores.keep(one for one in done if isinstance(one, Outcome))
        claims: dict[str, Claim] = {}
        strange = []
        for one in done:
            claim = self._claims.get(one.id)
            if claim is not None and claim.attempt == one.attempt:
                claims[one.id] = claim
            else:
                strange.append(one)
        if strange:
            claims |= self._find(strange)
        self._learn_of_rows(claims)
        refused: set[str] = set()
        outcomes = [one for one in done if isinstance(one, Outcome)]
        if outcomes:
            kept = [one for one in outcomes if one.id not in claims or claims[one.id].durable]
            rest = [one for one in outcomes if one.id in claims and not claims[one.id].durable]
            refused |= self._finish(kept, claims, holder) if kept else set()
            refused |= self._write(rest, claims, holder) if rest else set()
        for one in done:
            if isinstance(one, Return):
                claim = claims.get(one.id)
                come_back = self._come_back if claim is None or claim.durable else self._come_back_without_row
                if not come_back(one, claim, holder):
                    refused.add(one.id)
        return refused

    def _find(self, done: Sequence[Outcome | Return]) -> dict[str, Claim]:
        """Return what Redis says of claims that another process made, or that are none any more."""
        attempts = {one.id: one.attempt for one in done}
        return {
            task_id: _claim_of(place)
            for task_id, place in self.leases.look(list(attempts)).items()
            if place.lease is not None and place.lease.attempt == attempts[task_id]
        }

    def _learn_of_rows(self, claims: dict[str, Claim]) -> None:
        """A task that takes long is given a row by whoever sees that; and who has no row must still have its lease."""
        forgetful: dict[tuple[str, int], dict[str, int]] = {}
        for task_id, claim in claims.items():
            if not claim.durable:
                forgetful.setdefault((claim.queue, claim.worker), {})[task_id] = claim.attempt
        for (queue, worker), attempts in forgetful.items():
            lost, with_row = self.leases.check(queue, worker, attempts)
            for task_id in lost:
                claims[task_id] = claims[task_id]._replace(attempt=0)
            for task_id in with_row:
                claims[task_id] = claims[task_id]._replace(durable=True)

    def _finish(self, outcomes: Sequence[Outcome], claims: Mapping[str, Claim], holder: Holder) -> set[str]:
        """Move rows to the ledger; return the ids of those that were not theirs to move."""
        stored = {one.id for one in outcomes if one.id in claims and self._has_stored(claims[one.id].queue, one)}
        outcomes = [one for one in outcomes if one.id not in stored]
        if not outcomes:
            return set()
        try:
            refused = self._move(outcomes, holder.name)
        except UNSTORABLE:
            refused = set()
            for one in outcomes:
                try:
                    refused |= self._move([one], holder.name)
                except UNSTORABLE as error:
                    refused |= self._move([_unstorable(one, error)], holder.name)
        mine = [one for one in outcomes if one.id not in refused]
        if gone := [self._key(one.id) for one in mine if one.tagged and not one.keep]:
            self._forget_tags(gone)
        for one in mine:
            if (claim := claims.get(one.id)) is not None:
                self._unheard.setdefault(claim.queue, {})[one.id] = Proof(one.id, one.attempt, "1")
        for one in outcomes:
            if one.id in refused:
                self._let_go(one.id, one.attempt, claims.get(one.id))
        return refused

    def _move(self, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        """Move rows to the ledger, with what follows from that for others; return the ids of those that were not theirs
        to move."""
        refused: set[str] = set()
        if plain := [one for one in outcomes if not one.linked]:
            refused |= self.ledger.move(plain, worker)
        if linked := [one for one in outcomes if one.linked]:
            told = self.engine.transaction(lambda cursor: self._workflows.finish(cursor, linked, worker))
            refused |= told.refused
            self._release(told.released)
        return refused

    def _has_stored(self, queue: str, one: Outcome) -> bool:
        proof = self._unheard.get(queue, {}).get(one.id)
        return proof is not None and proof.attempt == one.attempt

    def _write(self, outcomes: Sequence[Outcome], claims: Mapping[str, Claim], holder: Holder) -> set[str]:
        """Write the ledger's lines of tasks without a row; return the ids of those that have lost their lease."""
        refused = {one.id for one in outcomes if claims[one.id].attempt != one.attempt}
        outcomes = [one for one in outcomes if one.id not in refused]
        now = self.leases.now() if any(one.keep for one in outcomes) else 0.0
        written = [_written(one, claims[one.id], now) for one in outcomes if one.keep]
        if written:
            try:
                self.ledger.write(written, holder.name)
            except UNSTORABLE:
                for each in written:
                    try:
                        self.ledger.write([each], holder.name)
                    except UNSTORABLE as error:
                        failed = each._replace(outcome=_unstorable(each.outcome, error))
                        self.ledger.write([failed], holder.name)
        for one in outcomes:
            self._unheard.setdefault(claims[one.id].queue, {})[one.id] = Proof(one.id, one.attempt, "v")
        for task_id in refused:
            self._claims.pop(task_id, None)
        return refused

    def _let_go(self, task_id: str, attempt: int, claim: Claim | None) -> None:
        """This attempt has no say any more: let Redis see it, too."""
        self._claims.pop(task_id, None)
        if claim is not None:
            self._correct(claim.queue, claim.worker, {task_id: attempt})

    def _come_back(self, one: Return, claim: Claim | None, holder: Holder) -> bool:
        """End an attempt of a task that has a row, with the task to run again."""
        if one.replacement is not None:
            return self._replace_claim(one, claim, holder)
        try:
            back = self.rows.come_back(one)
        except UNSTORABLE as error:
            refused = self._finish([_unstorable(one, error)], {one.id: claim} if claim else {}, holder)
            return one.id not in refused
        if not back and self._end_revoked({one.id: one.attempt}, holder):
            back = True
        if claim is not None:
            due = {} if not back or (one.delay is None and one.eta is None) else {one.id: _due_again(one)}
            self._correct(claim.queue, claim.worker, {one.id: one.attempt}, due)
        return back

    def _replace_claim(self, one: Return, claim: Claim | None, holder: Holder) -> bool:
        """End an attempt with other tasks in its place."""
        new = one.replacement
        assert new is not None  # noqa: S101 - the caller asked
        replaced = self._replace(one)
        if replaced:
            self._announce([each for each in new.others if not each.waiting])
        elif self._end_revoked({one.id: one.attempt}, holder):
            replaced = True
        if claim is not None:
            self._correct(claim.queue, claim.worker, {one.id: one.attempt}, {one.id: _due(new.own)})
        return replaced

    def replace_within(self, one: Return) -> bool:
        new, claim = one.replacement, self._claims.get(one.id)
        assert new is not None  # noqa: S101 - the caller made it so
        if not super().replace_within(one):
            return False
        self._announce_on_commit(new.others)
        if claim is not None:
            held, due = {one.id: one.attempt}, {one.id: _due(new.own)}
            transaction.on_commit(partial(self._correct, claim.queue, claim.worker, held, due), using=self.alias)
        return True

    def _come_back_without_row(self, one: Return, claim: Claim | None, holder: Holder) -> bool:
        """The same for one that has none: what it brings along is written into its message."""
        if claim is None or claim.attempt != one.attempt or claim.delivery is None:
            self._claims.pop(one.id, None)
            return False
        call = _changed(claim.delivery, one)
        if one.state == states.UNROUTABLE:  # which may take long
            self._give_rows({one.id: claim._replace(delivery=call)}, states.UNROUTABLE)
            return True
        flags = wire.VOLATILE + wire.RETRIED if one.state == states.RETRY else wire.VOLATILE
        try:
            entry = wire.entry_of_delivery(call, flags, attempt=one.attempt, expires_at=claim.expires_at)
        except UNSTORABLE as error:
            return not self._write([_unstorable(one, error)], {one.id: claim}, holder)
        due = "" if one.delay is None and one.eta is None else _due_again(one)
        if call.queue != claim.queue:
            message = Message(one.id, call.name, call.queue, call.body, call.priority)
            self.leases.publish([(message, entry, due or repr(call.due))], "sweep")
            move = Move(one.id, one.attempt, "drop")
        else:
            move = Move(one.id, one.attempt, "put", str(call.priority), due, entry)
        return bool(self._settle(claim.queue, claim.worker, [move]))

    def _end_revoked(self, held: Mapping[str, int], holder: Holder) -> set[str]:
        """End those of these attempts that were revoked and are still the ones; return their ids."""
        rows = self.rows.read(held) if held else {}
        cancelled = {row.id for row in rows.values() if row.revoked and row.ended == held[row.id] - 1}
        if not cancelled:
            return set()
        return cancelled - self._move([_revoked(one, held[one]) for one in sorted(cancelled)], holder.name)

    def _correct(
        self, queue: str, worker: int, held: Mapping[str, int], due: Mapping[str, str] | None = None
    ) -> set[str]:
        """Let Redis see what the rows say of these leases; return the ids of those that ended there."""
        rows = self.rows.read(held)
        moves = []
        for task_id, attempt in held.items():
            row = rows.get(task_id)
            moment = (due or {}).get(task_id, "")
            if row is None or not row.leasable:
                moves.append(Move(task_id, attempt, "drop"))
            elif row.queue != queue:
                self.publish_rows([row])
                moves.append(Move(task_id, attempt, "drop"))
            elif row.ended != attempt - 1:
                entry = self.sweeper.entry(row, swept=False)
                moves.append(Move(task_id, attempt, "put", str(row.priority), moment, entry))
        return self._settle(queue, worker, moves)

    def _settle(self, queue: str, worker: int, moves: Sequence[Move]) -> set[str]:
        for one in moves:
            self._claims.pop(one.id, None)
        return self.leases.settle(queue, worker, moves) if moves else set()

    def _give_rows(self, claims: Mapping[str, Claim], state: str) -> None:
        """Turn tasks without a row into such that have one, and wait there."""
        calls = {one: claim for one, claim in claims.items() if claim.delivery is not None}
        if not calls:
            return
        self._keep_rows(calls, state)
        for queue, some in _by_queue(calls).items():
            workers = {calls[one].worker for one in some}
            for worker in workers:
                self._settle(
                    queue, worker, [Move(one, some[one], "drop") for one in some if calls[one].worker == worker]
                )

    def _keep_rows(self, claims: Mapping[str, Claim], state: str) -> None:
        now = self.leases.now()
        calls, ages = [], {}
        for task_id, claim in claims.items():
            assert claim.delivery is not None  # noqa: S101 - the callers look
            calls.append(replace(claim.delivery, attempt=claim.attempt))
            ages[task_id] = (claim.delivery.due - now, None if claim.expires_at is None else claim.expires_at - now)
        self.rows.keep(calls, state, ages=ages)

    def _drop_rows(self, ids: Sequence[str], attempts: Mapping[str, int]) -> None:
        """They were given a row in the very moment in which they ended."""
        if ids:
            self.ledger.move([Outcome(one, attempts[one], states.SUCCESS, keep=False) for one in ids], "")

    def finish_within(self, outcome: Outcome, worker: str) -> bool:
        """Store one outcome in the transaction that is open on the caller's own connection; False if refused."""
        stores.keep([outcome])
        claim = self._claims.get(outcome.id)
        if claim is None or claim.attempt != outcome.attempt:
            return False
        claims = {outcome.id: claim}
        self._learn_of_rows(claims)
        claim = claims[outcome.id]
        with connections[self.alias].cursor() as cursor:
            if claim.durable:
                if not outcome.linked:
                    refused = self.ledger.move_within(cursor, [outcome], worker)
                else:
                    refused, _, released = self._workflows.finish(cursor, [outcome], worker)
                    self._release_on_commit(released)
                if refused:
                    return False
                if outcome.tagged and not outcome.keep:
                    cursor.execute(f"DELETE FROM {TAG} WHERE task_id = {self.dialect.uuid}", [self._key(outcome.id)])
            elif claim.attempt != outcome.attempt:
                return False
            elif outcome.keep:
                self.ledger.write_within(cursor, [_written(outcome, claim, self.leases.now())], worker)
        proof = Proof(outcome.id, outcome.attempt, "1" if claim.durable else "v")
        transaction.on_commit(
            lambda: self._unheard.setdefault(claim.queue, {}).update({outcome.id: proof}), using=self.alias
        )
        return True

    # Looking

    def survey(self, queues: Queues) -> Survey:
        self._rules = rules_of(self.engine.query(self.dialect.rules_sql()))
        self._limited = bool(self.engine.query(LIMITED))
        paused = self._rules.paused_queues()
        first, later = self.leases.survey(queues, paused)
        waits = [] if later is None else [later]
        waits += [left for queue, left in paused.items() if left < math.inf and queues.includes(queue)]
        return Survey(first is not None and first <= 0, min(waits, default=None), self._limited)

    def admit(self, queues: Queues, *, free: int = 1) -> Admission:
        done = super().admit(queues, free=free)
        if done.admitted:
            self.publish_rows(row for row in self.rows.read(self._gate.let_through).values() if row.leasable)
        return done

    def unblock(self) -> int:
        count, told = self._workflows.sweep(self.engine)
        self._release(told.released)
        return count

    def sweep(self) -> float:
        """Publish what a crash kept back, or Redis has forgotten; return in how many seconds to look again."""
        return self.sweeper.sweep()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.leases.now(), UTC)

    # Workers and leases

    def register(self, worker: WorkerInfo) -> int:
        number = super().register(worker)
        self._worker, self._lease, self._consumed = number, worker.lease, worker.queues
        self._mark = self.leases.begin(number, worker.lease, secrets.token_hex(8))
        return number

    def renew(self, worker: int, *, processed: int, draining: bool = False) -> bool:
        lease = self._lease if worker == self._worker else self._lease_of(worker)
        mark = self.leases.renew(worker, lease, self._mark, secrets.token_hex(8))
        if mark is None:
            return False
        self._mark = mark
        return super().renew(worker, processed=processed, draining=draining)

    def _lease_of(self, worker: int) -> float:
        rows = self.engine.query(f"SELECT lease FROM {WORKER} WHERE id = %s", [worker])
        return float(rows[0][0]) if rows else settings.WORKER_LEASE

    def set_idle(self, worker: int, idle: bool) -> None:
        if self._waker is not None:
            self._waker.listen(idle)

    def unregister(self, worker: int) -> None:
        self.engine.execute(
            f"UPDATE {WORKER} SET stopped_at = {self.dialect.now}, idle = %s WHERE id = %s AND lost_at IS NULL",
            [False, worker],
        )
        self.leases.end(worker)
        by_slot: dict[int, list[str]] = {}
        for _, task_id, lease in self.leases.held(worker):
            by_slot.setdefault(lease.slot, []).append(task_id)
        for slot, ids in by_slot.items():
            self.give_back(Holder(worker, slot), ids)
        for queue in self.leases.names():
            self.leases.leave(queue, worker)

    def held(self, worker: int, slot: int | None = None) -> list[Held]:
        return [Held(task_id, lease.attempt, lease.slot) for _, task_id, lease in self.leases.held(worker, slot)]

    def rescue(self, *, max_losses: int) -> int:
        lost, holders = self.leases.dead()
        for worker in lost:
            self.engine.execute(
                f"UPDATE {WORKER} SET lost_at = {self.dialect.now}, idle = %s WHERE id = %s AND lost_at IS NULL"
                " AND stopped_at IS NULL",
                [False, worker],
            )
        epoch = self.dialect.epoch
        self.engine.execute(  # also whose lease Redis has forgotten
            f"UPDATE {WORKER} SET lost_at = {self.dialect.now}, idle = %s WHERE lost_at IS NULL AND stopped_at IS NULL"
            f" AND {epoch('beat_at')} + lease < {epoch(self.dialect.now)}",
            [False],
        )
        count = 0
        for queue, worker in holders:
            names = self.engine.query(f"SELECT name FROM {WORKER} WHERE id = %s", [worker])
            name = names[0][0] if names else f"number {worker}, which is known no more,"
            held = [each for each in self.leases.held(worker) if each[0] == queue]
            count += self._take_back(
                held, Holder(worker, 0, name), max_losses=max_losses, reason=f"Worker {name} lost its lease"
            )
            self.leases.leave(queue, worker)
        return count

    def lose(
        self, holder: Holder, running: Iterable[str], *, begun: Iterable[str] = (), max_losses: int, reason: str
    ) -> int:
        held = self.leases.held(holder.worker, holder.slot)
        return self._take_back(
            held, holder, max_losses=max_losses, reason=reason, running=frozenset(running), begun=frozenset(begun)
        )

    def _take_back(
        self,
        held: Sequence[tuple[str, str, wire.Lease]],
        holder: Holder,
        *,
        max_losses: int,
        reason: str,
        running: frozenset[str] | None = None,
        begun: frozenset[str] = frozenset(),
    ) -> int:
        """End the claims of one who is gone. ``running`` are charged with the loss; ``None``: whoever may have begun."""
        rows = self.rows.read([task_id for _, task_id, lease in held if lease.durable])
        places = self._places([each for each in held if not each[2].durable])
        count = 0
        for queue, task_id, lease in held:
            lost: _Lost | None = rows.get(task_id) if lease.durable else places.get(task_id)
            if lost is None or (isinstance(lost, Row) and lost.ended != lease.attempt - 1):
                # Over already: Redis was not told.
                self._correct(queue, holder.worker, {task_id: lease.attempt})
                continue
            revoked = isinstance(lost, Row) and lost.revoked
            call = lost.delivery(lease.attempt, 0.0) if isinstance(lost, Row) else _call(lost)
            started = isinstance(lost, Row) and lost.started
            # Unless it is known to have begun, only a first loss is charged: most of a batch had not.
            charged = task_id in running if running is not None else started or call.losses == 0
            done = _verdict(call, revoked, charged, task_id in begun, max_losses, reason, holder.name)
            claim = Claim(queue, holder.worker, lease.attempt, lease.durable)
            if not lease.durable:
                assert isinstance(lost, Place)  # noqa: S101 - as looked up above
                claim = _claim_of(lost)
            self._claims[task_id] = claim
            count += not self._store([done], holder)
        self._exchange([], holder, 0, ())
        return count

    def _take_back_rows(self, rows: Sequence[Row]) -> None:
        """End attempts that Redis knows nothing of, and whose workers are gone."""
        for row in rows:
            reason = "Its worker is gone, and Redis has lost its data"
            call = row.delivery(row.attempt, 0.0)
            done = _verdict(call, row.revoked, True, False, settings.TASK_MAX_WORKER_LOSSES, reason, "")
            if isinstance(done, Outcome):
                self._move([done], "")
            elif self.rows.come_back(done):
                self.publish_rows(each for each in self.rows.read([row.id]).values() if each.leasable)

    def _places(self, held: Sequence[tuple[str, str, wire.Lease]]) -> dict[str, Place]:
        found: dict[str, Place] = {}
        for queue in {queue for queue, _, _ in held}:
            found |= self.leases.look([task_id for name, task_id, _ in held if name == queue], [queue])
        return found

    def give_back(self, holder: Holder, ids: Sequence[str]) -> int:
        by_queue: dict[str, list[str]] = {}
        for task_id in ids:
            if (claim := self._claims.get(task_id)) is not None and claim.worker == holder.worker:
                by_queue.setdefault(claim.queue, []).append(task_id)
        known = {one for some in by_queue.values() for one in some}
        strange = [one for one in ids if one not in known]
        if strange:
            for queue in self.leases.names(fresh=True):
                by_queue.setdefault(queue, []).extend(strange)
        count = 0
        for queue, some in by_queue.items():
            found: dict[str, wire.Lease] = {}
            for start in range(0, len(some), MANY):
                found |= self.leases.leases(holder.worker, {queue: some[start : start + MANY]})
            mine = {one: lease for one, lease in found.items() if lease.slot == holder.slot}
            count += self._give_back(queue, mine, holder)
        for task_id in known:
            self._claims.pop(task_id, None)
        return count

    def _give_back(self, queue: str, mine: Mapping[str, wire.Lease], holder: Holder) -> int:
        durable = {one: lease.attempt for one, lease in mine.items() if lease.durable}
        forgetful = {one: lease.attempt for one, lease in mine.items() if not lease.durable}
        ended = self.rows.give_back(durable) if durable else set()
        count = len(ended)
        left = {one: attempt for one, attempt in durable.items() if one not in ended}
        cancelled = self._end_revoked(left, holder)
        count += len(cancelled)
        if left:
            self._correct(queue, holder.worker, left)
        moves = [Move(one, attempt, "back") for one, attempt in durable.items() if one in ended]
        moves += [Move(one, attempt, "back") for one, attempt in forgetful.items()]
        settled = self._settle(queue, holder.worker, moves)
        return count + len(settled & forgetful.keys())

    def adopt(self, names: Iterable[str]) -> int:
        ids = self.rows.set_aside(list(names))
        if not ids:
            return 0
        count = self.rows.adopt(ids)
        self.publish_rows(row for row in self.rows.read(ids).values() if row.leasable)
        return count

    # One task

    def mark_started(self, running: Mapping[tuple[str, int], float]) -> None:
        for (task_id, attempt), seconds in running.items():
            claim = self._claims.get(task_id)
            if claim is None or claim.attempt != attempt or not claim.durable:
                claim = self._give_row(task_id, attempt)
            worker = claim.worker if claim is not None else self._worker or None
            self.rows.mark_started(task_id, attempt, seconds, worker, None)

    def _give_row(self, task_id: str, attempt: int) -> Claim | None:
        """Give a running task a row if it has none: from now on everybody can see it. Return what it is."""
        place = self.leases.look([task_id]).get(task_id)
        if place is None or place.lease is None or place.lease.attempt != attempt or place.worker is None:
            return None
        claim = _claim_of(place)
        if claim.durable:
            return claim
        self._keep_rows({task_id: claim}, states.STARTED)
        if not self.leases.add_row(place.queue, place.worker, {task_id: attempt}):
            self._drop_rows([task_id], {task_id: attempt})  # it has just ended
            return None
        mine = self._claims.get(task_id)
        if mine is not None and mine.attempt == attempt:
            self._claims[task_id] = mine._replace(durable=True)
        return claim

    def report(self, task_id: str, attempt: int, state: str, meta: str | None) -> bool:
        claim = self._claims.get(task_id)
        if claim is None or not claim.durable:
            self._give_row(task_id, attempt)
        caller = connections[self.alias]
        if caller.vendor == "sqlite" and caller.in_atomic_block:
            # The task itself may hold the one write lock: another connection would wait for it in vain.
            with caller.cursor() as cursor:
                return self.rows.report(cursor, task_id, attempt, state, meta)
        return self.engine.transaction(lambda cursor: self.rows.report(cursor, task_id, attempt, state, meta))

    def is_revoked(self, task_id: str, attempt: int) -> bool:
        claim = self._claims.get(task_id)
        if claim is None or claim.attempt != attempt or claim.durable:
            return self.rows.is_revoked(task_id, attempt)
        lease = self.leases.leases(claim.worker, {claim.queue: [task_id]}).get(task_id)
        if lease is None or lease.attempt != attempt:
            return True
        return lease.durable and self.rows.is_revoked(task_id, attempt)

    def revoke(self, task_ids: Sequence[str], *, terminate: str | None = None) -> int:
        """As promised; in the caller's transaction, so that what was sent in it can be revoked in it.

        From here on none of them starts unless the database is asked, so what is committed next counts at once.
        """
        rows = self._rows_seen(task_ids)
        count = 0
        for task_id in task_ids:
            queue = rows.get(task_id)
            if queue is None:
                count += self._revoke_without_row(task_id, terminate)
                continue
            holder = self.leases.stop(queue, [task_id])[task_id]
            if isinstance(holder, tuple):
                worker, lease = holder
                self.rows.show_running({task_id: (lease.attempt, worker, lease.slot)}, self.alias)
            count += super().revoke([task_id], terminate=terminate)
            if not isinstance(holder, tuple):
                transaction.on_commit(partial(self._remove, queue, task_id), using=self.alias)
        return count

    def reschedule(
        self,
        task_ids: Sequence[str],
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        eta: datetime | None = None,
    ) -> list[str]:
        """As promised. What waits is taken out first, so that nobody takes it meanwhile, and published as its row says
        then; should that never happen, a sweeper does so."""
        queues = self._rows_seen(task_ids)
        held: set[str] = set()
        for name in set(queues.values()):
            found = self.leases.remove(name, [one for one in task_ids if queues.get(one) == name])
            held |= {one for one, what in found.items() if what == HELD}
        free = {one: name for one, name in queues.items() if one not in held}
        changed = super().reschedule(list(free), queue=queue, priority=priority, delay=delay, eta=eta)
        transaction.on_commit(partial(self._publish_again, free), using=self.alias)
        return changed

    def _publish_again(self, queues: Mapping[str, str]) -> None:
        """Publish what waits as its row says now; ``queues`` are those that it waited in."""
        rows = [row for row in self.rows.read(queues).values() if row.leasable and row.state != states.STARTED]
        try:
            for row in rows:
                if row.queue != queues[row.id]:
                    self.leases.remove(queues[row.id], [row.id])
            self.publish_rows(rows, "renew")
        except exceptions.OperationalError as error:
            logger.warning("%s. %d rescheduled tasks are published later", error, len(rows))

    def _rows_seen(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Return the queues of those of these tasks that the caller's transaction sees a row of."""
        found: dict[str, str] = {}
        with connections[self.alias].cursor() as cursor:
            for start in range(0, len(task_ids), MANY):
                keys = [self._key(one) for one in task_ids[start : start + MANY]]
                marks = ", ".join([self.dialect.uuid] * len(keys))
                cursor.execute(f"SELECT id, queue FROM {TASK} WHERE id IN ({marks})", keys)
                found.update((dashed(row[0]), row[1]) for row in cursor.fetchall())
        return found

    def _remove(self, queue: str, task_id: str) -> None:
        try:
            self.leases.remove(queue, [task_id])
        except exceptions.OperationalError as error:  # whoever takes it asks the database
            logger.warning("%s. The revoked task %s stays in its queue for now", error, task_id)

    def _revoke_without_row(self, task_id: str, terminate: str | None) -> int:
        place = self.leases.look([task_id]).get(task_id)
        if place is None or place.durable:
            return 0
        if place.lease is not None:
            running = partial(self._revoke_running, task_id, place.lease.attempt, terminate)
            transaction.on_commit(running, using=self.alias)
            return 1
        self.leases.stop(place.queue, [task_id])
        outcome = _revoked(task_id, place.entry.attempt + 1)
        with connections[self.alias].cursor() as cursor:
            self.ledger.write_within(cursor, [_written(outcome, _claim_of(place), self.leases.now())], "")
        transaction.on_commit(partial(self._remove, place.queue, task_id), using=self.alias)
        return 1

    def _revoke_running(self, task_id: str, attempt: int, terminate: str | None) -> None:
        # What runs and is to be stopped is worth a row.
        if self._give_row(task_id, attempt) is not None:
            self.revoke([task_id], terminate=terminate)

    def purge(self, queues: Queues) -> int:
        count = 0
        for queue in self.leases.of(queues, fresh=True):
            count += sum(wire.DURABLE not in flags for _, flags in self.leases.empty(queue))
        for queue, worker in self._holders(queues):
            running = {
                task_id: (lease.attempt, worker, lease.slot)
                for name, task_id, lease in self.leases.held(worker)
                if name == queue and lease.durable
            }
            self.rows.show_running(running)
        return count + super().purge(queues)

    def _holders(self, queues: Queues) -> list[tuple[str, int]]:
        names = self.leases.of(queues, fresh=True)
        answers = self.server.many([("SMEMBERS", f"{self.server.queue(name)}:h") for name in names])
        return [(name, int(worker)) for name, answer in zip(names, answers, strict=True) for worker in answer]

    # Commands

    def peek(self, task_ids: Sequence[str]) -> list[Seen]:
        places = self.leases.look(list(task_ids)) if task_ids else {}
        found = []
        for seen in super().peek(task_ids):
            place = places.pop(seen.key, None)
            lease = place.lease if place is not None else None
            if seen.state != states.STARTED and lease is not None and lease.attempt == seen.attempt + 1:
                seen = seen._replace(state=states.STARTED, attempt=lease.attempt)
            found.append(seen)
        return found + [_seen(place) for place in places.values() if not place.durable]

    def scheduled(self, queues: Collection[str], excluded: Collection[str], *, limit: int) -> list[Seen]:
        names = self.leases.of(Queues(tuple(queues), frozenset(excluded)), fresh=True)
        places = [place for place in self.leases.scheduled(names, limit) if not place.durable]
        found = super().scheduled(queues, excluded, limit=limit) + [_seen(place) for place in places]
        return sorted(found, key=lambda one: one.due)[:limit]

    def line(self) -> Line:
        return RedisLine(super().line(), self.leases)

    # House-keeping

    def waker(self) -> Waker:
        self._waker = RedisWaker(self.leases, self._worker, self._consumed)
        return self._waker

    def result_waker(self, task_id: str) -> ResultWaker:
        return RedisCaller(self.leases, task_id)

    def close(self) -> None:
        super().close()
        self.server.close()


def _refuse_to_forget(one: Message) -> None:
    """Raise ``ValueError`` for what needs a row."""
    for given, what in ((one.limit_key is not None, "a limit"), (one.unique is not None, "unique"), (one.tags, "tags")):
        if given:
            raise ValueError(f"{one.name} was sent with durable=False and {what}: that needs a row, so durable=True.")


def _due(one: Message) -> str:
    return f"+{one.delay:.6f}" if one.eta is None else repr(one.eta.timestamp())


def _due_again(one: Return) -> str:
    return repr(one.eta.timestamp()) if one.eta is not None else f"+{one.delay or 0.0:.6f}"


def _by_queue(claims: Mapping[str, Claim]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for task_id, claim in claims.items():
        found.setdefault(claim.queue, {})[task_id] = claim.attempt
    return found


def _call(place: Place) -> Delivery:
    attempt = place.lease.attempt if place.lease is not None else place.entry.attempt
    due = float(place.lease.due) if place.lease is not None else place.due or 0.0
    return place.entry.delivery(place.id, place.queue, due, 0.0, attempt)


def _claim_of(place: Place) -> Claim:
    attempt = place.lease.attempt if place.lease is not None else place.entry.attempt + 1
    about = (_call(place), place.entry.published, place.entry.expires_at)
    return Claim(place.queue, place.worker or 0, attempt, place.durable, *about)


def _written(outcome: Outcome, claim: Claim, now: float) -> Written:
    assert claim.delivery is not None  # noqa: S101 - claims without a row have it
    return Written(outcome, claim.delivery, claim.published, claim.expires_at, now)


def _changed(call: Delivery, one: Return) -> Delivery:
    """Return a call as it is to run next."""
    changes: dict[str, Any] = {
        name: getattr(one, name)
        for name in ("retries", "history", "body", "options", "queue", "priority")
        if getattr(one, name) is not None
    }
    if one.body is not None:
        changes["encoding"] = one.encoding
    return replace(call, attempt=one.attempt, losses=call.losses + one.lost, **changes)


def _verdict(
    call: Delivery, revoked: bool, charged: bool, begun: bool, max_losses: int, reason: str, worker: str
) -> Outcome | Return:
    """Return what becomes of a task whose worker, or child, is gone."""
    if revoked:
        return _revoked(call.id, call.attempt)
    if (call.at_most_once and (charged or begun)) or (charged and call.losses + 1 >= max_losses):
        why = "it is to run at most once" if call.at_most_once else f"{call.losses + 1} workers died over it (poison)"
        return _failure(call.id, call.attempt, exceptions.WorkerLostError(f"{reason}; {why}."), state=states.FAILURE)
    entry = {"attempt": call.attempt, "outcome": "LOST", "worker": worker, "error": reason}
    earlier = json.loads(call.history) if call.history else []
    log = json.dumps([*earlier, entry]) if charged or begun else None
    return Return(call.id, call.attempt, states.PENDING, lost=charged, history=log)


def _seen(place: Place) -> Seen:
    call = _call(place)
    about = (call.attempt, call.name, call.queue, call.priority, place.state, call.body, call.encoding)
    return Seen(call.id, call.task_id, *about, call.due, call.at_most_once, call.losses, call.options)
