"""The step: what ended is stored, and what is due is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ... import states
from ..base import Queues
from ..database.broker import WITHHOLDINGS, hand_on
from ..database.dialect import rules_of
from ..database.plan import ROTATION, SURVEY_EVERY
from ..message import Delivery, Holder, Outcome, Return, Stepped
from . import wire
from .claims import Claim, by_queue
from .endings import Endings
from .leases import FRESH, KNOWN, Exchanged, Move, Published, Taken

#: The row is asked before these start. What a sweeper published may have ended between its look and that.
_ASKED = frozenset((wire.TRACKED, wire.SWEPT))
#: Most tasks that are published in the script that takes the next ones.
TOGETHER = 100


class Stepping(Endings):
    """One round trip to Redis, and one to the database if something ended."""

    def step(
        self,
        done: Sequence[Outcome | Return],
        *,
        holder: Holder,
        queues: Queues = Queues(),  # noqa: B008 - immutable
        limit: int = 0,
        unknown: Sequence[str] = (),
    ) -> Stepped:
        rest = self._end_in_redis(done, holder)
        refused = self._store(rest, holder) if rest else set()
        if not limit:
            self._exchange([], holder, 0, ())
            return Stepped([], frozenset(refused | self._end_left(done, holder)))
        claimed = self._claim(queues, holder, limit, unknown, after_idle=not done)
        refused |= self._end_left(done, holder)
        claimed = self._obey_rules(claimed, holder, queues, limit, unknown)
        hand_on([one for one in done if isinstance(one, Outcome)], refused, claimed)
        return Stepped(claimed, frozenset(refused))

    def _end_left(self, done: Sequence[Outcome | Return], holder: Holder) -> set[str]:
        """End what could not be ended in Redis alone: it was given a row, or it has lost its lease. Return the ids of
        what had no right to."""
        left, self._left = self._left, {}
        mine = [one for one in done if left.pop(one.id, None) == one.attempt]
        for task_id, attempt in left.items():  # said before, and the answer was lost: it is over
            if (claim := self._claims.get(task_id)) is not None and claim.attempt == attempt:
                del self._claims[task_id]
        if not mine:
            return set()
        refused = self._store(mine, holder)
        self._exchange([], holder, 0, ())
        return refused

    def take_ahead(
        self, found: Sequence[Any], names: Sequence[str], *, holder: Holder, queues: Queues, unknown: Sequence[str]
    ) -> list[Delivery]:
        """Take in what a step brought that was sent ahead; ``names`` are the queues that it took from."""
        read = self.leases.read_ahead(found, names, holder.worker)
        claimed = self._receive(read, holder, bool(read.taken) and self.others.present())
        return self._obey_rules(claimed, holder, queues, 1, unknown)

    def not_paused(self, names: Sequence[str]) -> list[str]:
        """Return those of these queues that were not paused at the last look."""
        paused = self._rules.paused_queues()
        return [name for name in names if name not in paused] if paused else list(names)

    def _obey_rules(
        self, claimed: list[Delivery], holder: Holder, queues: Queues, limit: int, unknown: Sequence[str]
    ) -> list[Delivery]:
        if claimed and self._rules.age > SURVEY_EVERY:  # they may have been changed since
            self._rules = rules_of(self.engine.query(self.dialect.rules_sql()))
        return self._hold_back(claimed, holder, queues, limit, unknown) if self._rules and claimed else claimed

    def _claim(
        self, queues: Queues, holder: Holder, limit: int, unknown: Sequence[str], *, after_idle: bool = False
    ) -> list[Delivery]:
        """Take what is due. ``after_idle``: the queues that were there a while ago will do, if there is something."""
        if self._rules.age > SURVEY_EVERY and self._rules.paused_queues():  # one may have been resumed since
            self._rules = rules_of(self.engine.query(self.dialect.rules_sql()))
        names = self._in_turn(self.leases.of(queues, known=after_idle and self.leases.age < KNOWN))
        claimed = self._exchange(names, holder, limit, unknown)
        enough = 1 if after_idle else limit
        if len(claimed) < enough and not queues.names and self.leases.age > FRESH:
            new = [name for name in self.leases.of(queues, fresh=True) if name not in names]
            if new := [name for name in new if name not in self._rules.paused_queues()]:
                claimed += self._exchange(new, holder, limit - len(claimed), unknown)
        return claimed

    def _in_turn(self, names: Sequence[str]) -> list[str]:
        """Return queues in the order of this claim: now and then another one is the first, so that a backlog does not
        stop the others."""
        order = self.not_paused(names)
        self._turn += 1
        if len(order) < 2 or self._turn % ROTATION:
            return order
        start = (self._turn // ROTATION) % len(order)
        return order[start:] + order[:start]

    def _exchange(self, names: Sequence[str], holder: Holder, limit: int, unknown: Sequence[str]) -> list[Delivery]:
        """Tell Redis what ended, and take what is due."""
        released = self._released_here(names if limit else ())
        unheard, self._unheard = self._unheard, {}
        if not unheard and not names:
            return []
        proofs = {queue: list(some.values()) for queue, some in unheard.items()}
        try:
            shared = bool(limit) and self.others.present()
            found = self.leases.step(
                proofs, names, worker=holder.worker, slot=holder.slot, limit=limit, unknown=unknown, released=released
            )
        except BaseException:
            for queue, some in unheard.items():
                self._unheard.setdefault(queue, {}).update(some)
            raise
        for some in unheard.values():
            self._left.update((one, some.pop(one).attempt) for one in found.left if one in some)
            for task_id in some:
                self._claims.pop(task_id, None)
            given = [one for one in found.with_row if one in some]
            self._drop_rows(given, {one: proof.attempt for one, proof in some.items()})
        return self._receive(found, holder, shared)

    def _receive(self, found: Exchanged, holder: Holder, shared: bool) -> list[Delivery]:
        now, taken = found.now, found.taken
        deliveries = [self._delivery(one, holder, now) for one in taken]
        asked = taken if shared else [one for one in taken if one.stopped or _ASKED.intersection(one.entry.flags)]
        return self._ask(asked, deliveries, holder, shared) if asked else deliveries

    def _released_here(self, names: Sequence[str]) -> list[Published]:
        """Return what was released into these queues, so that it is published and taken in one; publish the rest. What
        is lost on the way is published by a sweeper."""
        if not self._released:
            return []
        entries, self._released = self._entries(self._released), []
        if self.server.is_cluster or len(entries) > TOGETHER:
            names = ()
        here = [one for one in entries if one[0].queue in names]
        if len(here) < len(entries):
            self._publish_released([one for one in entries if one[0].queue not in names])
        return here

    def _delivery(self, one: Taken, holder: Holder, now: float) -> Delivery:
        found = one.entry.delivery(one.id, one.queue, one.due, now, one.attempt)
        if wire.DURABLE in one.entry.flags:
            self._claims[one.id] = Claim(one.queue, holder.worker, one.attempt, True)
        else:
            about = (found, one.entry.published, one.entry.expires_at)
            self._claims[one.id] = Claim(one.queue, holder.worker, one.attempt, False, *about)
        return found

    def _ask(self, asked: Sequence[Taken], deliveries: list[Delivery], holder: Holder, shared: bool) -> list[Delivery]:
        """Ask the database whether these may start, and how. ``shared``: others may take them, too."""
        durable = [one for one in asked if wire.DURABLE in one.entry.flags]
        tracked = {one.id: one.attempt for one in durable if shared or wire.TRACKED in one.entry.flags}
        rows = self.rows.take(tracked, holder.worker, holder.slot) if tracked else {}
        elsewhere = self._elsewhere([one for one in tracked if one not in rows], holder) if shared else set()
        others = [one for one in asked if one.id not in tracked]
        known = self.rows.read([one.id for one in others if wire.DURABLE in one.entry.flags])
        rows |= {key: row for key, row in known.items() if row.leasable and not row.revoked}
        ended = self._ended({one.id: one.entry.published for one in others if wire.DURABLE not in one.entry.flags})
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
            elif delivery.id in elsewhere:
                self._settle(place.queue, holder.worker, [Move(place.id, place.attempt, "drop")])
            else:
                self._correct(place.queue, holder.worker, {place.id: place.attempt})
        return found

    def _elsewhere(self, ids: Sequence[str], holder: Holder) -> set[str]:
        """Return which of these another worker runs."""
        rows = self.rows.read(ids) if ids else {}
        return {one.id for one in rows.values() if one.state == states.STARTED and one.worker != holder.worker}

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
        for queue, some in by_queue(durable).items():
            ended = self.rows.give_back(some, state=states.LIMITED)
            self._end_revoked({one: attempt for one, attempt in some.items() if one not in ended}, holder)
            self._correct(queue, holder.worker, some)
