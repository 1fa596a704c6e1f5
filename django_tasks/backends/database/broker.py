"""The database broker: every verb of the contract as guarded statements on the to-do list and the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from django.db import DataError, Error, IntegrityError, InterfaceError, connections, transaction
from django.db import OperationalError as DatabaseOperationalError

from ... import exceptions, states
from ...ids import dashed
from ...serialization import dumps, exception_to_data, storable
from ..base import Broker, Held, Queues, ResultWaker, Waker, WorkerInfo
from ..message import Holder, Message, Outcome, Return, Stepped, Survey
from . import wakers
from .dialect import CLAIMABLE, RESULT, TASK, WORKER, Dialect
from .engine import Engine
from .mysql import MySQL
from .plan import Plan
from .postgresql import DONE_CHANNEL, NOTIFY_IDLE, PostgreSQL
from .sqlite import SQLite

#: Messages per INSERT.
CHUNK = 1_000
#: Ids per statement of the slow paths.
MANY = 500
#: Seconds after which a worker that stopped is forgotten.
FORGET_WORKERS = 86_400.0

#: What says that a value cannot be stored, whoever finds out: the database, its driver or the JSON writer.
UNSTORABLE = (DataError, IntegrityError, exceptions.SerializationError, ValueError, TypeError)

_DIALECTS: dict[str, type[Dialect]] = {"postgresql": PostgreSQL, "sqlite": SQLite, "mysql": MySQL}

_HELD = "id, attempt, slot, losses, at_most_once, revoked_at IS NOT NULL, history, started_at IS NOT NULL"
_FREE = "worker_id = NULL, slot = NULL, started_at = NULL, custom_state = NULL, meta = NULL"


class DatabaseBroker(Broker):
    """The queue in the site's own database, under one Django alias."""

    supports_priority: ClassVar[bool] = True
    supports_transactions: ClassVar[bool] = True

    def __init__(self, alias: str = "default") -> None:
        vendor = connections[alias].vendor
        if vendor not in _DIALECTS:
            raise exceptions.ImproperlyConfigured(
                f"DJANGO_TASKS['DATABASE'] names the alias {alias!r}, a {vendor} database; supported are "
                "PostgreSQL, SQLite, MariaDB and MySQL."
            )
        self.alias = alias
        self.dialect = _DIALECTS[vendor]()
        self.engine = Engine(alias, self.dialect)
        self._plans: dict[Queues, Plan] = {}

    @property
    def generation(self) -> int:
        return self.engine.generation

    # Sending

    def publish(self, messages: Sequence[Message]) -> None:
        connection = connections[self.alias]
        autocommit = not connection.in_atomic_block
        try:
            if len(messages) > CHUNK:
                with transaction.atomic(using=self.alias, savepoint=False):
                    for start in range(0, len(messages), CHUNK):
                        self._insert(connection, messages[start : start + CHUNK], notify=False)
                    self._notify_on_commit(connection)
            else:
                self._insert(connection, messages, notify=autocommit)
                if not autocommit:
                    self._notify_on_commit(connection)
        except (DataError, IntegrityError):
            raise
        except Error as error:
            raise exceptions.OperationalError(f"The task could not be stored in {self.alias!r}: {error}") from error

    def _insert(self, connection: Any, messages: Sequence[Message], *, notify: bool) -> None:
        if len(messages) > 1 and notify and connection.vendor != "postgresql":
            with transaction.atomic(using=self.alias), connection.cursor() as cursor:
                self.dialect.publish(cursor, messages, notify)
            return
        with connection.cursor() as cursor:
            self.dialect.publish(cursor, messages, notify)

    def _notify_on_commit(self, connection: Any) -> None:
        """Wake idle workers when the caller's transaction commits; once, however much it sends."""
        if connection.vendor != "postgresql":
            return
        if not any(function == self._notify for _, function, *_ in connection.run_on_commit):
            transaction.on_commit(self._notify, using=self.alias)

    def _notify(self) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(NOTIFY_IDLE)

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
        outcomes = [one for one in done if isinstance(one, Outcome)]
        returns = [one for one in done if isinstance(one, Return)]
        refused: set[str] = set()
        if returns:
            refused |= self._return(returns, holder)
        plan = self._plan(queues)
        if limit and (plan.stale or plan.empty):
            plan.surveyed(self.dialect.bands(self.engine, plan.names))
        if not outcomes and not limit:
            return Stepped([], frozenset(refused))
        try:
            deliveries, not_mine, awaited = self._dialect_step(outcomes, holder, plan, limit, unknown)
        except UNSTORABLE:
            if not outcomes:
                raise
            # One outcome that cannot be stored must not take its neighbours along.
            not_mine, awaited = self._one_by_one(outcomes, holder, plan)
            deliveries, _, _ = self._dialect_step([], holder, plan, limit, unknown) if limit else ([], set(), [])
        if awaited:
            self.dialect.tell(self.engine, DONE_CHANNEL, awaited)
        return Stepped(plan.claimed(deliveries, limit), frozenset(refused | not_mine))

    def finish_within(self, outcome: Outcome, worker: str) -> bool:
        """Store one outcome in the transaction that is open on the caller's own connection; False if refused."""
        with connections[self.alias].cursor() as cursor:
            refused, awaited = self.dialect.finish(cursor, [outcome], worker)
        if awaited:
            self._tell_on_commit(awaited)
        return not refused

    def _dialect_step(
        self, outcomes: Sequence[Outcome], holder: Holder, plan: Plan, limit: int, unknown: Sequence[str]
    ) -> tuple[list[Any], set[str], list[str]]:
        return self.dialect.step(self.engine, outcomes, holder=holder, plan=plan, limit=limit, unknown=unknown)

    def _one_by_one(self, outcomes: Sequence[Outcome], holder: Holder, plan: Plan) -> tuple[set[str], list[str]]:
        refused: set[str] = set()
        awaited: list[str] = []
        for one in outcomes:
            try:
                _, not_mine, told = self._dialect_step([one], holder, plan, 0, ())
            except UNSTORABLE as error:
                _, not_mine, told = self._dialect_step([_unstorable(one, error)], holder, plan, 0, ())
            refused |= not_mine
            awaited += told
        return refused, awaited

    def _return(self, returns: Sequence[Return], holder: Holder) -> set[str]:
        refused: set[str] = set()
        cancelled: list[Return] = []
        for one in returns:
            sets = [_FREE, "state = %s"]
            params: list[Any] = [one.state]
            if one.eta is not None:
                sets.append("due_at = %s")
                params.append(self._moment(one.eta))
            elif one.delay is not None:
                sets.append(f"due_at = {self.dialect.later}")
                params.append(one.delay)
            for column in ("retries", "history", "body", "options", "queue", "priority"):
                value = getattr(one, column)
                if value is not None:
                    sets.append(f"{column} = %s")
                    params.append(value)
            if one.body is not None:
                sets.append("encoding = %s")
                params.append(one.encoding)
            if one.lost:
                sets.append("losses = losses + 1")
            owned = f"WHERE id = {self.dialect.uuid} AND attempt = %s AND state = 'STARTED'"
            sql = f"UPDATE {TASK} SET {', '.join(sets)} {owned}"
            try:
                if not self.engine.execute(f"{sql} AND revoked_at IS NULL", [*params, self._key(one.id), one.attempt]):
                    cancelled.append(one)
            except UNSTORABLE as error:
                failed = _unstorable(one, error)
                _, not_mine, awaited = self._dialect_step([failed], holder, self._plan(Queues()), 0, ())
                refused |= not_mine
                self.dialect.tell(self.engine, DONE_CHANNEL, awaited)
        for one in cancelled:  # asked to stop while it ran, or not ours any more
            if self.is_revoked(one.id, one.attempt):
                _, not_mine, awaited = self._dialect_step(
                    [_revoked(one.id, one.attempt)], holder, self._plan(Queues()), 0, ()
                )
                refused |= not_mine
                self.dialect.tell(self.engine, DONE_CHANNEL, awaited)
            else:
                refused.add(one.id)
        return refused

    def survey(self, queues: Queues) -> Survey:
        plan = self._plan(queues)
        bands = plan.surveyed(self.dialect.bands(self.engine, plan.names))
        later = [band.due_in for band in bands if band.due_in > 0]
        # The head of a priority hides nothing that is due earlier: a priority is in order of due time.
        return Survey(any(band.due_in <= 0 for band in bands), min(later, default=None))

    # Workers and leases

    def register(self, worker: WorkerInfo) -> int:
        now = self.dialect.now

        def work(cursor: Any) -> int:
            cursor.execute(
                f"INSERT INTO {WORKER} (name, hostname, pid, pool, concurrency, queues, version, lease, started_at,"
                f" beat_at, idle, draining, processed) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, {now}, {now}, %s, %s, 0)"
                + (" RETURNING id" if isinstance(self.dialect, PostgreSQL) else ""),
                [*worker[:5], str(worker.queues), worker.version, worker.lease, False, False],
            )
            return int(cursor.fetchone()[0] if isinstance(self.dialect, PostgreSQL) else cursor.lastrowid)

        return self.engine.transaction(work)

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
        def work(cursor: Any) -> None:
            cursor.execute(
                f"UPDATE {WORKER} SET stopped_at = {self.dialect.now}, idle = %s WHERE id = %s AND lost_at IS NULL",
                [False, worker],
            )
            cursor.execute(
                f"UPDATE {TASK} SET {_FREE}, state = 'PENDING' WHERE worker_id = %s AND state = 'STARTED'"
                " AND revoked_at IS NULL",
                [worker],
            )

        self.engine.transaction(work)
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
        )
        count = 0
        for worker, name in lost:
            # From here on its heartbeat fails, and so it stops whatever it still runs.
            self.engine.execute(
                f"UPDATE {WORKER} SET lost_at = {self.dialect.now}, idle = %s WHERE id = %s AND {ran_out}",
                [False, worker],
            )
            for row in self._held_rows(worker, ended_only=True):
                # Unless it is known to have begun, only a first loss is charged: most of a batch had not.
                charged = bool(row[7]) or row[3] == 0
                reason = f"Worker {name} lost its lease"
                count += self._end(
                    row, Holder(worker, row[2], name), charged=charged, max_losses=max_losses, reason=reason
                )
        return count

    def lose(
        self, holder: Holder, running: Iterable[str], *, begun: Iterable[str] = (), max_losses: int, reason: str
    ) -> int:
        charged, not_to_repeat = set(running), set(begun)
        count = 0
        for row in self._held_rows(holder.worker, holder.slot):
            task_id = dashed(row[0])
            count += self._end(
                row,
                holder,
                charged=task_id in charged,
                begun=task_id in not_to_repeat,
                max_losses=max_losses,
                reason=reason,
            )
        return count

    def give_back(self, holder: Holder, ids: Sequence[str]) -> int:
        count = 0
        for start in range(0, len(ids), MANY):
            keys = [self._key(one) for one in ids[start : start + MANY]]
            marks = ", ".join([self.dialect.uuid] * len(keys))
            count += self.engine.execute(
                f"UPDATE {TASK} SET {_FREE}, state = 'PENDING' WHERE id IN ({marks}) AND worker_id = %s AND slot = %s"
                " AND state = 'STARTED' AND revoked_at IS NULL",
                [*keys, holder.worker, holder.slot],
            )
        if count < len(ids):  # revoked meanwhile, and nobody else would end them; or not its own any more
            asked = set(ids)
            for row in self._held_rows(holder.worker, holder.slot):
                if row[5] and dashed(row[0]) in asked:
                    count += self._end(row, holder, charged=False, max_losses=0, reason="")
        return count

    def adopt(self, names: Iterable[str]) -> int:
        found = self.engine.query(f"SELECT DISTINCT name FROM {TASK} WHERE state = 'UNROUTABLE'")
        known = sorted({row[0] for row in found} & set(names))
        if not known:
            return 0
        marks = ", ".join(["%s"] * len(known))
        return self.engine.execute(
            f"UPDATE {TASK} SET state = 'PENDING' WHERE state = 'UNROUTABLE' AND name IN ({marks})",
            known,
        )

    # One task

    def mark_started(self, running: Mapping[tuple[str, int], float]) -> None:
        for (task_id, attempt), seconds in running.items():
            self.engine.execute(
                f"UPDATE {TASK} SET started_at = {self.dialect.later} WHERE id = {self.dialect.uuid} AND attempt = %s"
                " AND state = 'STARTED' AND started_at IS NULL",
                [-seconds, self._key(task_id), attempt],
            )

    def report(self, task_id: str, attempt: int, state: str, meta: str | None) -> bool:
        sql = (
            f"UPDATE {TASK} SET custom_state = %s, meta = %s, started_at = coalesce(started_at, {self.dialect.now})"
            f" WHERE id = {self.dialect.uuid} AND attempt = %s AND state = 'STARTED'"
        )
        params = [state, meta, self._key(task_id), attempt]
        caller = connections[self.alias]
        if caller.vendor == "sqlite" and caller.in_atomic_block:
            # The task itself may hold the one write lock: another connection would wait for it in vain.
            with caller.cursor() as cursor:
                cursor.execute(sql, params)
                return bool(cursor.rowcount)
        return bool(self.engine.execute(sql, params))

    def is_revoked(self, task_id: str, attempt: int) -> bool:
        rows = self.engine.query(
            f"SELECT revoked_at IS NOT NULL FROM {TASK} WHERE id = {self.dialect.uuid} AND attempt = %s"
            " AND state = 'STARTED'",
            [self._key(task_id), attempt],
        )
        return not rows or bool(rows[0][0])

    def revoke(self, task_ids: Sequence[str]) -> int:
        """As promised; in the caller's transaction, so that what was sent in it can be revoked in it."""
        try:
            return sum(self._revoke(task_id) for task_id in task_ids)
        except (DatabaseOperationalError, InterfaceError) as error:
            raise exceptions.OperationalError(f"The database {self.alias!r} cannot be reached: {error}") from error

    def _revoke(self, task_id: str) -> int:
        take = (
            f"UPDATE {TASK} SET revoked_at = {self.dialect.now}, state = 'STARTED', attempt = attempt + 1"
            f" WHERE id = {self.dialect.uuid} AND state <> 'STARTED'"
        )
        mark = f"UPDATE {TASK} SET revoked_at = coalesce(revoked_at, {self.dialect.now}) WHERE id = {self.dialect.uuid}"
        attempt = f"SELECT attempt FROM {TASK} WHERE id = {self.dialect.uuid}"
        key = self._key(task_id)
        with transaction.atomic(using=self.alias), connections[self.alias].cursor() as cursor:
            # Taken as a worker would, so that no worker can, and ended in the same transaction.
            cursor.execute(take, [key])
            if not cursor.rowcount:
                cursor.execute(mark, [key])
                return int(cursor.rowcount)
            cursor.execute(attempt, [key])
            _, awaited = self.dialect.finish(cursor, [_revoked(task_id, cursor.fetchone()[0])], "")
            if awaited:
                self._tell_on_commit(awaited)
            return 1

    def _tell_on_commit(self, awaited: list[str]) -> None:
        transaction.on_commit(lambda: self.dialect.tell(self.engine, DONE_CHANNEL, awaited), using=self.alias)

    def purge(self, queues: Queues) -> int:
        where, params = [CLAIMABLE], list(queues.names)
        if queues.names:
            where.append(f"queue IN ({', '.join(['%s'] * len(queues.names))})")
        if queues.excluded:
            where.append(f"queue NOT IN ({', '.join(['%s'] * len(queues.excluded))})")
            params += sorted(queues.excluded)
        return self._delete(TASK, f"{' AND '.join(where)} ORDER BY queue, priority DESC, due_at", params)

    # House-keeping

    def prune(
        self, expires: Mapping[str, timedelta | None], *, batch: int = 1_000, deadline: float = float("inf")
    ) -> int:
        count = 0
        for state, age in expires.items():
            if age is not None:
                count += self._delete(
                    RESULT,
                    f"state = %s AND finished_at < {self.dialect.later} ORDER BY finished_at",
                    [state, -age.total_seconds()],
                    batch=batch,
                    deadline=deadline,
                )
        self.engine.execute(
            f"DELETE FROM {WORKER} WHERE coalesce(stopped_at, lost_at) < {self.dialect.later}"
            f" AND NOT EXISTS (SELECT 1 FROM {TASK} t WHERE t.worker_id = {WORKER}.id)",
            [-FORGET_WORKERS],
        )
        return count

    def waker(self) -> Waker:
        if wakers.can_listen(self.alias):
            return wakers.Listener(Engine(self.alias, self.dialect))
        return wakers.local_waker(self.alias)

    def result_waker(self, task_id: str) -> ResultWaker:
        if wakers.can_listen(self.alias):
            mark = f"UPDATE {TASK} SET awaited = true WHERE id = {self.dialect.uuid}"
            return wakers.ListeningCaller(Engine(self.alias, self.dialect), self._key(task_id), mark)
        return wakers.LookingCaller(wakers.local_waker(self.alias))

    def now(self) -> datetime:
        seconds = self.engine.query(f"SELECT {self.dialect.epoch(self.dialect.now)}")[0][0]
        return datetime.fromtimestamp(float(seconds), UTC)

    def close(self) -> None:
        self.engine.close()

    # Inside

    def _plan(self, queues: Queues) -> Plan:
        plan = self._plans.get(queues)
        if plan is None:
            plan = self._plans[queues] = Plan(queues)
        return plan

    def _key(self, task_id: str) -> str:
        return self.dialect.key(task_id)

    def _moment(self, moment: datetime) -> Any:
        return (
            moment
            if isinstance(self.dialect, PostgreSQL)
            else moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
        )

    def _held_rows(self, worker: int, slot: int | None = None, *, ended_only: bool = False) -> list[tuple[Any, ...]]:
        where, params = "worker_id = %s AND state = 'STARTED'", [worker]
        if slot is not None:
            where += " AND slot = %s"
            params.append(slot)
        if ended_only:  # its lease may have been renewed in the last moment
            ended = "(w.lost_at IS NOT NULL OR w.stopped_at IS NOT NULL)"
            where += f" AND EXISTS (SELECT 1 FROM {WORKER} w WHERE w.id = worker_id AND {ended})"
        return self.engine.query(f"SELECT {_HELD} FROM {TASK} WHERE {where}", params)

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
            done = _revoked(task_id, attempt)
        elif (at_most_once and (charged or begun)) or (charged and losses + 1 >= max_losses):
            why = "it is to run at most once" if at_most_once else f"{losses + 1} workers died over it (poison)"
            done = _failure(task_id, attempt, exceptions.WorkerLostError(f"{reason}; {why}."), state=states.FAILURE)
        else:
            entry = {"attempt": attempt, "outcome": "LOST", "worker": holder.name, "error": reason}
            earlier = json.loads(history) if history else []
            log = json.dumps([*earlier, entry]) if charged else None
            done = Return(task_id, attempt, states.PENDING, lost=charged, history=log)
        return 0 if task_id in self.step([done], holder=holder).refused else 1

    def _delete(
        self, table: str, where: str, params: Sequence[Any], *, batch: int = 1_000, deadline: float = float("inf")
    ) -> int:
        """Delete by primary key in bounded batches: no statement is long, no gap is locked."""
        count = 0
        while True:
            keys = sorted(
                row[0] for row in self.engine.query(f"SELECT id FROM {table} WHERE {where} LIMIT {batch:d}", params)
            )
            if keys:
                marks = ", ".join([self.dialect.uuid] * len(keys))
                extra = f" AND {CLAIMABLE}" if table == TASK else ""
                count += self.engine.execute(f"DELETE FROM {table} WHERE id IN ({marks}){extra}", keys)
            if len(keys) < batch or time.monotonic() > deadline:
                return count


def _revoked(task_id: str, attempt: int) -> Outcome:
    return _failure(task_id, attempt, exceptions.TaskRevokedError("revoked"), state=states.REVOKED)


def _unstorable(one: Outcome | Return, error: Exception) -> Outcome:
    problem = exceptions.EncodeError(f"The outcome {one.state} could not be stored: {storable(str(error))[:500]}")
    return _failure(one.id, one.attempt, problem, runtime=one.runtime if isinstance(one, Outcome) else None)


def _failure(
    task_id: str, attempt: int, error: Exception, *, state: str = states.FAILURE, runtime: float | None = None
) -> Outcome:
    encoding, text = dumps(exception_to_data(error))
    return Outcome(
        task_id,
        attempt,
        state,
        result=text,
        result_encoding=encoding,
        exception=f"{type(error).__name__}: {error}"[:255],
        runtime=runtime,
    )
