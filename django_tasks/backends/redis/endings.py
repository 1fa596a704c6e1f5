"""What becomes of claims: the database says that a task is over, then Redis hears of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from django.db import connections, transaction

from ... import states
from ...ids import dashed
from .. import stores
from ..database.arrivals import TAG
from ..database.broker import UNSTORABLE
from ..database.dialect import RESULT
from ..database.leases import MANY
from ..message import Holder, Outcome, Return
from ..outcomes import revoked as _revoked
from ..outcomes import unstorable as _unstorable
from . import wire
from .claims import Claim, by_queue, changed, claim_of, due_again, due_of, written_of
from .leases import Move, Proof
from .sending import Sending


class Endings(Sending):
    """Storing outcomes and returns, in whatever order and however often they come."""

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
        forgotten = self._learn_of_rows(claims)
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
                if claim is not None and not claim.durable and one.id in forgotten:
                    self._keep_rows({one.id: claim}, states.STARTED)
                    claim = claim._replace(durable=True)
                come_back = self._come_back if claim is None or claim.durable else self._come_back_without_row
                if not come_back(one, claim, holder):
                    refused.add(one.id)
        if refused and outcomes:
            self._drop_values([one for one in outcomes if one.id in refused])
        if back := [one.id for one in done if isinstance(one, Return) and one.id in forgotten]:
            self.publish_rows(row for row in self.rows.read(back).values() if row.leasable)
        return refused

    def _end_in_redis(self, done: Sequence[Outcome | Return], holder: Holder) -> list[Outcome | Return]:
        """Let the next exchange end what the database is to know nothing of, if Redis still agrees then; return the
        rest."""
        rest = []
        for one in done:
            claim = self._claims.get(one.id)
            if (
                isinstance(one, Outcome)
                and not one.keep
                and claim is not None
                and (claim.attempt, claim.worker, claim.durable) == (one.attempt, holder.worker, False)
            ):
                self._unheard.setdefault(claim.queue, {})[one.id] = Proof(one.id, one.attempt, "w")
            else:
                rest.append(one)
        return rest

    def _find(self, done: Sequence[Outcome | Return]) -> dict[str, Claim]:
        """Return what Redis says of claims that another process made, or that are none any more."""
        attempts = {one.id: one.attempt for one in done}
        return {
            task_id: claim_of(place)
            for task_id, place in self.leases.look(list(attempts)).items()
            if place.lease is not None and place.lease.attempt == attempts[task_id]
        }

    def _learn_of_rows(self, claims: dict[str, Claim]) -> set[str]:
        """A task that takes long is given a row by whoever sees that; and who has no row must still have its lease.
        Return the ids of those whose lease is gone because Redis has lost its data: nobody else is at them."""
        forgetful: dict[int, dict[str, dict[str, int]]] = {}
        for task_id, claim in claims.items():
            if not claim.durable:
                forgetful.setdefault(claim.worker, {}).setdefault(claim.queue, {})[task_id] = claim.attempt
        forgotten: set[str] = set()
        for worker, attempts in forgetful.items():
            for queue, (lost, with_row) in self.leases.check(worker, attempts).items():
                if lost:
                    shown, unknown = self._forgotten({one: claims[one] for one in lost}, queue, worker)
                    with_row |= shown
                    forgotten |= shown | unknown
                for task_id in lost - forgotten:
                    claims[task_id] = claims[task_id]._replace(attempt=0)
                for task_id in with_row:
                    claims[task_id] = claims[task_id]._replace(durable=True)
        return forgotten

    def _forgotten(self, lost: Mapping[str, Claim], queue: str, worker: int) -> tuple[set[str], set[str]]:
        """Of leases that Redis does not know any more, return those whose row says that they run, and those that
        nobody has taken back, though nothing but their process knows of them."""
        rows = self.rows.read(lost)
        shown = {one for one, row in rows.items() if row.leasable and row.ended == lost[one].attempt - 1}
        moment = self.leases.untouched(worker)  # asked first: what is taken back after that is still there
        left = {one: claim.published for one, claim in lost.items() if one not in rows and claim.published < moment}
        known = self.leases.look(list(left), [queue])
        left = {one: published for one, published in left.items() if one not in known}
        return shown, left.keys() - self._ended(left)

    def _finish(self, outcomes: Sequence[Outcome], claims: Mapping[str, Claim], holder: Holder) -> set[str]:
        """Move rows to the ledger; return the ids of those that were not theirs to move."""
        stored = {one.id for one in outcomes if one.id in claims and self._has_stored(claims[one.id].queue, one)}
        outcomes = [one for one in outcomes if one.id not in stored]
        if not outcomes:
            return set()
        # What others wait for is moved apart: one that cannot be stored must not take what was moved before along.
        refused: set[str] = set()
        for linked in (False, True):
            some = [one for one in outcomes if one.linked is linked]
            refused |= self._move_all(some, holder.name) if some else set()
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

    def _move_all(self, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        try:
            return self._move(outcomes, worker)
        except UNSTORABLE:
            refused: set[str] = set()
            for one in outcomes:
                try:
                    refused |= self._move([one], worker)
                except UNSTORABLE as error:
                    refused |= self._move([_unstorable(one, error)], worker)
            return refused

    def _move(self, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        """Move rows to the ledger, with what follows from that for others; return the ids of those that were not theirs
        to move. The next exchange publishes what is released."""
        refused: set[str] = set()
        if plain := [one for one in outcomes if not one.linked]:
            refused |= self.ledger.move(plain, worker)
        if linked := [one for one in outcomes if one.linked]:
            told = self.engine.transaction(lambda cursor: self._workflows.finish(cursor, linked, worker))
            refused |= told.refused
            self._released += told.released
        return refused

    def _has_stored(self, queue: str, one: Outcome) -> bool:
        proof = self._unheard.get(queue, {}).get(one.id)
        return proof is not None and proof.attempt == one.attempt

    def _write(self, outcomes: Sequence[Outcome], claims: Mapping[str, Claim], holder: Holder) -> set[str]:
        """Write the ledger's lines of tasks without a row; return the ids of those that have lost their lease."""
        refused = {one.id for one in outcomes if claims[one.id].attempt != one.attempt}
        outcomes = [one for one in outcomes if one.id not in refused]
        now = self.leases.clock() if any(one.keep for one in outcomes) else 0.0
        written = [written_of(one, claims[one.id], now) for one in outcomes if one.keep]
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
            due = {} if not back or (one.delay is None and one.eta is None) else {one.id: due_again(one)}
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
            self._correct(claim.queue, claim.worker, {one.id: one.attempt}, {one.id: due_of(new.own)})
        return replaced

    def replace_within(self, one: Return) -> bool:
        new, claim = one.replacement, self._claims.get(one.id)
        assert new is not None  # noqa: S101 - the caller made it so
        if claim is not None and not claim.durable:
            claims = {one.id: claim}
            self._learn_of_rows(claims)
            claim = claims[one.id]
            if claim.attempt != one.attempt:
                return False
            if not claim.durable:
                self._keep_rows(claims, states.STARTED, self.alias)
        if not super().replace_within(one):
            return False
        self._announce_on_commit(new.others)
        if claim is not None:
            held, due = {one.id: one.attempt}, {one.id: due_of(new.own)}
            transaction.on_commit(partial(self._correct, claim.queue, claim.worker, held, due), using=self.alias)
        return True

    def _come_back_without_row(self, one: Return, claim: Claim | None, holder: Holder) -> bool:
        """The same for one that has none: what it brings along is written into its message."""
        if claim is None or claim.attempt != one.attempt or claim.delivery is None:
            self._claims.pop(one.id, None)
            return False
        # Whose end was part of a transaction may not know whether that was committed.
        if one.state == states.PENDING and self._ended({one.id: claim.published}):
            self._unheard.setdefault(claim.queue, {})[one.id] = Proof(one.id, one.attempt, "v")
            return True
        call = changed(claim.delivery, one)
        flags = wire.VOLATILE + wire.RETRIED if one.state == states.RETRY else wire.VOLATILE
        due = "" if one.delay is None and one.eta is None else due_again(one)
        try:
            # Nobody may know the task for long; and no script sees two queues, while a row says which one it is in.
            if one.state == states.UNROUTABLE or one.replacement is not None or call.queue != claim.queue:
                given = self._give_row_to(one.id, claim)
                return given is not None and self._come_back(one, given, holder)
            entry = wire.entry_of_delivery(call, flags, attempt=one.attempt, expires_at=claim.expires_at)
        except UNSTORABLE as error:
            return not self._write([_unstorable(one, error)], {one.id: claim}, holder)
        if self._settle(claim.queue, claim.worker, [Move(one.id, one.attempt, "put", str(call.priority), due, entry)]):
            return True
        given = self._find([one]).get(one.id)  # it may have been given a row in this very moment
        return given is not None and given.durable and self._come_back(one, given, holder)

    def _ended(self, published: Mapping[str, float]) -> set[str]:
        """Return which of these are in the ledger and ended after they were published: an earlier task may have had
        the same id."""
        ids = list(published)
        ago = f"{self.dialect.epoch(self.dialect.now)} - {self.dialect.epoch('finished_at')}"
        lines: dict[str, float] = {}
        for start in range(0, len(ids), MANY):
            keys = [self._key(one) for one in ids[start : start + MANY]]
            marks = ", ".join([self.dialect.uuid] * len(keys))
            rows = self.engine.query(f"SELECT id, {ago} FROM {RESULT} WHERE id IN ({marks})", keys)
            lines.update((dashed(row[0]), float(row[1])) for row in rows)
        now = self.leases.now() if lines else 0.0
        return {task_id for task_id, seconds in lines.items() if seconds < now - published[task_id]}

    def _end_revoked(self, held: Mapping[str, int], holder: Holder) -> set[str]:
        """End those of these attempts that were revoked and are still the ones; return their ids."""
        rows = self.rows.read(held) if held else {}
        cancelled = {row.id for row in rows.values() if row.revoked and row.ended == held[row.id] - 1}
        if not cancelled:
            return set()
        refused = self._move([_revoked(one, held[one]) for one in sorted(cancelled)], holder.name)
        self._publish_rest()
        return cancelled - refused

    def _publish_rest(self) -> None:
        """Publish what was released, where no exchange follows."""
        released, self._released = self._released, []
        self._release(released)

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

    def _give_row(self, task_id: str, attempt: int) -> Claim | None:
        """Give a running task a row if it has none: from now on everybody can see it. Return what it is."""
        place = self.leases.look([task_id]).get(task_id)
        if place is None or place.lease is None or place.lease.attempt != attempt or place.worker is None:
            return None
        claim = claim_of(place)
        return claim if claim.durable else self._give_row_to(task_id, claim)

    def _give_row_to(self, task_id: str, claim: Claim) -> Claim | None:
        """The same for a claim without a row; ``None`` if it is none any more."""
        self._keep_rows({task_id: claim}, states.STARTED)
        if not self.leases.add_row(claim.queue, claim.worker, {task_id: claim.attempt}):
            self._drop_rows([task_id], {task_id: claim.attempt})  # it has just ended
            return None
        claim = claim._replace(durable=True)
        mine = self._claims.get(task_id)
        if mine is not None and mine.attempt == claim.attempt:
            self._claims[task_id] = claim
        return claim

    def _give_rows(self, claims: Mapping[str, Claim], state: str) -> None:
        """Turn tasks without a row into such that have one, and wait there."""
        calls = {one: claim for one, claim in claims.items() if claim.delivery is not None}
        if not calls:
            return
        self._keep_rows(calls, state)
        for queue, some in by_queue(calls).items():
            workers = {calls[one].worker for one in some}
            for worker in workers:
                self._settle(
                    queue, worker, [Move(one, some[one], "drop") for one in some if calls[one].worker == worker]
                )

    def _keep_rows(self, claims: Mapping[str, Claim], state: str, alias: str | None = None) -> None:
        """Write rows of tasks that have none. ``alias``: in the caller's transaction."""
        now = self.leases.now()
        calls, ages = [], {}
        for task_id, claim in claims.items():
            assert claim.delivery is not None  # noqa: S101 - the callers look
            calls.append(replace(claim.delivery, attempt=claim.attempt))
            ages[task_id] = (claim.delivery.due - now, None if claim.expires_at is None else claim.expires_at - now)
        self.rows.keep(calls, state, ages=ages, alias=alias)

    def _drop_rows(self, ids: Sequence[str], attempts: Mapping[str, int]) -> None:
        """They were given a row in the very moment in which they ended."""
        if ids:
            self.ledger.move([Outcome(one, attempts[one], states.SUCCESS, keep=False) for one in ids], "")

    def finish_within(self, outcome: Outcome, worker: str) -> bool:
        """Store one outcome in the transaction that is open on the caller's own connection; False if refused."""
        stores.keep([outcome])
        stored = self._finish_within(outcome, worker)
        if not stored:
            self._drop_values([outcome])
        return stored

    def _finish_within(self, outcome: Outcome, worker: str) -> bool:
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
            else:  # in any case: nothing else says that it is done, should Redis not come to hear of it
                line = outcome if outcome.keep else replace(outcome, result=None)
                self.ledger.write_within(cursor, [written_of(line, claim, self.leases.now())], worker)
        proof = Proof(outcome.id, outcome.attempt, "1" if claim.durable else "v")
        transaction.on_commit(
            lambda: self._unheard.setdefault(claim.queue, {}).update({outcome.id: proof}), using=self.alias
        )
        return True
