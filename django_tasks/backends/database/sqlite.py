"""SQLite: one writer at a time, so a step is one short ``BEGIN IMMEDIATE`` transaction in write-ahead mode.

Deleted rows leave the index at once, so a claim needs no marks; it walks a queue's priorities from the highest down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ids import dashed
from ..message import Delivery, Holder, Outcome
from .dialect import CLAIMABLE, CLAIMED, COPIED, RESULT, TASK, delivery, dump, outcome_rows
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

#: Write the ledger from what these attempts still own. CROSS JOIN: SQLite then looks each outcome up, not each task.
KEEP = f"""
INSERT OR REPLACE INTO {RESULT} ({", ".join(COPIED)}, history, state, started_at, finished_at, runtime, worker, result,
    result_encoding, exception, traceback)
SELECT {", ".join("t." + name for name in COPIED)}, coalesce({_FIELD(9)}, t.history), {_FIELD(2)},
    strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', (-{_FIELD(3)} - {_FIELD(4)}) || ' seconds'),
    strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', -{_FIELD(3)} || ' seconds'),
    {_FIELD(4)}, %s, {_FIELD(5)}, {_FIELD(6)}, {_FIELD(7)}, {_FIELD(8)}
FROM json_each(%s) j CROSS JOIN {TASK} t
WHERE t.id = {_FIELD(0)} AND t.attempt = {_FIELD(1)} AND t.state = 'STARTED'
"""
DROP = f"""
DELETE FROM {TASK} WHERE rowid IN (
    SELECT t.rowid FROM json_each(%s) j CROSS JOIN {TASK} t
    WHERE t.id = {_FIELD(0)} AND t.attempt = {_FIELD(1)} AND t.state = 'STARTED')
"""
DROP_ONE = f"DELETE FROM {TASK} WHERE id = %s AND attempt = %s AND state = 'STARTED'"
OWNED = f"SELECT 1 FROM {TASK} WHERE id = %s AND attempt = %s AND state = 'STARTED'"

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
    begin = "BEGIN IMMEDIATE"
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

    def is_transient(self, error: Exception) -> bool:
        return "locked" in str(error) or "busy" in str(error)

    def finish(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> tuple[set[str], list[str]]:
        rows = outcome_rows(outcomes, self.key)
        kept = [row for row in rows if row[-1]]
        refused: set[str] = set()
        if kept:
            outcomes_json = dump(kept)
            cursor.execute(KEEP, (worker, outcomes_json))
            if cursor.rowcount != len(kept):
                refused = self._refused(cursor, kept)
            cursor.execute(DROP, (outcomes_json,))
        for row in rows:
            if not row[-1]:
                cursor.execute(DROP_ONE, row[:2])
                if not cursor.rowcount:
                    refused.add(dashed(row[0]))
        return refused, []

    def claim_band(
        self, cursor: Any, holder: Holder, queue: str, priority: int, limit: int, unknown: Sequence[str]
    ) -> list[Delivery]:
        sql = CLAIM.format(known=f"AND name NOT IN ({marks(unknown)})" if unknown else "")
        cursor.execute(sql, (holder.worker, holder.slot, queue, priority, *unknown, limit))
        return [delivery(row, dashed) for row in cursor.fetchall()]

    def _refused(self, cursor: Any, rows: list[list[Any]]) -> set[str]:
        refused = set()
        for id_, attempt, *_ in rows:
            cursor.execute(OWNED, (id_, attempt))
            if cursor.fetchone() is None:
                refused.add(dashed(id_))
        return refused
