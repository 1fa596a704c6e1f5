"""The database broker: every verb of the contract as guarded statements on the to-do list and the ledger."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.db import DataError, Error, IntegrityError, InterfaceError, connections, transaction
from django.db import OperationalError as DatabaseOperationalError

from ... import exceptions, states
from ...ids import dashed
from ...stamps import Wanted, matching
from .. import stores
from ..base import Broker, Queues, ResultWaker, ToStop, Waker
from ..message import Admission, Delivery, Edge, Holder, Message, Outcome, Return, Stepped, Survey
from ..outcomes import revoked, unstorable
from ..rules import Rules
from . import wakers
from .arrivals import TAG, Arrivals
from .control import DatabaseControl
from .dialect import RESULT, TASK, Band, Dialect, Followed, rules_of
from .engine import Engine
from .gate import Gate
from .leases import FREE, HELD_OR, MANY, DatabaseLeases
from .logs import Logs
from .metrics import Metrics
from .mysql import MySQL
from .plan import SURVEY_EVERY, Plan
from .postgresql import DONE_CHANNEL, NOTIFY_IDLE, PostgreSQL
from .pruning import DatabasePruning
from .sqlite import SQLite
from .workflow import Released, Told, Workflows

logger = logging.getLogger(__name__)

#: Messages per INSERT.
CHUNK = 1_000

#: How often a claim that found only what may not start looks behind it.
WITHHOLDINGS = 10

#: What says that a value cannot be stored, whoever finds out: the database, its driver or the JSON writer.
UNSTORABLE = (DataError, IntegrityError, exceptions.SerializationError, ValueError, TypeError)

_DIALECTS: dict[str, type[Dialect]] = {"postgresql": PostgreSQL, "sqlite": SQLite, "mysql": MySQL}

#: What may be given another time.
RESCHEDULABLE = "state IN ('PENDING', 'RETRY', 'LIMITED')"


class DatabaseBroker(DatabaseLeases, DatabaseControl, DatabasePruning, Broker):
    """The queue in the site's own database, under one Django alias."""

    supports_priority: ClassVar[bool] = True
    supports_transactions: ClassVar[bool] = True
    supports_workflows: ClassVar[bool] = True
    #: What gives it its connection.
    engine_class: ClassVar[type[Engine]] = Engine

    def __init__(self, alias: str = "default") -> None:
        vendor = connections[alias].vendor
        if vendor not in _DIALECTS:
            raise exceptions.ImproperlyConfigured(
                f"DJANGO_TASKS['DATABASE'] names the alias {alias!r}, a {vendor} database; supported are "
                "PostgreSQL, SQLite, MariaDB and MySQL."
            )
        self.alias = alias
        self.dialect = _DIALECTS[vendor]()
        self.engine = self.engine_class(alias, self.dialect)
        self._plans: dict[Queues, Plan] = {}
        self._rules = Rules()
        self._limited = False
        self.metrics = Metrics(self.engine)
        self.logs = Logs(self.engine)
        self._gate = Gate(self.engine, self.dialect)
        self._arrivals = Arrivals(alias, self.dialect)
        self._workflows = Workflows(alias, self.dialect, self._arrivals)

    @property
    def generation(self) -> int:
        return self.engine.generation

    # Sending

    def publish(self, messages: Sequence[Message]) -> None:
        connection = connections[self.alias]
        autocommit = not connection.in_atomic_block
        try:
            if any(one.limit_key is not None or one.unique is not None or one.tags for one in messages):
                self._arrivals.store(messages)
                self._wake()
            elif len(messages) > CHUNK:
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

    def publish_workflow(self, messages: Sequence[Message], edges: Sequence[Edge]) -> None:
        try:
            self._workflows.store(messages, edges)
            self._wake()
        except (DataError, IntegrityError):
            raise
        except Error as error:
            raise exceptions.OperationalError(f"The tasks could not be stored in {self.alias!r}: {error}") from error

    def extend_chord(self, body: str, messages: Sequence[Message], edges: Sequence[Edge], value: Any) -> bool:
        try:
            return self._workflows.extend(body, messages, edges, value)
        except (DatabaseOperationalError, InterfaceError) as error:
            raise exceptions.OperationalError(f"The tasks could not be stored in {self.alias!r}: {error}") from error
        finally:
            self._wake()

    def _insert(self, connection: Any, messages: Sequence[Message], *, notify: bool) -> None:
        if len(messages) == 1 and self.dialect.publish_prepared(
            connection, messages[0], notify, self._notification(connection)
        ):
            return
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
        if self._notification(connection) is None:
            transaction.on_commit(self._notify, using=self.alias)

    def _notification(self, connection: Any) -> object:
        """Return what stands for the notification on commit, once the open transaction has one."""
        if not connection.in_atomic_block or connection.vendor != "postgresql":
            return None
        return next((one for one in connection.run_on_commit if one[1] == self._notify), None)

    def wake(self) -> None:
        self._wake()

    def _wake(self) -> None:
        """The caller's transaction may leave something to do when it commits."""
        connection = connections[self.alias]
        if connection.in_atomic_block:
            self._notify_on_commit(connection)
        elif connection.vendor == "postgresql":
            self._notify()

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
        stores.keep(outcomes)
        refused: set[str] = set()
        if returns:
            refused |= self._return(returns, holder)
            if any(one.state != states.UNROUTABLE for one in returns):
                self._wake_idle()  # this worker may be busy when they are due
        plan = self._plan(queues)
        if limit and plan.empty:
            self._survey(plan)
        linked = [one for one in outcomes if one.linked]
        outcomes = [one for one in outcomes if not one.linked]
        claimed: list[Delivery] | None = None
        if linked:
            not_mine, claimed = self._step_linked(linked, holder, plan, 0 if outcomes else limit, unknown)
            refused |= not_mine
        if not outcomes and not limit:
            return Stepped([], frozenset(refused))
        if claimed is not None:
            deliveries, not_mine = claimed, set()
        else:
            deliveries, not_mine = self._step_plain(outcomes, holder, plan, limit, unknown)
        # After the step, not before it: the first task after a pause waits for one statement less.
        if limit and plan.stale and (done or not deliveries):
            due = any(band.due_in <= 0 for band in self._survey(plan))
            if due and not deliveries:  # in a queue that nobody had seen
                deliveries, _, _ = self._dialect_step([], holder, plan, limit, unknown)
        elif deliveries and self._rules.age > SURVEY_EVERY:  # they may have been changed since
            self._rules = rules_of(self.engine.query(self.dialect.rules_sql()))
        deliveries = plan.claimed(deliveries, limit)
        if self._rules and deliveries:
            deliveries = self._withhold(deliveries, holder, plan, limit, unknown)
        refused |= not_mine
        hand_on(linked, refused, deliveries)
        return Stepped(deliveries, frozenset(refused))

    def _step_plain(
        self, outcomes: Sequence[Outcome], holder: Holder, plan: Plan, limit: int, unknown: Sequence[str]
    ) -> tuple[list[Delivery], set[str]]:
        """Store outcomes for which nobody waits, and claim; return what was claimed, and the refused ids."""
        try:
            deliveries, refused, awaited = self._dialect_step(outcomes, holder, plan, limit, unknown)
        except UNSTORABLE:
            if not outcomes:
                raise
            # One outcome that cannot be stored must not take its neighbours along.
            refused, awaited = self._one_by_one(outcomes, holder, plan)
            deliveries, _, _ = self._dialect_step([], holder, plan, limit, unknown) if limit else ([], set(), [])
        self._tell(awaited)
        self._tidy_after(outcomes, refused)
        return deliveries, refused

    def _withhold(
        self, deliveries: list[Delivery], holder: Holder, plan: Plan, limit: int, unknown: Sequence[str]
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
            deliveries, _, _ = self._dialect_step([], holder, plan, limit, unknown)
            deliveries = plan.claimed(deliveries, limit)
        self._put_aside(holder, [one.id for one in deliveries if self._rules.hold(one)])
        return [one for one in deliveries if not self._rules.hold(one)]

    def _put_aside(self, holder: Holder, ids: Sequence[str]) -> None:
        """Turn claims of a slot into tasks that wait to be let through; those revoked meanwhile end."""
        for start in range(0, len(ids), MANY):
            some = ids[start : start + MANY]
            marks = ", ".join([self.dialect.uuid] * len(some))
            count = self.engine.execute(
                f"UPDATE {TASK} SET {FREE}, state = 'LIMITED', limit_key = coalesce(limit_key, '') WHERE id IN"
                f" ({marks}) AND worker_id = %s AND slot = %s AND state = 'STARTED' AND revoked_at IS NULL",
                [*sorted(self._key(one) for one in some), holder.worker, holder.slot],
            )
            if count < len(some):
                self.give_back(holder, some)

    def _step_linked(
        self, outcomes: Sequence[Outcome], holder: Holder, plan: Plan, limit: int, unknown: Sequence[str]
    ) -> tuple[set[str], list[Delivery] | None]:
        """Store outcomes and what follows from them for others; return the refused ids, and what was claimed along, if
        that was done."""
        if all(one.state == states.SUCCESS and not one.in_chord and one.body is None for one in outcomes):
            with contextlib.suppress(*UNSTORABLE):
                done = self.dialect.step_and_follow(
                    self.engine, outcomes, holder=holder, plan=plan, limit=limit, unknown=unknown
                )
                if done is not None:
                    return self._after_following(outcomes, done, plan, limit)
        return self._finish_linked(outcomes, holder, plan, limit, unknown)

    def _after_following(
        self, outcomes: Sequence[Outcome], done: Followed, plan: Plan, limit: int
    ) -> tuple[set[str], list[Delivery] | None]:
        released = [Released(*one) for one in done.released]
        if done.left:  # revoked or rescheduled in the same moment
            told = self.engine.transaction(lambda cursor: self._workflows.settle(cursor, done.left))
            released += told.released
            self._tell(told.awaited)
        self._tell(done.awaited)
        self._tidy_after(outcomes, done.refused)
        self._wake_for(released, plan, limit)
        return done.refused, done.deliveries or None

    def _finish_linked(
        self,
        outcomes: Sequence[Outcome],
        holder: Holder,
        plan: Plan | None = None,
        limit: int = 0,
        unknown: Sequence[str] = (),
    ) -> tuple[set[str], list[Delivery] | None]:
        """The same in one transaction of many statements."""

        def work(cursor: Any, outcomes: Sequence[Outcome] = outcomes) -> tuple[Told, list[Any] | None]:
            told = self._workflows.finish(cursor, outcomes, holder.name)
            if not limit:
                return told, None
            return told, self.dialect.claim_within(cursor, holder=holder, plan=plan, limit=limit, unknown=unknown)

        try:
            told, rows = self.engine.transaction(work)
        except UNSTORABLE as error:
            if len(outcomes) > 1:
                return set().union(*(self._finish_linked([one], holder)[0] for one in outcomes)), None
            failed = [unstorable(outcomes[0], error)]
            told, rows = self.engine.transaction(lambda cursor: work(cursor, failed))
        self._tidy_after(outcomes, told.refused)
        self._tell(told.awaited)
        claimed = None if rows is None else [self.dialect.delivery(row) for row in rows]
        here = {one.id for one in claimed or ()}
        self._wake_for([one for one in told.released if one.id not in here], plan, limit)
        return told.refused, claimed

    def _wake_for(self, released: Sequence[Released], plan: Plan | None, limit: int) -> None:
        """Wake others for what may run now, unless it is one that this worker claims next."""
        mine = [plan is not None and plan.expects(one.queue) for one in released]
        if mine and not (limit and mine == [True]):
            self._wake_idle()

    def _tell(self, awaited: Sequence[str]) -> None:
        if awaited:
            self.dialect.tell(self.engine, DONE_CHANNEL, awaited)

    def _wake_idle(self) -> None:
        if isinstance(self.dialect, PostgreSQL):
            self.engine.query(NOTIFY_IDLE)

    def unblock(self) -> int:
        count, told = self._workflows.sweep(self.engine)
        self._tell(told.awaited)
        if count:
            self._wake_idle()
        return count

    def finish_within(self, outcome: Outcome, worker: str) -> bool:
        """Store one outcome in the transaction that is open on the caller's own connection; False if refused."""
        stores.keep([outcome])
        with connections[self.alias].cursor() as cursor:
            if outcome.linked:
                refused, awaited, released = self._workflows.finish(cursor, [outcome], worker)
                if released:
                    self._wake()
            else:
                refused, awaited = self.dialect.finish(cursor, [outcome], worker)
            if outcome.tagged and not outcome.keep and not refused:
                cursor.execute(f"DELETE FROM {TAG} WHERE task_id = {self.dialect.uuid}", [self._key(outcome.id)])
        if awaited:
            self._tell_on_commit(awaited)
        if refused:
            self._drop_values([outcome])
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
                _, not_mine, told = self._dialect_step([unstorable(one, error)], holder, plan, 0, ())
            refused |= not_mine
            awaited += told
        return refused, awaited

    def _return(self, returns: Sequence[Return], holder: Holder) -> set[str]:
        refused: set[str] = set()
        cancelled: list[Return] = []
        for one in returns:
            if one.replacement is not None:
                if not self._replace(one):
                    cancelled.append(one)
                continue
            again = HELD_OR if one.state == states.RETRY else "%s"  # the next attempt is let through like the first
            sets = [FREE, f"state = {again}"]
            params: list[Any] = [one.state]
            if one.eta is not None:
                sets.append("due_at = %s")
                params.append(self.dialect.moment(one.eta))
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
                refused |= self._finish_linked([unstorable(one, error)], holder)[0]
        for one in cancelled:  # asked to stop while it ran, or not ours any more
            if self.is_revoked(one.id, one.attempt):
                refused |= self._finish_linked([revoked(one.id, one.attempt)], holder)[0]
            else:
                refused.add(one.id)
        return refused

    def _replace(self, one: Return) -> bool:
        new = one.replacement
        assert new is not None  # noqa: S101 - the caller asked
        return self.engine.transaction(
            lambda cursor: self._workflows.replace(
                cursor, new.own, one.attempt, one.history or "[]", new.others, new.edges
            )
        )

    def replace_within(self, one: Return) -> bool:
        """Replace a running task in the transaction that is open on the caller's own connection; False if refused."""
        new = one.replacement
        assert new is not None  # noqa: S101 - the caller made it so
        with connections[self.alias].cursor() as cursor:
            done = self._workflows.replace(cursor, new.own, one.attempt, one.history or "[]", new.others, new.edges)
        self._wake()
        return done

    def survey(self, queues: Queues) -> Survey:
        bands = self._survey(self._plan(queues))
        later = [band.due_in for band in bands if band.due_in > 0]
        pauses = self._rules.paused_queues().items()
        later += [left for queue, left in pauses if left < math.inf and queues.includes(queue)]
        # The head of a priority hides nothing that is due earlier: a priority is in order of due time.
        return Survey(any(band.due_in <= 0 for band in bands), min(later, default=None), self._limited)

    def admit(self, queues: Queues, *, free: int = 1) -> Admission:
        return self._gate.admit(queues, free)

    # Names that nobody knows

    def adopt(self, names: Iterable[str]) -> int:
        found = self.engine.query(f"SELECT DISTINCT name FROM {TASK} WHERE state = 'UNROUTABLE'")
        known = sorted({row[0] for row in found} & set(names))
        if not known:
            return 0
        marks = ", ".join(["%s"] * len(known))
        count = self.engine.execute(
            f"UPDATE {TASK} SET state = {HELD_OR} WHERE state = 'UNROUTABLE' AND name IN ({marks})",
            [states.PENDING, *known],
        )
        return self._went_back(count)

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

    def to_stop(self, worker: int) -> list[ToStop]:
        rows = self.engine.query(
            f"SELECT id, attempt, slot, terminate FROM {TASK} WHERE worker_id = %s AND state = 'STARTED'"
            " AND revoked_at IS NOT NULL",
            [worker],
        )
        return [ToStop(dashed(row[0]), *row[1:]) for row in rows]

    def revoke(self, task_ids: Sequence[str], *, terminate: str | None = None) -> int:
        """As promised; in the caller's transaction, so that what was sent in it can be revoked in it."""
        try:
            return sum(self._revoke(task_id, terminate) for task_id in task_ids)
        except (DatabaseOperationalError, InterfaceError) as error:
            raise exceptions.OperationalError(f"The database {self.alias!r} cannot be reached: {error}") from error

    def _revoke(self, task_id: str, terminate: str | None) -> int:
        take = (
            f"UPDATE {TASK} SET revoked_at = {self.dialect.now}, state = 'STARTED', attempt = attempt + 1"
            f" WHERE id = {self.dialect.uuid} AND state <> 'STARTED'"
        )
        mark = (
            f"UPDATE {TASK} SET revoked_at = coalesce(revoked_at, {self.dialect.now}),"
            f" terminate = coalesce(%s, terminate) WHERE id = {self.dialect.uuid}"
        )
        attempt = f"SELECT attempt FROM {TASK} WHERE id = {self.dialect.uuid}"
        key = self._key(task_id)
        with transaction.atomic(using=self.alias), connections[self.alias].cursor() as cursor:
            # Taken as a worker would, so that no worker can, and ended in the same transaction.
            cursor.execute(take, [key])
            if not cursor.rowcount:
                cursor.execute(mark, [terminate, key])
                return int(cursor.rowcount)
            cursor.execute(attempt, [key])
            told = self._workflows.finish(cursor, [revoked(task_id, cursor.fetchone()[0])], "")
            if told.awaited:
                self._tell_on_commit(told.awaited)
            if told.released:
                self._release_on_commit(told.released)
            return 1

    def _release_on_commit(self, released: Sequence[Released]) -> None:
        self._wake()

    def _tell_on_commit(self, awaited: list[str]) -> None:
        transaction.on_commit(lambda: self.dialect.tell(self.engine, DONE_CHANNEL, awaited), using=self.alias)

    def reschedule(
        self,
        task_ids: Sequence[str],
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        eta: datetime | None = None,
    ) -> list[str]:
        sets: dict[str, Any] = {"queue = %s": queue, "priority = %s": priority, f"due_at = {self.dialect.later}": delay}
        sets["due_at = %s"] = None if eta is None else self.dialect.moment(eta)
        given = {column: value for column, value in sets.items() if value is not None}
        if not given:
            raise ValueError("reschedule() changes a queue, a priority or a time: give at least one")
        timed = delay is not None or eta is not None
        allowed = RESCHEDULABLE if timed else f"{RESCHEDULABLE[:-1]}, 'WAITING', 'UNROUTABLE')"
        sql = f"UPDATE {TASK} SET {', '.join(given)} WHERE id = {self.dialect.uuid} AND {allowed}"
        changed = []
        try:
            with transaction.atomic(using=self.alias), connections[self.alias].cursor() as cursor:
                for task_id in sorted(task_ids):  # in one order, so that two of these never wait for each other
                    cursor.execute(sql, [*given.values(), self._key(task_id)])
                    if cursor.rowcount:
                        changed.append(task_id)
                if changed:
                    self._wake()
        except (DatabaseOperationalError, InterfaceError) as error:
            raise exceptions.OperationalError(f"The database {self.alias!r} cannot be reached: {error}") from error
        return changed

    def find(
        self,
        *,
        name: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        stamps: Wanted | None = None,
        after: str = "",
        limit: int,
    ) -> list[str]:
        where: list[str] = ["revoked_at IS NULL"]
        params: list[Any] = []
        for column, value in (("name", name), ("queue", queue)):
            if value is not None:
                where.append(f"{column} = %s")
                params.append(value)
        if tag is not None:
            where.append(f"id IN (SELECT task_id FROM {TAG} WHERE tag = %s)")
            params.append(tag)
        if stamps is not None:
            where.append("options LIKE %s")
            params.append('%"stamps"%')
        found: list[str] = []
        while True:
            ahead = f" AND id > {self.dialect.uuid}" if after else ""
            sql = f"SELECT id, options FROM {TASK} WHERE {' AND '.join(where)}{ahead} ORDER BY id LIMIT {limit:d}"
            rows = self._of_caller(sql, [*params, self._key(after)] if after else params)
            found += [dashed(id_) for id_, options in rows if stamps is None or matching(options, stamps)]
            if len(found) >= limit or len(rows) < limit:
                return found[:limit]
            after = dashed(rows[-1][0])

    def _of_caller(self, sql: str, params: Sequence[Any]) -> list[Any]:
        """Return rows as the caller's own transaction sees them."""
        try:
            with connections[self.alias].cursor() as cursor:
                cursor.execute(sql, params)
                return list(cursor.fetchall())
        except (DatabaseOperationalError, InterfaceError) as error:
            raise exceptions.OperationalError(f"The database {self.alias!r} cannot be reached: {error}") from error

    # House-keeping

    def waker(self) -> Waker:
        if wakers.can_listen(self.alias):
            return wakers.Listener(Engine(self.alias, self.dialect))
        return wakers.local_waker(self.alias, Engine(self.alias, self.dialect))

    def result_waker(self, task_id: str) -> ResultWaker:
        if wakers.can_listen(self.alias):
            mark = f"UPDATE {TASK} SET awaited = true WHERE id = {self.dialect.uuid}"
            return wakers.ListeningCaller(Engine(self.alias, self.dialect), self._key(task_id), mark)
        return wakers.LookingCaller(wakers.local_waker(self.alias, Engine(self.alias, self.dialect)))

    def now(self) -> datetime:
        seconds = self.engine.query(f"SELECT {self.dialect.epoch(self.dialect.now)}")[0][0]
        return datetime.fromtimestamp(float(seconds), UTC)

    def close(self) -> None:
        self.engine.close()

    # Inside

    def _survey(self, plan: Plan) -> list[Band]:
        look = self.dialect.look(self.engine, plan.names)
        self._rules, self._limited = look.rules, look.limited
        return plan.surveyed(look.bands, self._rules.paused_queues())

    def _plan(self, queues: Queues) -> Plan:
        plan = self._plans.get(queues)
        if plan is None:
            plan = self._plans[queues] = Plan(queues)
        return plan

    def _key(self, task_id: str) -> str:
        return self.dialect.key(task_id)

    def _tidy_after(self, outcomes: Sequence[Outcome], refused: Collection[str]) -> None:
        """Delete the tags of what leaves no line in the ledger, and the values of what was refused."""
        gone = [self._key(one.id) for one in outcomes if one.tagged and not one.keep and one.id not in refused]
        if gone:
            self._forget_tags(gone)
        if refused:
            self._drop_values([one for one in outcomes if one.id in refused])

    def _drop_values(self, refused: Sequence[Outcome]) -> None:
        """Forget values that were taken elsewhere before their outcomes were refused; but not what the ledger names, as
        the same outcome may have been stored before, and only that answer was lost."""
        away = [one for one in refused if stores.is_elsewhere(one.result_encoding)]
        if away:
            keys = [self._key(one.id) for one in away]
            marks = ", ".join([self.dialect.uuid] * len(keys))
            named = {row[0] for row in self.engine.query(f"SELECT result FROM {RESULT} WHERE id IN ({marks})", keys)}
            stores.drop((one.result, one.result_encoding) for one in away if one.result not in named)

    def _forget_tags(self, keys: Sequence[Any]) -> None:
        marks = ", ".join([self.dialect.uuid] * len(keys))
        self.engine.execute(f"DELETE FROM {TAG} WHERE task_id IN ({marks})", keys)


def hand_on(done: Sequence[Outcome], refused: Collection[str], deliveries: Sequence[Delivery]) -> None:
    """Let deliveries have what they take in of these, which are stored now."""
    stored = {one.id: one for one in done if one.state == states.SUCCESS and one.id not in refused}
    for one in deliveries if stored else ():
        if one.linked:
            one.stored = stored
