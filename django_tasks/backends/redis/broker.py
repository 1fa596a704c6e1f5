"""The Redis broker: rows and results as with the database broker, while Redis says what waits and who runs it.

A task has a row as long as it is not done, unless it was sent with ``durable=False``. The row is written in the
caller's transaction and published when that commits; :mod:`.sweeper` publishes what a crash kept back, or Redis has
forgotten. :mod:`.ledger` tells why each task is finished once, :mod:`.rows` what becomes of its row. The broker is put
together from parts that each stand on the one before: :mod:`.sending`, :mod:`.endings`, :mod:`.stepping`,
:mod:`.holding`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from django.db import connections, transaction

from ... import exceptions, states
from ...ids import dashed
from ..base import Queues, ResultWaker, Taker, Waker
from ..control import Line, Seen
from ..database.dialect import LIMITED, TASK, rules_of
from ..database.leases import MANY
from ..database.wakers import Poller
from ..message import Admission, Survey
from ..outcomes import revoked as _revoked
from . import wire
from .claims import claim_of, seen_of, written_of
from .cluster_wakers import JOINS, ClusterWaker
from .holding import Holding
from .leases import HELD
from .ledger import Written
from .sweeper import Sweeper
from .takers import RedisTaker
from .wakers import RedisCaller, RedisLine, RedisWaker, TokenWaker

logger = logging.getLogger(__name__)


class RedisBroker(Holding):
    """Redis or Valkey in front of the site's own database."""

    def __init__(self, alias: str = "default", url: str | None = None) -> None:
        super().__init__(alias, url)
        self.sweeper = Sweeper(self.leases, self.rows, self._take_back_rows)
        self._waker: TokenWaker | None = None
        self._idle = False

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

    # One task

    def mark_started(self, running: Mapping[tuple[str, int], float]) -> None:
        for (task_id, attempt), seconds in running.items():
            claim = self._claims.get(task_id)
            if claim is None or claim.attempt != attempt or not claim.durable:
                claim = self._give_row(task_id, attempt)
            worker = claim.worker if claim is not None else self._worker or None
            self.rows.mark_started(task_id, attempt, seconds, worker, None)

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
            _, forgotten = self._forgotten({task_id: claim}, claim.queue, claim.worker)
            return not forgotten and self.rows.is_revoked(task_id, attempt)
        return lease.durable and self.rows.is_revoked(task_id, attempt)

    def revoke(self, task_ids: Sequence[str], *, terminate: str | None = None) -> int:
        """As promised; in the caller's transaction, so that what was sent in it can be revoked in it.

        From here on none of them starts unless the database is asked, so what is committed next counts at once.
        """
        rows = self._rows_seen(task_ids)
        count = self._revoke_without_rows([one for one in dict.fromkeys(task_ids) if one not in rows], terminate)
        running: dict[str, tuple[int, int, int]] = {}
        for queue, ids in _by_queue(rows).items():
            holders = self.leases.stop(queue, ids)
            held = {one: holder for one, holder in holders.items() if isinstance(holder, tuple)}
            running.update((one, (lease.attempt, worker, lease.slot)) for one, (worker, lease) in held.items())
            if free := [one for one in ids if one not in held]:
                transaction.on_commit(partial(self._remove, queue, free), using=self.alias)
        self.rows.show_running(running, self.alias)
        return count + super().revoke(list(rows), terminate=terminate)

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
        """Return the queues of those of these tasks that the caller's transaction sees a row of, in their order."""
        found: dict[str, str] = {}
        with connections[self.alias].cursor() as cursor:
            for start in range(0, len(task_ids), MANY):
                keys = [self._key(one) for one in task_ids[start : start + MANY]]
                marks = ", ".join([self.dialect.uuid] * len(keys))
                cursor.execute(f"SELECT id, queue FROM {TASK} WHERE id IN ({marks})", keys)
                found.update((dashed(row[0]), row[1]) for row in cursor.fetchall())
        return {one: found[one] for one in task_ids if one in found}

    def _remove(self, queue: str, ids: Sequence[str]) -> None:
        try:
            self.leases.remove(queue, ids)
        except exceptions.OperationalError as error:  # whoever takes one asks the database
            logger.warning("%s. %d revoked tasks stay in queue %s for now: %.200s", error, len(ids), queue, ids)

    def _revoke_without_rows(self, task_ids: Sequence[str], terminate: str | None) -> int:
        found = self.leases.look(task_ids) if task_ids else {}
        places = {one: place for one, place in found.items() if not place.durable}
        written: list[Written] = []
        now = self.leases.now() if places else 0.0
        for queue, ids in _by_queue({one: place.queue for one, place in places.items()}).items():
            free = []
            for task_id, holder in self.leases.stop(queue, ids).items():
                if isinstance(holder, tuple):
                    running = partial(self._revoke_running, task_id, holder[1].attempt, terminate)
                    transaction.on_commit(running, using=self.alias)
                else:
                    place = places[task_id]
                    written.append(written_of(_revoked(task_id, place.entry.attempt + 1), claim_of(place), now))
                    free.append(task_id)
            if free:
                transaction.on_commit(partial(self._remove, queue, free), using=self.alias)
        if written:
            with connections[self.alias].cursor() as cursor:
                self.ledger.write_within(cursor, written, "")
        return len(places)

    def _revoke_running(self, task_id: str, attempt: int, terminate: str | None) -> None:
        # What runs and is to be stopped is worth a row.
        if self._give_row(task_id, attempt) is not None:
            self.revoke([task_id], terminate=terminate)
        else:  # unless it is over, it waits, or runs for another time
            self._revoke_without_rows([task_id], terminate)

    def purge(self, queues: Queues) -> int:
        count = 0
        for queue in self.leases.of(queues, fresh=True):
            count += sum(wire.DURABLE not in flags for _, flags in self.leases.empty(queue))
        self.show_held(queues)
        return count + super().purge(queues)

    def show_held(self, queues: Queues = Queues()) -> None:  # noqa: B008 - immutable
        """Let the rows of all that is held say who holds it."""
        for queue, worker in self._holders(queues):
            running = {
                task_id: (lease.attempt, worker, lease.slot)
                for name, task_id, lease in self.leases.held(worker)
                if name == queue and lease.durable
            }
            self.rows.show_running(running)

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
        return found + [seen_of(place) for place in places.values() if not place.durable]

    def scheduled(self, queues: Collection[str], excluded: Collection[str], *, limit: int) -> list[Seen]:
        names = self.leases.of(Queues(tuple(queues), frozenset(excluded)), fresh=True)
        places = [place for place in self.leases.scheduled(names, limit) if not place.durable]
        found = super().scheduled(queues, excluded, limit=limit) + [seen_of(place) for place in places]
        return sorted(found, key=lambda one: one.due)[:limit]

    def line(self) -> Line:
        return RedisLine(super().line(), self.leases)

    # House-keeping

    def waker(self) -> Waker:
        if self.server.is_cluster and not JOINS:
            return Poller()
        kind = ClusterWaker if self.server.is_cluster else RedisWaker
        self._waker = kind(self.leases, self._worker, self._consumed, idle=self._idle)
        return self._waker

    def taker(self) -> Taker | None:
        return None if self.server.is_cluster else RedisTaker(self)

    def set_idle(self, worker: int, idle: bool) -> None:
        self._idle = idle
        if self._waker is not None:
            self._waker.listen(idle)

    def result_waker(self, task_id: str) -> ResultWaker:
        return RedisCaller(self.leases, task_id, self._queue_of)

    def _queue_of(self, task_id: str) -> str | None:
        row = self.rows.read([task_id]).get(task_id)
        return None if row is None else row.queue

    def close(self) -> None:
        super().close()
        self.server.close()


def _by_queue(queues: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for task_id, queue in queues.items():
        found.setdefault(queue, []).append(task_id)
    return found
