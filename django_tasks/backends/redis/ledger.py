"""The hot statements on the database's side: what is done moves to the ledger, or is written there.

**Why a task is finished exactly once.** Redis says who may run a task; that it is over is decided here. A row does not
follow each claim: while it says PENDING or RETRY, its ``attempt`` is the last one that *ended*, and only Redis may know
of the next one. A row that says STARTED, because its task takes long or something counts it, has the attempt that runs.
Whatever ends attempt *n* (finishing, a retry, giving it back, a rescue, a revoke) is one guarded statement on the row:
attempt *n* must be the next one, or the one that runs; afterwards the row is gone, or *n* has ended. So of all who want
to end one attempt exactly one succeeds, in whatever order, and however often Redis forgets, repeats or hands out the
same attempt twice. Redis is told after that, and what it then still believes is corrected by whoever stumbles over it:
the row is asked first.

A task without a row (``durable=False``) has only Redis to say who may run it, and the ledger keeps the first line that
it is given.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple

from ... import states
from ...exceptions import EncodeError
from ...ids import dashed
from ..database.dialect import COPIED, RESULT, TASK, dump, outcome_rows
from ..database.engine import Engine
from ..database.mysql import LARGE, MySQL
from ..database.postgresql import PostgreSQL
from ..database.walking import marks
from ..message import Delivery, Outcome

#: Gives a moment, so many seconds from now, as a statement takes it.
Moments = Callable[[float], str]
EPOCH = datetime(1970, 1, 1)
_THOUSANDTHS = [f".{number:03d}" for number in range(1000)]
#: Seconds since 1970 by SQLite's clock.
_NOW = "SELECT (julianday('now') - 2440587.5) * 86400.0"
#: What Redis hands out.
LEASABLE = "state IN ('PENDING', 'RETRY', 'STARTED')"
#: The attempt that is next, or runs.
CURRENT = "attempt + CASE WHEN {t}state = 'STARTED' THEN 0 ELSE 1 END"
_CURRENT = CURRENT.format(t="t.")

_REST = "history, state, started_at, finished_at, runtime, worker, result, result_encoding, exception, traceback"
#: The attempt is the one that ended it, not the row's.
_OF_ROW = ["t." + name for name in COPIED if name != "attempt"]
_COLUMNS = ", ".join([*(name for name in COPIED if name != "attempt"), "attempt", *_REST.split(", ")])
_REPLACED = ", ".join(f"{one} = excluded.{one}" for one in _COLUMNS.split(", ") if one != "id")


class Written(NamedTuple):
    """An outcome of a task without a row, and the task; ``now`` by Redis's clock."""

    outcome: Outcome
    delivery: Delivery
    published: float
    expires_at: float | None
    now: float


