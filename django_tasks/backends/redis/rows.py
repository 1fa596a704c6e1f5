"""The to-do list as the Redis broker needs it: rows do not follow each claim, but every end of one is decided on them.

What is said in :mod:`.ledger` of an attempt's end holds for each verb here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connections

from ... import states
from ...ids import dashed
from ..database.dialect import RESULT, TASK, WORKER
from ..database.engine import Engine
from ..database.workflow import EDGE
from ..message import Delivery, Message, Return
from .ledger import CURRENT, LEASABLE

#: Ids per statement.
MANY = 500
#: A state (one parameter), but LIMITED for what a limit counts.
_HELD_OR = "CASE WHEN limit_key IS NULL THEN %s ELSE 'LIMITED' END"
_CURRENT = CURRENT.format(t="")
_FREE = "worker_id = NULL, slot = NULL, started_at = NULL, custom_state = NULL, meta = NULL"

_READ = (
    "id, state, attempt, name, queue, priority, body, encoding, custom_id, options, retries, losses, history,"
    " at_most_once, root_id, parent_id, limit_key, unique_key IS NOT NULL, revoked_at IS NOT NULL,"
    " started_at IS NOT NULL, worker_id, {due}, {expires}"
)


class Row(NamedTuple):
    """A task that is not done; times in seconds from the database's now."""

    id: str
    state: str
    attempt: int
    name: str
    queue: str
    priority: int
    body: str
    encoding: str
    custom_id: str | None
    options: str | None
    retries: int
    losses: int
    history: str | None
    at_most_once: bool
    root_id: str | None
    parent_id: str | None
    limit_key: str | None
    is_unique: bool
    revoked: bool
    started: bool
    worker: int | None
    due_in: float
    expires_in: float | None

    @property
    def leasable(self) -> bool:
        """Is it for Redis to hand out?"""
        return self.state in (states.PENDING, states.RETRY, states.STARTED)

    @property
    def ended(self) -> int:
        """The last attempt that has ended."""
        return self.attempt - 1 if self.state == states.STARTED else self.attempt

    @property
    def tracked(self) -> bool:
        """Is the row to say at once that it runs? Limits count such rows, and unique calls look at them."""
        return self.limit_key is not None or self.is_unique

    def delivery(self, attempt: int, due: float) -> Delivery:
        """Return it as a delivery."""
        return Delivery(
            id=self.id,
            attempt=attempt,
            name=self.name,
            queue=self.queue,
            priority=self.priority,
            body=self.body,
            encoding=self.encoding,
            custom_id=self.custom_id,
            options=self.options,
            retries=self.retries,
            losses=self.losses,
            history=self.history,
            at_most_once=self.at_most_once,
            revoked=self.revoked,
            root_id=self.root_id,
            parent_id=self.parent_id,
            due=due,
            expires_in=self.expires_in,
            limit_key=self.limit_key,
        )


