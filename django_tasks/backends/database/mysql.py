"""MariaDB and MySQL: rows are deleted and updated by primary key only, in key order, under READ COMMITTED.

Deleting by a secondary index takes gap locks, and two workers deadlock; what deadlocks all the same is tried again.
There are no partial indexes: the claim index holds running rows, too, and ``SKIP LOCKED`` steps over those in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...exceptions import EncodeError
from ...ids import dashed
from ..message import Delivery, Holder, Outcome
from .dialect import CLAIMABLE, CLAIMED, COPIED, RESULT, TASK, dump, outcome_rows
from .walking import Walking, marks

INSERT = f"""
INSERT INTO {TASK} (id, custom_id, name, queue, priority, created_at, due_at, expires_at, body, encoding, options,
    at_most_once, root_id, parent_id, state, attempt, retries, losses, awaited)
VALUES (%s, %s, %s, %s, %s, UTC_TIMESTAMP(6), coalesce(%s, UTC_TIMESTAMP(6) + INTERVAL %s SECOND),
    coalesce(%s, UTC_TIMESTAMP(6) + INTERVAL %s SECOND), %s, %s, %s, %s, %s, %s, 'PENDING', 0, 0, 0, 0)
ON DUPLICATE KEY UPDATE id = {TASK}.id
"""

_DONE = """JSON_TABLE(%s, '$[*]' COLUMNS (i CHAR(32) PATH '$[0]', a INT PATH '$[1]', s VARCHAR(16) PATH '$[2]',
    ago DOUBLE PATH '$[3]', rt DOUBLE PATH '$[4]', v LONGTEXT PATH '$[5]', ve VARCHAR(64) PATH '$[6]',
    ex VARCHAR(255) PATH '$[7]', tb LONGTEXT PATH '$[8]', h LONGTEXT PATH '$[9]')) AS j"""

#: Lock what these attempts still own, in key order.
LOCK_OWNED = f"SELECT id, attempt FROM {TASK} WHERE id IN ({{ids}}) AND state = 'STARTED' ORDER BY id FOR UPDATE"

KEEP = f"""
REPLACE INTO {RESULT} ({", ".join(COPIED)}, history, state, started_at, finished_at, runtime, worker, result,
    result_encoding, exception, traceback)
SELECT {", ".join("t." + name for name in COPIED)}, coalesce(j.h, t.history), j.s,
    UTC_TIMESTAMP(6) - INTERVAL (j.ago + j.rt) SECOND, UTC_TIMESTAMP(6) - INTERVAL j.ago SECOND, j.rt, %s, j.v,
    coalesce(j.ve, ''), coalesce(j.ex, ''), j.tb
FROM {_DONE} STRAIGHT_JOIN {TASK} t ON t.id = j.i
"""
DROP = f"DELETE FROM {TASK} WHERE id IN ({{ids}})"

NEXT_BAND = f"""
SELECT priority, TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), due_at) / 1e6 FROM {TASK}
WHERE queue = %s AND priority < %s AND {CLAIMABLE} ORDER BY priority DESC, due_at LIMIT 1
"""
NEXT_QUEUE = f"SELECT queue FROM {TASK} WHERE queue > %s AND {CLAIMABLE} ORDER BY queue LIMIT 1"

#: Two workers never wait for, nor take, the same row.
LOCK_DUE = f"""
SELECT id FROM {TASK} WHERE queue = %s AND priority = %s AND {CLAIMABLE} AND due_at <= UTC_TIMESTAMP(6) {{known}}
ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
"""
TAKE = f"""
UPDATE {TASK} SET state = 'STARTED', attempt = attempt + 1, worker_id = %s, slot = %s, started_at = NULL,
    custom_state = NULL, meta = NULL WHERE id IN ({{ids}})
"""
TAKEN = f"""
SELECT id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', due_at) / 1e6,
    TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), expires_at) / 1e6, {", ".join(CLAIMED)}
