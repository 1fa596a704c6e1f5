"""Workers and their leases: beginning, keeping and losing them."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence

from ...conf import settings
from ..base import Held, Queues, WorkerInfo
from ..database.dialect import WORKER
from ..database.leases import MANY
from ..message import Holder, Outcome
from . import wire
from .claims import Claim, Lost, call_of, claim_of, verdict
from .leases import Move, Place
from .rows import Row
from .stepping import Stepping


class Holding(Stepping):
    """Who holds what, and what becomes of it when one is gone."""

    def register(self, worker: WorkerInfo) -> int:
        number = super().register(worker)
        self._worker, self._lease, self._consumed = number, worker.lease, worker.queues
        self._mark = self.leases.begin(number, worker.lease, secrets.token_hex(8))
        return number

    def restate(self, worker: int, *, queues: Queues, concurrency: int) -> None:
        super().restate(worker, queues=queues, concurrency=concurrency)
        self._consumed = queues

    def renew(self, worker: int, *, processed: int, draining: bool = False) -> bool:
        lease = self._lease if worker == self._worker else self._lease_of(worker)
        mark = self.leases.renew(worker, lease, self._mark, secrets.token_hex(8), self.sweeper.name)
        if mark is None:
            return False
        self._mark = mark
        return super().renew(worker, processed=processed, draining=draining)

    def _lease_of(self, worker: int) -> float:
        rows = self.engine.query(f"SELECT lease FROM {WORKER} WHERE id = %s", [worker])
        return float(rows[0][0]) if rows else settings.WORKER_LEASE

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
        """End the claims of one who is gone; ``running`` are charged with the loss, else who may have begun."""
        rows = self.rows.read([task_id for _, task_id, _ in held])
        places = self._places(held)
        over = self._ended({task_id: place.entry.published for task_id, place in places.items()})
        count = 0
        for queue, task_id, lease in held:
            if task_id in over:
                # It had no row when it ended, and Redis was not told.
                self._drop_rows([task_id] if lease.durable else [], {task_id: lease.attempt})
                self._settle(queue, holder.worker, [Move(task_id, lease.attempt, "drop")])
                continue
            row = rows.get(task_id)
            # Who has just been given a row without Redis knowing is without one, unless that was its end.
            with_row = lease.durable or (row is not None and row.ended >= lease.attempt)
            lost: Lost | None = row if with_row else places.get(task_id)
            if lost is None or (isinstance(lost, Row) and lost.ended != lease.attempt - 1):
                # Over already: Redis was not told.
                self._correct(queue, holder.worker, {task_id: lease.attempt})
                continue
            revoked = isinstance(lost, Row) and lost.revoked
            call = lost.delivery(lease.attempt, 0.0) if isinstance(lost, Row) else call_of(lost)
            started = isinstance(lost, Row) and lost.started
            # Unless it is known to have begun, only a first loss is charged: most of a batch had not.
            charged = task_id in running if running is not None else started or call.losses == 0
            done = verdict(call, revoked, charged, task_id in begun, max_losses, reason, holder.name)
            claim = Claim(queue, holder.worker, lease.attempt, lease.durable)
            if not lease.durable:
                assert isinstance(lost, Place)  # noqa: S101 - as looked up above
                claim = claim_of(lost)
            self._claims[task_id] = claim
            count += not self._store([done], holder)
        self._exchange([], holder, 0, ())
        return count

    def _take_back_rows(self, rows: Sequence[Row]) -> None:
        """End attempts that Redis knows nothing of, and whose workers are gone."""
        ended = self.rows.ended(row.id for row in rows)
        for row in rows:
            if row.id in ended:
                self._drop_rows([row.id], {row.id: row.attempt})
                continue
            reason = "Its worker is gone, and Redis has lost its data"
            call = row.delivery(row.attempt, 0.0)
            done = verdict(call, row.revoked, True, False, settings.TASK_MAX_WORKER_LOSSES, reason, "")
            if isinstance(done, Outcome):
                self._move([done], "")
                self._publish_rest()
            elif self.rows.come_back(done):
                self.publish_rows(each for each in self.rows.read([row.id]).values() if each.leasable)

    def _places(self, held: Sequence[tuple[str, str, wire.Lease]]) -> dict[str, Place]:
        found: dict[str, Place] = {}
        for queue in {queue for queue, _, _ in held}:
            found |= self.leases.look([task_id for name, task_id, _ in held if name == queue], [queue])
        return found

    def give_back(self, holder: Holder, ids: Sequence[str]) -> int:
        by_queue: dict[str, list[str]] = {}
        unheard = {task_id for some in self._unheard.values() for task_id in some}
        ids = [one for one in ids if one not in unheard]  # stored, and no more to be run
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
        moves += [Move(one, attempt, "back", entry=wire.VOLATILE.encode()) for one, attempt in forgetful.items()]
        settled = self._settle(queue, holder.worker, moves)
        count += len(settled & forgetful.keys())
        if rest := sorted(forgetful.keys() - settled):  # lost, or given a row in this very moment
            found = self.leases.leases(holder.worker, {queue: rest})
            given = {one: lease for one, lease in found.items() if lease.durable and lease.attempt == forgetful[one]}
            count += self._give_back(queue, given, holder)
        return count

    def adopt(self, names: Iterable[str]) -> int:
        ids = self.rows.set_aside(list(names))
        if not ids:
            return 0
        count = self.rows.adopt(ids)
        self.publish_rows(row for row in self.rows.read(ids).values() if row.leasable)
        return count