class Ledger(ABC):
    """One database's spelling."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect

    def move(self, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        """Move what these attempts may end to the ledger; return the ids that they may not. Raises what the database
        does for a value that cannot be stored: then nothing is moved."""
        return self.engine.transaction(lambda cursor: self.move_within(cursor, outcomes, worker))

    @abstractmethod
    def move_within(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        """Do so in the cursor's transaction."""

    def write(self, written: Sequence[Written], worker: str) -> None:
        """Write lines of tasks that have no row; a line that is there stays."""
        lines = self._lines(written, worker, None)  # before it is this process's turn to write
        self.engine.transaction(lambda cursor: cursor.executemany(self._insert, lines))

    def write_within(self, cursor: Any, written: Sequence[Written], worker: str) -> None:
        """Do so in the cursor's transaction."""
        cursor.executemany(self._insert, self._lines(written, worker, cursor))

    def _lines(self, written: Sequence[Written], worker: str, cursor: Any) -> list[list[Any]]:
        moment, at = time.monotonic(), self._moments(cursor)
        return [self._values(one, worker, moment, at) for one in written]

    @cached_property
    def _insert(self) -> str:
        dialect, later, id_ = self.dialect, self.later, self.dialect.uuid
        values = ", ".join(
            [
                *(id_, "%s", "%s", "%s", "%s", later, later, later),
                *("%s", "%s", "%s", "%s", id_, id_, "%s", "%s", "%s"),
                *(later, later, "%s", "%s", "%s", "%s", "%s", "%s"),
            ]
        )
        return (
            f"INSERT INTO {RESULT} (id, custom_id, name, queue, priority, created_at, due_at, expires_at, retries,"
            f" body, encoding, options, root_id, parent_id, attempt, {_REST}) VALUES ({values})"
            f" {dialect.unless_there(RESULT, 'id')}"
        )

    @property
    def later(self) -> str:
        """SQL for a moment as :meth:`_moments` gives it, or for NULL."""
        return self.dialect.later

    def _moments(self, cursor: Any) -> Moments:
        """Return what gives the moment so many seconds from now, by the database's clock. ``cursor`` is that of a
        transaction, which must not wait for the engine: that may wait for its locks. ``None``: there is none."""
        return "{:.6f}".format

    def _values(self, one: Written, worker: str, moment: float, at: Moments) -> list[Any]:
        outcome, call, key = one.outcome, one.delivery, self.dialect.key
        ago = moment - outcome.ended
        began = None if outcome.runtime is None else at(-(ago + outcome.runtime))
        created = at(one.published - one.now)
        return [
            key(call.id),
            call.custom_id,
            call.name,
            call.queue,
            call.priority,
            created,
            created if call.due == one.published else at(call.due - one.now),
            None if one.expires_at is None else at(one.expires_at - one.now),
            call.retries,
            call.body,
            call.encoding,
            call.options,
            call.root_id and key(call.root_id),
            call.parent_id and key(call.parent_id),
            outcome.attempt,
            outcome.history if outcome.history is not None else call.history,
            outcome.state,
            began,
            at(-ago),
            outcome.runtime,
            worker,
            outcome.result,
            outcome.result_encoding,
            outcome.exception,
            outcome.traceback,
        ]


