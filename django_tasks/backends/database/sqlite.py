"""SQLite: one writer at a time, so a step is one short ``BEGIN IMMEDIATE`` transaction in write-ahead mode.

Deleted rows leave the index at once, so a claim needs no marks; it walks a queue's priorities from the highest down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ... import states
from ...ids import dashed
from ..message import JOIN_TASK, Holder, Outcome
from .dialect import CLAIMABLE, CLAIMED, COPIED, RESULT, TASK, dump
from .turns import Turn
from .walking import Walking, marks

NOW = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"
LATER = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s || ' seconds')"

INSERT = f"""
INSERT INTO {TASK} (id, custom_id, name, queue, priority, created_at, due_at, expires_at, body, encoding, options,
    at_most_once, root_id, parent_id, state, attempt, retries, losses, awaited)
VALUES (%s, %s, %s, %s, %s, {NOW}, coalesce(%s, {LATER}), coalesce(%s, {LATER}),
    %s, %s, %s, %s, %s, %s, 'PENDING', 0, 0, 0, 0)
ON CONFLICT (id) DO NOTHING
"""

_FIELD = "json_extract(j.value, '$[{}]')".format

#: What these attempts still own. CROSS JOIN: SQLite then looks each outcome up, not each task.
_OWNED = f"""FROM json_each(%s) j CROSS JOIN {TASK} t
WHERE t.id = {_FIELD(0)} AND t.attempt = {_FIELD(1)} AND t.state = 'STARTED'
"""
_LEDGER = f"""
INSERT OR REPLACE INTO {RESULT} ({", ".join(COPIED)}, history, state, started_at, finished_at, runtime, worker, result,
    result_encoding, exception, traceback)
SELECT {", ".join("t." + name for name in COPIED)},"""
#: Start, end and run time. The first parameter is how long ago the ages were taken.
_AGO = f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s, {_FIELD('{}')})".format
_TIMES = f"{_AGO(2)}, {_AGO(3)}, {_FIELD(4)}"
#: Write the ledger from it. For a plain success less is to be told, and each field that is read costs.
KEEP_SUCCESS = f"""{_LEDGER} t.history, 'SUCCESS', {_TIMES}, %s, {_FIELD(5)}, {_FIELD(6)}, '', NULL {_OWNED}"""
KEEP = f"""{_LEDGER} coalesce({_FIELD(7)}, t.history), {_FIELD(8)}, {_TIMES}, %s, {_FIELD(5)}, {_FIELD(6)},
    {_FIELD(9)}, {_FIELD(10)} {_OWNED}"""
#: Delete what is kept; this transaction has just seen that it is owned.
DROP = f"DELETE FROM {TASK} WHERE id IN (SELECT value FROM json_each(%s) j)"
#: Delete what leaves no line in the ledger.
DROP_OWNED = f"DELETE FROM {TASK} WHERE rowid IN (SELECT t.rowid {_OWNED}) RETURNING id"
#: Let run what waits for times that have come and for nothing else. There is one writer, so what is seen is so.
RELEASE = f"""
UPDATE {TASK} SET state = CASE WHEN limit_key IS NULL THEN 'PENDING' ELSE 'LIMITED' END, due_at = {NOW}
WHERE id IN ({{keys}}) AND state = 'WAITING' AND name <> '{JOIN_TASK}' AND due_at <= created_at AND expires_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM django_tasks_edge e WHERE e.after_id = {TASK}.id
        AND (e.outcome IS NULL OR e.outcome <> 'ok'))
RETURNING id, queue
"""
OWNED = f"SELECT 1 FROM {TASK} WHERE id = %s AND attempt = %s AND state = 'STARTED'"

#: Ids per statement.
MANY = 500

#: The head of the best priority of a queue below another one.
NEXT_BAND = f"""
SELECT priority, (julianday(due_at) - julianday('now')) * 86400.0 FROM {TASK}
WHERE queue = %s AND priority < %s AND {CLAIMABLE} ORDER BY priority DESC, due_at LIMIT 1
"""
NEXT_QUEUE = f"SELECT queue FROM {TASK} WHERE queue > %s AND {CLAIMABLE} ORDER BY queue LIMIT 1"

CLAIM = f"""
UPDATE {TASK} SET state = 'STARTED', attempt = attempt + 1, worker_id = %s, slot = %s, started_at = NULL,
    custom_state = NULL, meta = NULL
WHERE rowid IN (SELECT rowid FROM {TASK} WHERE queue = %s AND priority = %s AND {CLAIMABLE} AND due_at <= {NOW}
    {{known}} ORDER BY due_at LIMIT %s)