class Rows:
    """The verbs, on the engine's own connection unless a cursor is given."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect
        epoch, now = engine.dialect.epoch, engine.dialect.epoch(engine.dialect.now)
        self._columns = _READ.format(due=f"{epoch('due_at')} - {now}", expires=f"{epoch('expires_at')} - {now}")

    # Looking

    def read(self, ids: Iterable[str]) -> dict[str, Row]:
        """Return those of these tasks that are not done."""
        found: dict[str, Row] = {}
        for some in _parts(sorted(ids)):
            rows = self.engine.query(
                f"SELECT {self._columns} FROM {TASK} WHERE id IN ({self._marks(some)})", self._keys(some)
            )
            found.update((row.id, row) for row in map(_row, rows))
        return found

    def page(self, after: str, *, limit: int, till: str = "", age: float = 0.0) -> list[tuple[str, str]]:
        """Return id and queue of rows for Redis to hand out, in order of id, behind ``after``, before ``till``, sent so
        many seconds ago or earlier."""
        where: list[str] = [LEASABLE]
        params: list[Any] = []
        for sign, value in ((">", after), ("<", till)):
            if value:
                where.append(f"id {sign} {self.dialect.uuid}")
                params.append(self.dialect.key(value))
        if age:
            where.append(f"created_at <= {self.dialect.later}")
            params.append(-age)
        sql = f"SELECT id, queue FROM {TASK} WHERE {' AND '.join(where)} ORDER BY id LIMIT {limit:d}"
        return [(dashed(id_), queue) for id_, queue in self.engine.query(sql, params)]

    def without_worker(self, ids: Iterable[str]) -> set[str]:
        """Return which of these tasks say that they run, while their worker is gone."""
        found: set[str] = set()
        epoch, now = self.dialect.epoch, self.dialect.epoch(self.dialect.now)
        fresh = f"stopped_at IS NULL AND lost_at IS NULL AND {epoch('beat_at')} + lease >= {now}"
        alive = f"EXISTS (SELECT 1 FROM {WORKER} w WHERE w.id = worker_id AND {fresh})"
        for some in _parts(sorted(ids)):
            where = f"id IN ({self._marks(some)}) AND state = 'STARTED' AND NOT {alive}"
            rows = self.engine.query(f"SELECT id FROM {TASK} WHERE {where}", self._keys(some))
            found |= {dashed(row[0]) for row in rows}
        return found

    def ended(self, ids: Iterable[str]) -> set[str]:
        """Return which of these rows are of tasks that have ended: they had none, and were given one as they ended."""
        found: set[str] = set()
        for some in _parts(sorted(ids)):
            sql = (
                f"SELECT t.id FROM {TASK} t JOIN {RESULT} r ON r.id = t.id AND r.finished_at >= t.created_at"
                f" WHERE t.id IN ({self._marks(some)})"
            )
            found |= {dashed(row[0]) for row in self.engine.query(sql, self._keys(some))}
        return found

    def set_aside(self, names: Sequence[str]) -> list[str]:
        """Return the ids of what no worker knew of these names."""
        found = {row[0] for row in self.engine.query(f"SELECT DISTINCT name FROM {TASK} WHERE state = 'UNROUTABLE'")}
        known = sorted(found & set(names))
        if not known:
            return []
        marks = ", ".join(["%s"] * len(known))
        rows = self.engine.query(f"SELECT id FROM {TASK} WHERE state = 'UNROUTABLE' AND name IN ({marks})", known)
        return [dashed(row[0]) for row in rows]

    # Ends of attempts

    def give_back(self, held: Mapping[str, int], *, state: str = states.PENDING) -> set[str]:
        """Let attempts end unstarted, as if they had not been; return the ids of those that did."""
        limit_key = ", limit_key = coalesce(limit_key, '')" if state == states.LIMITED else ""
        return self._end(held, f"{_FREE}, state = '{state}'{limit_key}")

    def _end(self, held: Mapping[str, int], sets: str) -> set[str]:
        """End attempts, each if it is still the one; and not what is to end for good, having been revoked."""
        ended: set[str] = set()
        by_attempt: dict[int, list[str]] = {}
        for task_id, attempt in held.items():
            by_attempt.setdefault(attempt, []).append(task_id)
        for attempt, ids in by_attempt.items():
            for some in _parts(sorted(ids)):
                where = f"id IN ({self._marks(some)}) AND {_CURRENT} = %s AND {LEASABLE} AND revoked_at IS NULL"
                keys = [*self._keys(some), attempt]
                mine: set[str] = set()

                def work(cursor: Any, where: str = where, keys: Sequence[Any] = keys, mine: set[str] = mine) -> None:
                    cursor.execute(f"SELECT id FROM {TASK} WHERE {where} ORDER BY id{self.dialect.lock}", keys)
                    mine.clear()
                    mine.update(dashed(row[0]) for row in cursor.fetchall())
                    if mine:
                        own = sorted(mine)
                        cursor.execute(
                            f"UPDATE {TASK} SET {sets}, attempt = %s WHERE id IN ({self._marks(own)})",
                            [keys[-1], *self._keys(own)],
                        )

                self.engine.transaction(work)
                ended |= mine
        return ended

    def come_back(self, one: Return) -> bool:
        """Let an attempt end with the task to run again; False if it is not its own, or was revoked."""
        again = _HELD_OR if one.state == states.RETRY else "%s"  # the next attempt is let through like the first
        sets = [_FREE, f"state = {again}", "attempt = %s"]
        params: list[Any] = [one.state, one.attempt]
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
        where = f"id = {self.dialect.uuid} AND {_CURRENT} = %s AND {LEASABLE} AND revoked_at IS NULL"
        params += [self.dialect.key(one.id), one.attempt]
        return bool(self.engine.execute(f"UPDATE {TASK} SET {', '.join(sets)} WHERE {where}", params))

    def adopt(self, ids: Sequence[str]) -> int:
        """Let what was set aside wait again."""
        count = 0
        for some in _parts(ids):
            count += self.engine.execute(
                f"UPDATE {TASK} SET state = {_HELD_OR} WHERE id IN ({self._marks(some)}) AND state = 'UNROUTABLE'",
                [states.PENDING, *self._keys(some)],
            )
        return count

    def keep(
        self,
        calls: Sequence[Delivery],
        state: str,
        *,
        ages: Mapping[str, tuple[float, float | None]],
        alias: str | None = None,
    ) -> None:
        """Give tasks that had no row one; ``ages``: due and expiry, in seconds from now. ``alias``: in the caller's
        transaction.

        One that says that an earlier attempt runs, or the same, is taken over: whoever wrote it is about to find that
        attempt ended and deletes the row then, or died before. So is what a mover left that died: nobody else writes
        such a row of a task that can be claimed.
        """
        dialect = self.dialect
        columns = (
            "id, custom_id, name, queue, priority, created_at, due_at, expires_at, body, encoding, options,"
            " at_most_once, root_id, parent_id, state, attempt, retries, losses, history, awaited, limit_key"
        )
        id_, later = dialect.uuid, dialect.later
        row = (
            f"{id_}, %s, %s, %s, %s, {dialect.now}, {later}, CASE WHEN %s IS NULL THEN NULL ELSE {later} END, %s, %s,"
            f" %s, %s, {id_}, {id_}, %s, %s, %s, %s, %s, %s, %s"
        )

        replacing = dialect.unless_beyond(TASK, states.STARTED, states.WAITING)

        def work(cursor: Any) -> None:
            for one in calls:
                due, expires = ages[one.id]
                expires_in = None if expires is None else f"{expires:.6f}"
                values = [dialect.key(one.id), one.custom_id, one.name, one.queue, one.priority, f"{due:.6f}"]
                values += [expires_in, expires_in, one.body, one.encoding, one.options, one.at_most_once]
                values += [one.root_id and dialect.key(one.root_id), one.parent_id and dialect.key(one.parent_id)]
                values += [state, one.attempt, one.retries, one.losses, one.history, False]
                values.append("" if state == states.LIMITED else None)
                cursor.execute(f"INSERT INTO {TASK} ({columns}) VALUES ({row}) {replacing}", values)

        if alias is None:
            self.engine.transaction(work)
            return
        with connections[alias].cursor() as cursor:
            work(cursor)

    def kept(self) -> list[str]:
        """Return the ids of rows that wait for nothing: a mover made them, and did not come to their release."""
        rows = self.engine.query(
            f"SELECT id FROM {TASK} t WHERE state = 'WAITING' AND NOT EXISTS"
            f" (SELECT 1 FROM {EDGE} e WHERE e.after_id = t.id)"
        )
        return [dashed(row[0]) for row in rows]

    def release(self, ids: Iterable[str], state: str) -> None:
        """Let rows that wait for nothing run."""
        for some in _parts(sorted(ids)):
            self.engine.execute(
                f"UPDATE {TASK} SET state = %s WHERE id IN ({self._marks(some)}) AND state = 'WAITING'",
                [state, *self._keys(some)],
            )

    def forget_kept(self, ids: Iterable[str]) -> None:
        """Delete rows that wait for nothing."""
        for some in _parts(sorted(ids)):
            self.engine.execute(
                f"DELETE FROM {TASK} WHERE id IN ({self._marks(some)}) AND state = 'WAITING'", self._keys(some)
            )

    # While it runs

    def take(self, held: Mapping[str, int], worker: int, slot: int) -> dict[str, Row]:
        """Let rows say that they run; return those that may. A row that says so already is left to who runs it."""
        by_attempt: dict[int, list[str]] = {}
        for task_id, attempt in held.items():
            by_attempt.setdefault(attempt, []).append(task_id)
        for attempt, ids in by_attempt.items():
            for some in _parts(sorted(ids)):
                self.engine.execute(
                    f"UPDATE {TASK} SET state = 'STARTED', attempt = %s, worker_id = %s, slot = %s, started_at = NULL,"
                    f" custom_state = NULL, meta = NULL WHERE id IN ({self._marks(some)}) AND {_CURRENT} = %s"
                    f" AND (state IN ('PENDING', 'RETRY') OR state = 'STARTED' AND worker_id = %s)"
                    " AND revoked_at IS NULL",
                    [attempt, worker, slot, *self._keys(some), attempt, worker],
                )
        rows = self.read(held)
        return {
            one.id: one
            for one in rows.values()
            if one.state == states.STARTED and one.worker == worker and not one.revoked
        }

    def mark_started(self, task_id: str, attempt: int, seconds: float, worker: int | None, slot: int | None) -> None:
        """Let a row say that it runs, and since when."""
        self.engine.execute(
            f"UPDATE {TASK} SET state = 'STARTED', attempt = %s, started_at = {self.dialect.later},"
            " worker_id = coalesce(%s, worker_id), slot = coalesce(%s, slot)"
            f" WHERE id = {self.dialect.uuid} AND {_CURRENT} = %s AND {LEASABLE} AND started_at IS NULL",
            [attempt, -seconds, worker, slot, self.dialect.key(task_id), attempt],
        )

    def report(self, cursor: Any, task_id: str, attempt: int, state: str, meta: str | None) -> bool:
        """Show a custom state; False if the attempt has ended."""
        cursor.execute(
            f"UPDATE {TASK} SET custom_state = %s, meta = %s, state = 'STARTED', attempt = %s,"
            f" started_at = coalesce(started_at, {self.dialect.now})"
            f" WHERE id = {self.dialect.uuid} AND {_CURRENT} = %s AND {LEASABLE}",
            [state, meta, attempt, self.dialect.key(task_id), attempt],
        )
        return bool(cursor.rowcount)

    def is_revoked(self, task_id: str, attempt: int) -> bool:
        """Was it revoked, or has this attempt ended?"""
        rows = self.engine.query(
            f"SELECT revoked_at IS NOT NULL FROM {TASK}"
            f" WHERE id = {self.dialect.uuid} AND {_CURRENT} = %s AND {LEASABLE}",
            [self.dialect.key(task_id), attempt],
        )
        return not rows or bool(rows[0][0])

    def show_running(self, running: Mapping[str, tuple[int, int, int]], alias: str | None = None) -> None:
        """Let rows say who runs them: id to attempt, worker, slot. ``alias``: in the caller's transaction."""
        sql = (
            f"UPDATE {TASK} SET state = 'STARTED', attempt = %s, worker_id = %s, slot = %s"
            f" WHERE id = {self.dialect.uuid} AND {_CURRENT} = %s AND {LEASABLE}"
        )
        params = [
            (attempt, worker, slot, self.dialect.key(task_id), attempt)
            for task_id, (attempt, worker, slot) in running.items()
        ]
        if alias is not None:
            with connections[alias].cursor() as cursor:
                for each in params:
                    cursor.execute(sql, each)
            return
        for each in params:
            self.engine.execute(sql, each)

    # Inside

    def _marks(self, ids: Sequence[Any]) -> str:
        return ", ".join([self.dialect.uuid] * len(ids))

    def _keys(self, ids: Sequence[str]) -> list[str]:
        return [self.dialect.key(one) for one in ids]


def _parts(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return [ids[start : start + MANY] for start in range(0, len(ids), MANY)]


def _row(values: Sequence[Any]) -> Row:
    row = list(values)
    row[0] = dashed(row[0])
    for at in (14, 15):
        row[at] = row[at] and dashed(row[at])
    for at in (13, 17, 18, 19):
        row[at] = bool(row[at])
    row[21] = float(row[21])
    row[22] = None if row[22] is None else float(row[22])
    return Row(*row)


def message_of(row: Row) -> Message:
    """Return a row as a message: what its entry is made of."""
    return Message(
        id=row.id,
        name=row.name,
        queue=row.queue,
        body=row.body,
        priority=row.priority,
        custom_id=row.custom_id,
        encoding=row.encoding,
        options=row.options,
        at_most_once=row.at_most_once,
        root_id=row.root_id,
        parent_id=row.parent_id,
        expires_in=row.expires_in,
    )