class PostgreSQLLedger(Ledger):
    """One statement each, with all outcomes in one JSON parameter."""

    _KEYS = ("i", "a", "s", "ago", "rt", "v", "ve", "ex", "tb", "h", "k")
    _DONE = """json_to_recordset(%s::json) AS r(
        i uuid, a int, s text, ago float8, rt float8, v text, ve text, ex text, tb text, h text, k int)"""
    #: Only an id that its caller used twice is met in the ledger: then the newer result stays.
    _MOVE: ClassVar[str] = f"""
WITH done AS (SELECT * FROM {_DONE}),
gone AS (DELETE FROM {TASK} t USING done WHERE t.id = done.i AND t.{LEASABLE} AND t.{_CURRENT} = done.a
    RETURNING {", ".join(_OF_ROW)}, t.history, done.*),
kept AS (INSERT INTO {RESULT} ({_COLUMNS})
    SELECT {", ".join(name.removeprefix("t.") for name in _OF_ROW)}, a, coalesce(h, history), s,
        statement_timestamp() - (ago + rt) * interval '1 s', statement_timestamp() - ago * interval '1 s', rt, %s, v,
        coalesce(ve, ''), coalesce(ex, ''), tb
    FROM gone WHERE k = 1
    ON CONFLICT (id) DO UPDATE SET {_REPLACED})
SELECT d.i::text FROM done d WHERE (SELECT count(*) FROM gone) < (SELECT count(*) FROM done)
    AND NOT EXISTS (SELECT 1 FROM gone g WHERE g.i = d.i)
"""
    _CALL_KEYS = ("c", "n", "q", "p", "created", "due", "x", "re", "b", "e", "o", "r", "pa")
    _WRITE: ClassVar[str] = f"""
INSERT INTO {RESULT} ({_COLUMNS})
SELECT i, c, n, q, p, t.now + created * interval '1 s', t.now + due * interval '1 s', t.now + x * interval '1 s', re, b,
    coalesce(e, ''), o, r, pa, a, h, s, t.now - (ago + rt) * interval '1 s', t.now - ago * interval '1 s', rt, %s, v,
    coalesce(ve, ''), coalesce(ex, ''), tb
FROM (SELECT statement_timestamp() AS now) t, json_to_recordset(%s::json) AS m(
    i uuid, a int, s text, ago float8, rt float8, v text, ve text, ex text, tb text, h text, k int, c text, n text,
    q text, p int, created float8, due float8, x float8, re int, b text, e text, o text, r uuid, pa uuid)
ON CONFLICT (id) DO NOTHING
"""

    def move(self, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        from ..database.postgresql import _run

        with self.engine.session() as connection:
            return {row[0] for row in _run(connection, self._MOVE, [self._dump(outcomes), worker])}

    def move_within(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        cursor.execute(self._MOVE, [self._dump(outcomes), worker])
        return {row[0] for row in cursor.fetchall()}

    def write(self, written: Sequence[Written], worker: str) -> None:
        with self.engine.session() as connection, connection.cursor() as cursor:
            self.write_within(cursor, written, worker)

    def write_within(self, cursor: Any, written: Sequence[Written], worker: str) -> None:
        rows = outcome_rows([one.outcome for one in written], str)
        records = []
        for one, row in zip(written, rows, strict=True):
            call = one.delivery
            record = {name: value for name, value in zip(self._KEYS, row, strict=True) if value is not None}
            if "h" not in record and call.history is not None:
                record["h"] = call.history
            values = (
                *(call.custom_id, call.name, call.queue, call.priority, one.published - one.now, call.due - one.now),
                *(None if one.expires_at is None else one.expires_at - one.now, call.retries, call.body),
                *(call.encoding or None, call.options, call.root_id, call.parent_id),
            )
            record.update(
                (name, value) for name, value in zip(self._CALL_KEYS, values, strict=True) if value is not None
            )
            records.append(record)
        cursor.execute(self._WRITE, [worker, dump(records)])

    def _dump(self, outcomes: Sequence[Outcome]) -> str:
        return dump([dict(zip(self._KEYS, row, strict=True)) for row in outcome_rows(outcomes, str)])


class SQLiteLedger(Ledger):
    """A line each from the row, then the rows go.

    Moments are made into text here: SQLite's ``strftime`` costs more.
    """

    later = "%s"

    _FIELD = "json_extract(j.value, '$[{}]')".format
    _OWNED = f"""FROM json_each(%s) j CROSS JOIN {TASK} t
    WHERE t.id = {_FIELD(0)} AND t.{LEASABLE} AND t.{_CURRENT} = {_FIELD(1)}"""
    _KEEP: ClassVar[str] = f"""
INSERT OR REPLACE INTO {RESULT} ({_COLUMNS})
SELECT {", ".join(_OF_ROW)}, {_FIELD(1)}, coalesce({_FIELD(7)}, t.history), {_FIELD(8)}, {_FIELD(2)}, {_FIELD(3)},
    {_FIELD(4)}, %s, {_FIELD(5)}, {_FIELD(6)}, {_FIELD(9)}, {_FIELD(10)} {_OWNED}
"""
    _DROP: ClassVar[str] = f"DELETE FROM {TASK} WHERE rowid IN (SELECT t.rowid {_OWNED}) RETURNING id"

    def move(self, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        texts = self._texts(outcomes, None)  # before it is this process's turn to write
        return self.engine.transaction(lambda cursor: self._move(cursor, outcomes, worker, *texts))

    def move_within(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        return self._move(cursor, outcomes, worker, *self._texts(outcomes, cursor))

    def _texts(self, outcomes: Sequence[Outcome], cursor: Any) -> tuple[str | None, str]:
        """Return what is kept, if something is, and what goes."""
        key = self.dialect.key
        kept = [one for one in outcomes if one.keep]
        lines = None
        if kept:
            moment, at = time.monotonic(), self._moments(cursor)
            lines = dump([self._row(one, moment, at) for one in kept])
        return lines, dump([[key(one.id), one.attempt] for one in outcomes])

    def _move(self, cursor: Any, outcomes: Sequence[Outcome], worker: str, kept: str | None, ended: str) -> set[str]:
        if kept is not None:
            cursor.execute(self._KEEP, [worker, kept])
        cursor.execute(self._DROP, [ended])
        gone = {dashed(row[0]) for row in cursor.fetchall()}
        return {one.id for one in outcomes} - gone if len(gone) < len(outcomes) else set()

    def _row(self, one: Outcome, moment: float, at: Moments) -> list[Any]:
        age = moment - one.ended
        began = None if one.runtime is None else at(-(age + one.runtime))
        call = [self.dialect.key(one.id), one.attempt, began, at(-age), one.runtime]
        rest = [one.result, one.result_encoding, one.history, one.state, one.exception, one.traceback]
        return call + rest

    def _moments(self, cursor: Any) -> Moments:
        if cursor is not None:
            cursor.execute(_NOW)
        now: float = (cursor.fetchone() if cursor is not None else self.engine.query(_NOW)[0])[0]

        def at(seconds: float) -> str:
            # Rounded, as SQLite rounds: nothing may end before it was made.
            thousandths = round((now + seconds) * 1000)
            return _text(thousandths // 1000) + _THOUSANDTHS[thousandths % 1000]

        return at


class MySQLLedger(Ledger):
    """Rows are locked in key order, copied, and deleted by their keys."""

    _DONE = """JSON_TABLE(%s, '$[*]' COLUMNS (i CHAR(32) PATH '$[0]', a INT PATH '$[1]', s VARCHAR(16) PATH '$[2]',
    ago DOUBLE PATH '$[3]', rt DOUBLE PATH '$[4]', v LONGTEXT PATH '$[5]', ve VARCHAR(64) PATH '$[6]',
    ex VARCHAR(255) PATH '$[7]', tb LONGTEXT PATH '$[8]', h LONGTEXT PATH '$[9]')) AS j"""
    _KEEP: ClassVar[str] = f"""
REPLACE INTO {RESULT} ({_COLUMNS})
SELECT {", ".join(_OF_ROW)}, j.a, coalesce(j.h, t.history), j.s, UTC_TIMESTAMP(6) - INTERVAL (j.ago + j.rt) SECOND,
    UTC_TIMESTAMP(6) - INTERVAL j.ago SECOND, j.rt, %s, j.v, coalesce(j.ve, ''), coalesce(j.ex, ''), j.tb
FROM {_DONE} STRAIGHT_JOIN {TASK} t ON t.id = j.i
"""

    def move_within(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        from ..database.mysql import _ensure_fits, _parts

        rows = outcome_rows(outcomes, self.dialect.key)
        keys = sorted(row[0] for row in rows)
        cursor.execute(
            f"SELECT id, {CURRENT.format(t='')} FROM {TASK} WHERE id IN ({marks(keys)}) AND {LEASABLE} ORDER BY id"
            " FOR UPDATE",
            keys,
        )
        current = {dashed(id_): attempt for id_, attempt in cursor.fetchall()}
        owned = {one.id for one in outcomes if current.get(one.id) == one.attempt}
        mine = [row for one, row in zip(outcomes, rows, strict=True) if one.id in owned]
        for part in _parts([row[:-1] for row in mine if row[-1]]):
            text = dump(part)
            if len(text) > LARGE:
                _ensure_fits(cursor, text)
            cursor.execute(self._KEEP, (worker, text))
        if mine:
            keys = sorted(row[0] for row in mine)
            cursor.execute(f"DELETE FROM {TASK} WHERE id IN ({marks(keys)})", keys)
        return {one.id for one in outcomes} - owned

    def _lines(self, written: Sequence[Written], worker: str, cursor: Any) -> list[list[Any]]:
        for one in written:  # an oversized packet looks like a broken connection
            if one.outcome.result is not None and len(one.outcome.result) > 8 * LARGE:
                raise EncodeError(f"It takes {len(one.outcome.result):,} characters.")
        return super()._lines(written, worker, cursor)


@lru_cache(maxsize=64)
def _text(second: int) -> str:
    """Return a second since 1970 as SQLite writes it."""
    return (EPOCH + timedelta(seconds=second)).isoformat(" ")


def ledger_of(engine: Engine) -> Ledger:
    """Return the ledger of an engine's database."""
    if isinstance(engine.dialect, PostgreSQL):
        return PostgreSQLLedger(engine)
    return MySQLLedger(engine) if isinstance(engine.dialect, MySQL) else SQLiteLedger(engine)


assert {"PENDING", "RETRY", "STARTED"} == states.CLAIMABLE | {states.STARTED}  # noqa: S101 - the literal says the same
