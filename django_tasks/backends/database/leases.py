"""Workers, their leases, and what becomes of what a dead one held."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from ... import exceptions, states
from ...ids import dashed
from .. import outcomes
from ..base import Broker, Held, Queues, WorkerInfo
from ..message import Holder, Outcome, Return, entries
from .dialect import TASK, WORKER, Dialect
from .engine import Engine
from .postgresql import PostgreSQL

logger = logging.getLogger(__name__)

#: Ids per statement of the slow paths.
MANY = 500

#: What a task is without that nobody holds.
FREE = "worker_id = NULL, slot = NULL, started_at = NULL, custom_state = NULL, meta = NULL"
#: A state (one parameter), but LIMITED for what a limit counts.
HELD_OR = "CASE WHEN limit_key IS NULL THEN %s ELSE 'LIMITED' END"

_HELD = "id, attempt, slot, losses, at_most_once, revoked_at IS NOT NULL, history, started_at IS NOT NULL"
#: Claimed by a worker that has no row any more.
_FORGOTTEN = f"worker_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {WORKER} w WHERE w.id = worker_id)"


class DatabaseLeases(Broker, ABC):
    """The verbs for workers of the database broker."""

    dialect: Dialect
    engine: Engine

    @abstractmethod
    def _key(self, task_id: str) -> str: ...

    @abstractmethod
    def _wake_idle(self) -> None: ...

    @abstractmethod
    def _return(self, returns: Sequence[Return], holder: Holder) -> set[str]: ...

    def register(self, worker: WorkerInfo) -> int:
        now = self.dialect.now

        def work(cursor: Any) -> int:
            cursor.execute(
                f"INSERT INTO {WORKER} (name, hostname, pid, pool, concurrency, queues, version, lease, task_names,"
                " started_at, beat_at, idle, draining, processed)"
                f" VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, {now}, {now}, %s, %s, 0)"
                + (" RETURNING id" if isinstance(self.dialect, PostgreSQL) else ""),
                [*worker[:5], str(worker.queues), worker.version, worker.lease, worker.task_names, False, False],
            )
            return int(cursor.fetchone()[0] if isinstance(self.dialect, PostgreSQL) else cursor.lastrowid)

        return self.engine.transaction(work)

    def restate(self, worker: int, *, queues: Queues, concurrency: int) -> None:
        self.engine.execute(
            f"UPDATE {WORKER} SET queues = %s, concurrency = %s WHERE id = %s",
            [str(queues), concurrency, worker],
        )

    def renew(self, worker: int, *, processed: int, draining: bool = False) -> bool:
        return bool(
            self.engine.execute(
                f"UPDATE {WORKER} SET beat_at = {self.dialect.now}, processed = %s, draining = %s"
                " WHERE id = %s AND lost_at IS NULL AND stopped_at IS NULL",
                [processed, draining, worker],
            )
        )

    def set_idle(self, worker: int, idle: bool) -> None:
        if isinstance(self.dialect, PostgreSQL):  # the others have nobody to tell
            self.engine.execute(f"UPDATE {WORKER} SET idle = %s WHERE id = %s", [idle, worker])

    def unregister(self, worker: int) -> None:
        def work(cursor: Any) -> int:
            cursor.execute(
                f"UPDATE {WORKER} SET stopped_at = {self.dialect.now}, idle = %s WHERE id = %s AND lost_at IS NULL",
                [False, worker],
            )
            cursor.execute(
                f"UPDATE {TASK} SET {FREE}, state = 'PENDING' WHERE worker_id = %s AND state = 'STARTED'"
                " AND revoked_at IS NULL",
                [worker],
            )

            return int(cursor.rowcount)

        if self.engine.transaction(work):
            self._wake_idle()
        for row in self._held_rows(worker):  # revoked meanwhile
            self._end(row, Holder(worker, row[2]), charged=False, max_losses=0, reason="")

    def held(self, worker: int, slot: int | None = None) -> list[Held]:
        return [Held(dashed(row[0]), row[1], row[2]) for row in self._held_rows(worker, slot)]

    def rescue(self, *, max_losses: int) -> int:
        epoch = self.dialect.epoch
        ran_out = f"lost_at IS NULL AND stopped_at IS NULL AND {epoch('beat_at')} + lease < {epoch(self.dialect.now)}"
        lost = self.engine.query(
            # A process that woke up after its end may have claimed before it learned of it.
            f"SELECT id, name FROM {WORKER} WHERE (stopped_at IS NOT NULL OR lost_at IS NOT NULL)"
            f" AND EXISTS (SELECT 1 FROM {TASK} t WHERE t.worker_id = {WORKER}.id)"
            f" OR {ran_out}"
            # It may even have slept until its row was deleted.
            f" UNION ALL SELECT DISTINCT worker_id, '' FROM {TASK} WHERE state = 'STARTED' AND {_FORGOTTEN}"
        )
        count = 0
        for worker, known_name in lost:
            name = known_name or f"number {worker}, which is known no more,"
            # From here on its heartbeat fails, and so it stops whatever it still runs.
            self.engine.execute(
                f"UPDATE {WORKER} SET lost_at = {self.dialect.now}, idle = %s WHERE id = %s AND {ran_out}",
                [False, worker],
            )
            for row in self._held_rows(worker, ended_only=True):
                # Unless it is known to have begun, only a first loss is charged: most of a batch had not.
                charged = bool(row[7]) or row[3] == 0
                reason = f"Worker {name} lost its lease"
                holder = Holder(worker, row[2], name)
                count += self._end_one(row, holder, charged=charged, max_losses=max_losses, reason=reason)
        return self._went_back(count)

    def lose(
        self, holder: Holder, running: Iterable[str], *, begun: Iterable[str] = (), max_losses: int, reason: str
    ) -> int:
        charged, not_to_repeat = set(running), set(begun)
        count = 0
        for row in self._held_rows(holder.worker, holder.slot):
            task_id = dashed(row[0])
            count += self._end_one(
                row,
                holder,
                charged=task_id in charged,
                begun=task_id in not_to_repeat,
                max_losses=max_losses,
                reason=reason,
            )
        return self._went_back(count)

    def give_back(self, holder: Holder, ids: Sequence[str]) -> int:
        count = 0
        for start in range(0, len(ids), MANY):
            keys = [self._key(one) for one in ids[start : start + MANY]]
            marks = ", ".join([self.dialect.uuid] * len(keys))
            count += self.engine.execute(
                f"UPDATE {TASK} SET {FREE}, state = 'PENDING' WHERE id IN ({marks}) AND worker_id = %s AND slot = %s"
                " AND state = 'STARTED' AND revoked_at IS NULL",
                [*keys, holder.worker, holder.slot],
            )
        if count < len(ids):  # revoked meanwhile, and nobody else would end them; or not its own any more
            asked = set(ids)
            for row in self._held_rows(holder.worker, holder.slot):
                if row[5] and dashed(row[0]) in asked:
                    count += self._end(row, holder, charged=False, max_losses=0, reason="")
        return self._went_back(count)

    def _went_back(self, count: int) -> int:
        """So many tasks are in their queues again: whoever is idle may take them."""
        if count:
            self._wake_idle()
        return count

    def _held_rows(self, worker: int, slot: int | None = None, *, ended_only: bool = False) -> list[tuple[Any, ...]]:
        where, params = "worker_id = %s AND state = 'STARTED'", [worker]
        if slot is not None:
            where += " AND slot = %s"
            params.append(slot)
        if ended_only:  # its lease may have been renewed in the last moment
            ended = "(w.lost_at IS NOT NULL OR w.stopped_at IS NOT NULL)"
            where += f" AND (EXISTS (SELECT 1 FROM {WORKER} w WHERE w.id = worker_id AND {ended}) OR {_FORGOTTEN})"
        return self.engine.query(f"SELECT {_HELD} FROM {TASK} WHERE {where}", params)

    def _end_one(self, row: Sequence[Any], holder: Holder, **how: Any) -> int:
        """Take one claim back, see :meth:`_end`; one that cannot be stays, is told of, and stops no other."""
        try:
            return self._end(row, holder, **how)
        except exceptions.OperationalError:
            raise
        except Exception:
            logger.exception("Task %s cannot be taken back from %s", dashed(row[0]), holder.name)
            return 0

    def _end(
        self,
        row: Sequence[Any],
        holder: Holder,
        *,
        charged: bool,
        begun: bool = False,
        max_losses: int,
        reason: str,
    ) -> int:
        """Take one claim back from a dead owner: again, or an end. Guarded by the attempt, so only one rescuer wins."""
        id_, attempt, _slot, losses, at_most_once, revoked, history, _started = row
        task_id = dashed(id_)
        done: Outcome | Return
        if revoked:
            done = outcomes.revoked(task_id, attempt)
        elif (at_most_once and (charged or begun)) or (charged and losses + 1 >= max_losses):
            why = "it is to run at most once" if at_most_once else f"{losses + 1} workers died over it (poison)"
            done = outcomes.failure(
                task_id, attempt, exceptions.WorkerLostError(f"{reason}; {why}."), state=states.FAILURE
            )
        else:
            entry = {"attempt": attempt, "outcome": "LOST", "worker": holder.name, "error": reason}
            log = json.dumps([*entries(history), entry]) if charged or begun else None
            done = Return(task_id, attempt, states.PENDING, lost=charged, history=log)
        if isinstance(done, Return):
            return 0 if self._return([done], holder) else 1
        return 0 if task_id in self.step([done], holder=holder).refused else 1