FROM {TASK} WHERE id IN ({{ids}})
"""

#: Characters of outcomes per statement; a server takes no more than its ``max_allowed_packet``, by default 16 MB.
LARGE = 2_000_000


class MySQL(Walking):
    """MariaDB 10.6 and MySQL 8.0.11, and newer."""

    now = "UTC_TIMESTAMP(6)"
    later = "(UTC_TIMESTAMP(6) + INTERVAL %s SECOND)"
    searches_by_other_rows = False
    by_limit = " FORCE INDEX (djt_task_limited)"  # the claim index holds them here, too, among all others
    insert = INSERT
    next_band = NEXT_BAND
    next_queue = NEXT_QUEUE

    def connection_options(self, options: dict[str, Any]) -> dict[str, Any]:
        # No gap locks; a dead peer is found out within seconds.
        mine = {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60}
        return {**mine, **options, "isolation_level": "read committed"}

    def prepare_session(self, connection: Any) -> None:
        """The isolation level is among the connection's options."""

    def epoch(self, column: str) -> str:
        return f"(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {column}) / 1e6)"

    def partner(self, column: str) -> str:
        return f"CASE WHEN {column} LIKE '+%%' THEN substr({column}, 2) ELSE concat('+', {column}) END"

    def since(self, column: str) -> str:
        return f"({column} + INTERVAL %s SECOND)"

    def unless_there(self, table: str, column: str) -> str:
        return f"ON DUPLICATE KEY UPDATE {column} = {table}.{column}"

    def unless_beyond(self, table: str, *replaced: str) -> str:
        # The state comes last: what stands further left has its new value already.
        where = f"{table}.state IN ({', '.join(map(repr, replaced))}) AND {table}.attempt <= VALUES(attempt)"
        sets = [f"{name} = IF({where}, VALUES({name}), {table}.{name})" for name in ("attempt", "limit_key", "state")]
        return f"ON DUPLICATE KEY UPDATE {', '.join(sets)}"

    def upsert(self, table: str, columns: Sequence[str], key: Sequence[str]) -> str:
        rest = ", ".join(f"{name} = VALUES({name})" for name in columns if name not in key)
        return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks(columns)}) ON DUPLICATE KEY UPDATE {rest}"

    def adding(self, table: str, columns: Sequence[str], key: Sequence[str], rows: int) -> str:
        more = ", ".join(f"{name} = {table}.{name} + VALUES({name})" for name in columns if name not in key)
        each = ", ".join([f"({marks(columns)})"] * rows)
        return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {each} ON DUPLICATE KEY UPDATE {more}"

    def close_edges(self, cursor: Any, table: str, where: str, params: Sequence[Any], outcome: str) -> list[Any]:
        cursor.execute(f"SELECT id, after_id FROM {table} WHERE {where} ORDER BY id", params)
        rows = cursor.fetchall()
        if rows:
            keys = [row[0] for row in rows]
            cursor.execute(f"UPDATE {table} SET outcome = %s WHERE id IN ({marks(keys)})", [outcome, *keys])
        return [row[1] for row in rows]

    def delete_edges(self, cursor: Any, table: str, where: str, params: Sequence[Any]) -> None:
        cursor.execute(f"SELECT id FROM {table} WHERE {where} ORDER BY id", params)
        keys = [row[0] for row in cursor.fetchall()]
        if keys:
            cursor.execute(f"DELETE FROM {table} WHERE id IN ({marks(keys)})", keys)

    def is_transient(self, error: Exception) -> bool:
        return bool(error.args) and error.args[0] in (1205, 1213)

    def finishing(self, outcomes: Sequence[Outcome], worker: str) -> Callable[[Any], set[str]]:
        # The ages of the outcomes are counted from the server's clock, so they are taken beside it.
        return lambda cursor: self._finish(cursor, outcomes, worker)

    def _finish(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> set[str]:
        rows = outcome_rows(outcomes, self.key)
        keys = sorted(row[0] for row in rows)
        cursor.execute(LOCK_OWNED.format(ids=marks(keys)), keys)
        owned = {(dashed(id_), attempt) for id_, attempt in cursor.fetchall()}
        mine = [row for one, row in zip(outcomes, rows, strict=True) if (one.id, one.attempt) in owned]
        kept = [row[:-1] for row in mine if row[-1]]
        for part in _parts(kept):
            text = dump(part)
            if len(text) > LARGE:
                _ensure_fits(cursor, text)
            cursor.execute(KEEP, (worker, text))
        if mine:
            keys = sorted(row[0] for row in mine)
            cursor.execute(DROP.format(ids=marks(keys)), keys)
        return {one.id for one in outcomes if (one.id, one.attempt) not in owned}

    def claim_band(
        self, cursor: Any, holder: Holder, queue: str, priority: int, limit: int, unknown: Sequence[str]
    ) -> list[Any]:
        known = f"AND name NOT IN ({marks(unknown)})" if unknown else ""
        cursor.execute(LOCK_DUE.format(known=known), (queue, priority, *unknown, limit))
        keys = sorted(row[0] for row in cursor.fetchall())
        if not keys:
            return []
        cursor.execute(TAKE.format(ids=marks(keys)), (holder.worker, holder.slot, *keys))
        cursor.execute(TAKEN.format(ids=marks(keys)), keys)
        return list(cursor.fetchall())

    def delivery(self, row: Any) -> Delivery:
        one = super().delivery(row)
        one.due = float(one.due)
        one.expires_in = None if one.expires_in is None else float(one.expires_in)
        return one


def _parts(rows: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """Cut outcomes into statements of a size that the server takes; a single one may still be too large."""
    part: list[list[Any]] = []
    size = 0
    for row in rows:
        own = sum(len(value) for value in row if isinstance(value, str))
        if part and size + own > LARGE:
            yield part
            part, size = [], 0
        part.append(row)
        size += own
    if part:
        yield part


def _ensure_fits(cursor: Any, text: str) -> None:
    # The server would hang up on a packet that is too large, which looks like a broken connection.
    cursor.execute("SELECT @@max_allowed_packet")
    (most,) = cursor.fetchone()
    size = len(text.encode()) + text.count("\\") + text.count('"') + text.count("'") + len(KEEP) + 1_000
    if size > most:
        raise EncodeError(f"It takes {size:,} bytes, and the server's max_allowed_packet is {most:,}.")
