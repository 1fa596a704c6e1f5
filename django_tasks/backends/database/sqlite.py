"""SQLite: one writer at a time, so a step is one short ``BEGIN IMMEDIATE`` transaction in write-ahead mode.

Deleted rows leave the index at once, so a claim needs no marks; it walks a queue's priorities from the highest down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ids import dashed
from ..message import Delivery, Holder, Outcome
from .dialect import CLAIMABLE, CLAIMED, COPIED, RESULT, TASK, delivery, outcome_rows
from .walking import Walking, marks

NOW = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"
LATER = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s || ' seconds')"

INSERT = f"""
INSERT INTO {TASK} (id, custom_id, name, queue, priority, created_at, due_at, expires_at, body, encoding, options,
    at_most_once, root_id, parent_id, state, attempt, retries, losses, awaited)
VALUES (%s, %s, %s, %s, %s, {NOW}, coalesce(%s, {LATER}), coalesce(%s, {LATER}),
    %s, %s, %s, %s, %s, %s, 'PENDING', 0, 0, 0, 0)
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - constants only, here and below

#: Write the ledger from what this attempt still owns.
KEEP = f"""
INSERT OR REPLACE INTO {RESULT} ({", ".join(COPIED)}, history, state, started_at, finished_at, runtime, worker, result,
    result_encoding, exception, traceback)
SELECT {", ".join(COPIED)}, coalesce(%s, history), %s,
    strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', (-%s - %s) || ' seconds'),
    strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', -%s || ' seconds'), %s, %s, %s, %s, %s, %s
FROM {TASK} WHERE id = %s AND attempt = %s
"""  # noqa: S608
DROP = f"DELETE FROM {TASK} WHERE id = %s AND attempt = %s"  # noqa: S608
OWNED = f"SELECT 1 FROM {TASK} WHERE id = %s AND attempt = %s"  # noqa: S608

#: The head of the best priority of a queue below another one.
NEXT_BAND = f"""
SELECT priority, (julianday(due_at) - julianday('now')) * 86400.0 FROM {TASK}
WHERE queue = %s AND priority < %s AND {CLAIMABLE} ORDER BY priority DESC, due_at LIMIT 1
"""  # noqa: S608
NEXT_QUEUE = f"SELECT queue FROM {TASK} WHERE queue > %s AND {CLAIMABLE} ORDER BY queue LIMIT 1"  # noqa: S608

CLAIM = f"""
UPDATE {TASK} SET state = 'STARTED', attempt = attempt + 1, worker_id = %s, slot = %s, started_at = NULL,
    custom_state = NULL, meta = NULL
WHERE rowid IN (SELECT rowid FROM {TASK} WHERE queue = %s AND priority = %s AND {CLAIMABLE} AND due_at <= {NOW}
    {{known}} ORDER BY due_at LIMIT %s)
RETURNING id, (julianday(due_at) - 2440587.5) * 86400.0, (julianday(expires_at) - julianday('now')) * 86400.0,
    {", ".join(CLAIMED)}
"""  # noqa: S608

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
            cursor.executemany(
                KEEP,
                [
                    (hist, state, age, run, age, run, worker, value, encoding, error, trace, id_, attempt)
                    for id_, attempt, state, age, run, value, encoding, error, trace, hist, _ in kept
                ],
            )
            if cursor.rowcount != len(kept):
                refused = self._refused(cursor, kept)
            cursor.executemany(DROP, [row[:2] for row in kept])
        for row in rows:
            if not row[-1]:
                cursor.execute(DROP, row[:2])
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