RETURNING id, (julianday(due_at) - 2440587.5) * 86400.0, (julianday(expires_at) - julianday('now')) * 86400.0,
    {", ".join(CLAIMED)}
"""


class SQLite(Walking):
    """SQLite 3.35 and newer."""

    now = NOW
    later = LATER
    begin = "BEGIN IMMEDIATE"  # which locks all there is
    skip_locked = ""
    lock = ""
    insert = INSERT
    next_band = NEXT_BAND
    next_queue = NEXT_QUEUE

    def connection_options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "timeout": max(30, options.get("timeout", 0))}

    def prepare_session(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            # The file stays in write-ahead mode: readers and the one writer do not block each other. NORMAL survives
            # kill -9; only a power cut may undo the last commits, and then whole ones.
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute("PRAGMA temp_store = MEMORY")
            cursor.execute("PRAGMA cache_size = -16000")

    def epoch(self, column: str) -> str:
        return f"((julianday({column}) - 2440587.5) * 86400.0)"

    def since(self, column: str) -> str:
        return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', {column}, %s || ' seconds')"

    def is_transient(self, error: Exception) -> bool:
        return "locked" in str(error) or "busy" in str(error)

    def turn(self, connection: Any) -> Turn:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA database_list")  # the file's name as SQLite resolved it; '' in memory
            return Turn(next(path for _, name, path in cursor.fetchall() if name == "main"))

    def finishing(self, outcomes: Sequence[Outcome], worker: str) -> Callable[[Any], set[str]]:
        kept = [one for one in outcomes if one.keep]
        dropped = [one for one in outcomes if not one.keep]
        successes = [one for one in kept if one.state == states.SUCCESS and one.history is None]
        others = [one for one in kept if one.state != states.SUCCESS or one.history is not None]
        taken = time.monotonic()
        writing = [
            (sql, some, dump([self._row(one, taken) for one in some]))
            for sql, some in ((KEEP_SUCCESS, successes), (KEEP, others))
            if some
        ]
        keys = dump([self.key(one.id) for one in kept])
        ignored = dump([[self.key(one.id), one.attempt] for one in dropped])

        def finish(cursor: Any) -> set[str]:
            refused: set[str] = set()
            since = _ago(time.monotonic() - taken)
            for sql, some, rows in writing:
                cursor.execute(sql, (since, since, worker, rows))
                if cursor.rowcount != len(some):
                    refused |= self._refused(cursor, some)
            if kept:
                mine = dump([self.key(one.id) for one in kept if one.id not in refused]) if refused else keys
                cursor.execute(DROP, (mine,))
            if dropped:
                cursor.execute(DROP_OWNED, (ignored,))
                refused |= {one.id for one in dropped} - {dashed(id_) for (id_,) in cursor.fetchall()}
            return refused

        return finish

    def _row(self, one: Outcome, taken: float) -> list[Any]:
        """Return the fields of :data:`KEEP`, or of :data:`KEEP_SUCCESS`, which are the first of them."""
        age = taken - one.ended
        began = None if one.runtime is None else _ago(age + one.runtime)
        row = [self.key(one.id), one.attempt, began, _ago(age), one.runtime, one.result, one.result_encoding]
        if one.state != states.SUCCESS or one.history is not None:
            row += [one.history, one.state, one.exception, one.traceback]
        return row

    def follow(self, cursor: Any, edge: str, keys: Sequence[Any]) -> list[tuple[Any, str | None]]:
        behind = list(dict.fromkeys(key for key, _ in super().follow(cursor, edge, keys)))
        released: dict[Any, str] = {}
        for start in range(0, len(behind), MANY):
            some = behind[start : start + MANY]
            cursor.execute(RELEASE.format(keys=marks(some)), some)
            released.update(cursor.fetchall())
        return [(key, released.get(key)) for key in behind]

    def claim_band(
        self, cursor: Any, holder: Holder, queue: str, priority: int, limit: int, unknown: Sequence[str]
    ) -> list[Any]:
        sql = CLAIM.format(known=f"AND name NOT IN ({marks(unknown)})" if unknown else "")
        cursor.execute(sql, (holder.worker, holder.slot, queue, priority, *unknown, limit))
        return list(cursor.fetchall())

    def _refused(self, cursor: Any, outcomes: Sequence[Outcome]) -> set[str]:
        refused = set()
        for one in outcomes:
            cursor.execute(OWNED, (self.key(one.id), one.attempt))
            if cursor.fetchone() is None:
                refused.add(one.id)
        return refused


def _ago(seconds: float) -> str:
    return f"{-seconds:.6f} seconds"
