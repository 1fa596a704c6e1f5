"""PostgreSQL: one statement finishes a batch and claims the next, one JSON parameter carries all outcomes.

Each statement names what it prevents. Plans are pinned (generic, no sequential scans), because a prepared statement
with an unknown ``LIMIT`` is otherwise planned as a walk over the whole table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..message import JOIN_TASK, Delivery, Edge, Holder, Message, Outcome
from ..rules import Rule, Rules
from .dialect import (
    CLAIMABLE,
    CLAIMED,
    COPIED,
    LIMITED,
    RESULT,
    TASK,
    WORKER,
    Band,
    Dialect,
    Followed,
    Look,
    dump,
    outcome_rows,
)

if TYPE_CHECKING:
    from .prepared import Statement

#: Workers listen here for "something was enqueued"; the payload is the queue.
WAKE_CHANNEL = "django_tasks_wake"
#: Waiting callers listen here for "this task is done"; the payload is the id.
DONE_CHANNEL = "django_tasks_done"
#: Who sent a command listens here for replies; the payload is the command's id.
REPLY_CHANNEL = "django_tasks_reply"

INSERT_ONE = f"""
INSERT INTO {TASK} (id, custom_id, name, queue, priority, created_at, due_at, expires_at, body, encoding, options,
    at_most_once, root_id, parent_id, state, attempt, retries, losses, awaited)
VALUES (%s::uuid, %s, %s, %s, %s, statement_timestamp(),
    coalesce(%s::timestamptz, statement_timestamp() + %s::float8 * interval '1 s'),
    coalesce(%s::timestamptz, statement_timestamp() + %s::float8 * interval '1 s'),
    %s, %s, %s, %s, %s::uuid, %s::uuid, 'PENDING', 0, 0, 0, false)
ON CONFLICT (id) DO NOTHING
"""

INSERT_MANY = f"""
INSERT INTO {TASK} (id, custom_id, name, queue, priority, created_at, due_at, expires_at, body, encoding, options,
    at_most_once, root_id, parent_id, state, attempt, retries, losses, awaited)
SELECT m.id, m.c, m.n, m.q, coalesce(m.p, 0), t.now, coalesce(m.eta, t.now + coalesce(m.d, 0) * interval '1 s'),
    coalesce(m.x, t.now + m.xi * interval '1 s'), m.b, coalesce(m.e, ''), m.o, coalesce(m.amo, false), m.r, m.pa,
    'PENDING', 0, 0, 0, false
FROM (SELECT statement_timestamp() AS now) t, json_to_recordset(%s::json) AS m(id uuid, c text, n text, q text, p int,
    eta timestamptz, d float8, x timestamptz, xi float8, b text, e text, o text, amo bool, r uuid, pa uuid)
ON CONFLICT (id) DO NOTHING
"""

#: The same for tasks that wait for others.
INSERT_WAITING = INSERT_MANY.replace("'PENDING'", "'WAITING'")

INSERT_EDGES = """
INSERT INTO django_tasks_edge (before_id, after_id, kind)
SELECT e.b, e.a, e.k FROM json_to_recordset(%s::json) AS e(b uuid, a uuid, k text)
"""

#: Waits for tasks alone, and its times are those of its release.
_SIMPLE = f"t.state = 'WAITING' AND t.name <> '{JOIN_TASK}' AND t.due_at <= t.created_at AND t.expires_at IS NULL"
_OTHERS = """FROM django_tasks_edge o WHERE o.after_id = {edge}.after_id AND o.id <> {edge}.id
        AND (o.outcome IS NULL OR o.outcome <> 'ok')"""

#: An edge that is not of a chord is the last one of its task to be closed, or those behind it are not begun; so nobody
#: else closes one at the same time, and no lock is needed. The others are left to those who lock.
#: coalesce(), as otherwise the index of all open edges might be read to its end.
FOLLOW = f"""
WITH forgotten AS (DELETE FROM django_tasks_edge WHERE after_id = ANY(ARRAY[{{keys}}]::uuid[])),
closed AS (UPDATE django_tasks_edge SET outcome = 'ok' WHERE before_id = ANY(ARRAY[{{keys}}]::uuid[])
    AND coalesce(outcome, '') = '' RETURNING id, after_id, kind),
released AS (UPDATE {TASK} t SET state = CASE WHEN limit_key IS NULL THEN 'PENDING' ELSE 'LIMITED' END,
        due_at = statement_timestamp()
    FROM closed c WHERE t.id = c.after_id AND c.kind IN ('after', 'join') AND {_SIMPLE}
    AND NOT EXISTS (SELECT 1 {_OTHERS.format(edge="c")})
    RETURNING t.id, t.queue)
SELECT c.after_id, r.queue FROM closed c LEFT JOIN released r ON r.id = c.after_id
"""

#: Nobody is told when nobody listens: NOTIFY takes a lock that all committing transactions share.
NOTIFY_IDLE = f"SELECT pg_notify('{WAKE_CHANNEL}', '') WHERE EXISTS (SELECT 1 FROM {WORKER} WHERE idle)"

INSERT_ONE_AND_NOTIFY = f"WITH t AS ({INSERT_ONE}) {NOTIFY_IDLE}"
INSERT_MANY_AND_NOTIFY = f"WITH t AS ({INSERT_MANY}) {NOTIFY_IDLE}"

_OUTCOMES = """json_to_recordset(%s::json) AS r(
        i uuid, a int, s text, ago float8, rt float8, v text, ve text, ex text, tb text, h text, k int)"""

_LEDGER = [
    *COPIED,
    *[
        "history",
        "state",
        "started_at",
        "finished_at",
        "runtime",
        "worker",
        "result",
        "result_encoding",
        "exception",
        "traceback",
    ],
]
#: Only an id that its caller used twice is met in the ledger: then the newer result stays.
_REPLACED = ", ".join(f"{name} = excluded.{name}" for name in _LEDGER if name != "id")

#: Delete what this attempt still owns and write the ledger from it. A zombie's outcome meets no row (fencing).
_GONE = f"""
gone AS (DELETE FROM {TASK} t USING done WHERE t.id = done.i AND t.attempt = done.a AND t.state = 'STARTED'{{condition}}
    RETURNING {", ".join("t." + name for name in COPIED)}, t.history, t.awaited, done.*),
kept AS (INSERT INTO {RESULT} ({", ".join(_LEDGER)})
    SELECT {", ".join(COPIED)}, coalesce(h, history), s,
        statement_timestamp() - (ago + rt) * interval '1 s', statement_timestamp() - ago * interval '1 s', rt, %s, v,
        coalesce(ve, ''), coalesce(ex, ''), tb
    FROM gone WHERE k = 1
    ON CONFLICT (id) DO UPDATE SET {_REPLACED})
"""
_FINISH = f"done AS (SELECT * FROM {_OUTCOMES}), {_GONE.format(condition='')}"

#: What the finishing part has to tell: refused ids (kind 1) and finished ids that somebody waits for (kind 2).
#: Counting first spares the comparison of each with each.
_TOLD = """
SELECT 1 AS kind, d.i::text AS id{nulls} FROM done d
    WHERE (SELECT count(*) FROM gone) < (SELECT count(*) FROM done) AND NOT EXISTS (SELECT 1 FROM gone g
    WHERE g.i = d.i)
UNION ALL SELECT 2, g.i::text{nulls} FROM gone g WHERE g.awaited
"""

FINISH = f"WITH {_FINISH} {_TOLD.format(nulls='')}"

#: ``= ANY(ARRAY(…))`` stays an index look-up under every plan; ``IN`` and joins do not. SKIP LOCKED: two workers never
#: wait for, nor take, the same row. Ranges are walked in order and only as far as the limit needs. A known priority is
#: named by equality: only then does the index end the walk at the due time, before all that is scheduled for later.
_CLAIM = f"""
claimed AS (UPDATE {TASK} SET state = 'STARTED', attempt = attempt + 1, worker_id = %s, slot = %s, started_at = NULL,
        custom_state = NULL, meta = NULL
    WHERE id = ANY(ARRAY(
        SELECT c.id FROM json_to_recordset(%s::json) AS r(q text, hi int, lo int, mark float8)
        CROSS JOIN LATERAL (
            SELECT id FROM (
                SELECT id FROM {TASK} WHERE r.hi = r.lo AND queue = r.q AND priority = r.hi AND {CLAIMABLE}
                    AND due_at <= statement_timestamp() AND due_at >= to_timestamp(r.mark) AND name <> ALL(%s::text[])
                ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED) known
            UNION ALL
            SELECT id FROM (
                SELECT id FROM {TASK} WHERE r.hi > r.lo AND queue = r.q AND priority BETWEEN r.lo AND r.hi
                    AND {CLAIMABLE} AND due_at <= statement_timestamp() AND name <> ALL(%s::text[])
                ORDER BY priority DESC, due_at LIMIT %s FOR UPDATE SKIP LOCKED) gap) c
        LIMIT %s))
    RETURNING id::text, date_part('epoch', due_at) AS due,
        date_part('epoch', expires_at - statement_timestamp()) AS expires_in, {", ".join(CLAIMED)})
"""
_CLAIMED_ROWS = f"SELECT 0 AS kind, id, due, expires_in, {', '.join(CLAIMED)} FROM claimed"
_NULLS = (
    ", NULL::float8, NULL::float8, NULL::int, NULL, NULL, NULL::smallint, NULL, NULL, NULL, NULL, NULL::int,"
    " NULL::smallint, NULL, NULL::bool, NULL::timestamptz, NULL::uuid, NULL::uuid, NULL"
)

#: A claim alone need not reach the disk before the task begins: if the server crashes, the row is simply waiting again.
#: The setting holds to the end of this statement's own transaction.
CLAIM = f"WITH {_CLAIM} {_CLAIMED_ROWS}, set_config('synchronous_commit', 'off', true)"
STEP = f"WITH {_FINISH}, {_CLAIM} {_CLAIMED_ROWS} UNION ALL {_TOLD.format(nulls=_NULLS)}"

#: The same for successes that lead to nothing but tasks which wait for one of them alone. Those are let run, and taken
#: at once if nothing else is due and all of them fit: what is due goes before what is due from now on. What another
#: transaction has changed meanwhile is left, and told of (kind 3); if anything else follows, nothing is done (kind 4).
#: LATERAL with a LIMIT, as EXISTS beside an OR would be answered for all edges there are; coalesce() as in FOLLOW.
FOLLOWING = f"""
WITH done AS (SELECT * FROM {_OUTCOMES}),
ahead AS MATERIALIZED (SELECT id, after_id, kind FROM django_tasks_edge
    WHERE before_id = ANY(ARRAY(SELECT i FROM done)) AND coalesce(outcome, '') = ''),
more AS (SELECT 1 FROM ahead e
    LEFT JOIN LATERAL (SELECT 1 AS one FROM {TASK} t WHERE t.id = e.after_id AND {_SIMPLE} LIMIT 1) simple ON true
    LEFT JOIN LATERAL (SELECT 1 AS one {_OTHERS.format(edge="e")} LIMIT 1) other ON true
    WHERE e.kind <> 'after' OR simple.one IS NULL OR other.one IS NOT NULL LIMIT 1),
{_GONE.format(condition=" AND NOT EXISTS (SELECT 1 FROM more)")},
forgotten AS (DELETE FROM django_tasks_edge WHERE after_id = ANY(ARRAY(SELECT i FROM gone))),
closed AS (UPDATE django_tasks_edge SET outcome = 'ok' WHERE before_id = ANY(ARRAY(SELECT i FROM gone))
    AND coalesce(outcome, '') = '' RETURNING after_id),
free AS MATERIALIZED (SELECT (SELECT count(*) FROM closed) <= %s AND NOT EXISTS (
    SELECT 1 FROM json_to_recordset(%s::json) AS r(q text, hi int, lo int, mark float8)
    CROSS JOIN LATERAL (
        SELECT 1 FROM (SELECT 1 FROM {TASK} WHERE r.hi = r.lo AND queue = r.q AND priority = r.hi AND {CLAIMABLE}
            AND due_at <= statement_timestamp() AND due_at >= to_timestamp(r.mark) AND name <> ALL(%s::text[])
            LIMIT 1) known
        UNION ALL
        SELECT 1 FROM (SELECT 1 FROM {TASK} WHERE r.hi > r.lo AND queue = r.q AND priority BETWEEN r.lo AND r.hi
            AND {CLAIMABLE} AND due_at <= statement_timestamp() AND name <> ALL(%s::text[]) LIMIT 1) gap) due)
    AS is_free),
released AS (UPDATE {TASK} t SET due_at = statement_timestamp(), (state, attempt, worker_id, slot) = (
        SELECT CASE WHEN t.limit_key IS NOT NULL THEN 'LIMITED' WHEN mine THEN 'STARTED' ELSE 'PENDING' END,
            t.attempt + mine::int, CASE WHEN mine THEN %s::int END, CASE WHEN mine THEN %s::smallint END
        FROM (SELECT f.is_free AND t.limit_key IS NULL AND t.queue = ANY(%s::text[]) AND t.name <> ALL(%s::text[])
            AS mine) how)
    FROM closed c, free f WHERE t.id = c.after_id AND {_SIMPLE}
    RETURNING t.id::text, t.state, date_part('epoch', t.due_at) AS due, {", ".join("t." + name for name in CLAIMED)})
SELECT CASE WHEN state = 'STARTED' THEN 0 ELSE 5 END AS kind, id, due, NULL::float8 AS expires_in,
    {", ".join(CLAIMED)} FROM released
UNION ALL {_TOLD.format(nulls=_NULLS)}
UNION ALL SELECT 3, c.after_id::text{_NULLS} FROM closed c WHERE NOT EXISTS (
    SELECT 1 FROM released r WHERE r.id = c.after_id::text)
UNION ALL SELECT 4, NULL{_NULLS} FROM more
"""

#: A loose index scan: one probe per priority of each queue, however many rows wait.
BANDS = f"""
WITH RECURSIVE b AS (
    (SELECT queue, priority, due_at FROM {TASK} WHERE {CLAIMABLE} ORDER BY queue, priority DESC, due_at LIMIT 1)
    UNION ALL
    SELECT n.* FROM b CROSS JOIN LATERAL (SELECT * FROM (
        (SELECT queue, priority, due_at FROM {TASK} WHERE {CLAIMABLE} AND queue = b.queue AND priority < b.priority
            ORDER BY queue, priority DESC, due_at LIMIT 1)
        UNION ALL
        (SELECT queue, priority, due_at FROM {TASK} WHERE {CLAIMABLE} AND queue > b.queue
            ORDER BY queue, priority DESC, due_at LIMIT 1)) x LIMIT 1) n)
SELECT queue, priority, date_part('epoch', due_at - statement_timestamp()) FROM b
"""

#: The session's planner may only do what the design relies on.
SESSION = (
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), set_config('jit', 'off', false), "
    "set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false), "
    "set_config('enable_mergejoin', 'off', false), set_config('enable_bitmapscan', 'off', false)"
)


class PostgreSQL(Dialect):
    """PostgreSQL 14 and newer, through psycopg 3 (or 2, without prepared statements and wake-ups)."""

    now = "statement_timestamp()"
    later = "(statement_timestamp() + %s * interval '1 s')"
    uuid = "%s::uuid"
    is_typed = True

    def __init__(self) -> None:
        # Django's backend is loaded, with the driver it found.
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        self._inserts: Mapping[bool, Statement] = {}
        if is_psycopg3:
            from .prepared import Statement

            self._inserts = {True: Statement(INSERT_ONE_AND_NOTIFY), False: Statement(INSERT_ONE)}

    def connection_options(self, options: dict[str, Any]) -> dict[str, Any]:
        # A dead peer is found out within seconds; a pool would share what must be ours.
        mine = {
            "connect_timeout": 10,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "application_name": "django_tasks",
        }
        return {**mine, **{key: value for key, value in options.items() if key != "pool"}}

    def prepare_session(self, connection: Any) -> None:
        connection.pooled = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS", False)
        if not connection.pooled:  # behind a transaction pooler a session is somebody else's a moment later
            with connection.cursor() as cursor:
                cursor.execute(SESSION)
            if hasattr(connection.connection, "prepare_threshold"):
                connection.connection.prepare_threshold = 5  # Django turns preparing off altogether

    def epoch(self, column: str) -> str:
        return f"date_part('epoch', {column})"

    def since(self, column: str) -> str:
        return f"({column} + %s * interval '1 s')"

    def is_transient(self, error: Exception) -> bool:
        return getattr(error.__cause__, "sqlstate", None) in ("40001", "40P01", "55P03")

    def moment(self, moment: datetime) -> Any:
        return moment

    def publish_prepared(self, connection: Any, message: Message, notify: bool, transaction: object) -> bool:
        insert = self._inserts.get(notify)
        return insert is not None and insert.run(connection, _as_parameters(message), transaction=transaction)

    def publish(self, cursor: Any, messages: Sequence[Message], notify: bool) -> None:
        if messages[0].waiting:
            cursor.execute(INSERT_WAITING, (dump([_as_record(one) for one in messages]),))
        elif len(messages) == 1:
            cursor.execute(INSERT_ONE_AND_NOTIFY if notify else INSERT_ONE, _as_parameters(messages[0]))
        else:
            records = dump([_as_record(one) for one in messages])
            cursor.execute(INSERT_MANY_AND_NOTIFY if notify else INSERT_MANY, (records,))

    def follow(self, cursor: Any, edge: str, keys: Sequence[Any]) -> list[tuple[Any, str | None]]:
        marks = ", ".join(["%s"] * len(keys))
        cursor.execute(FOLLOW.format(keys=marks), [*keys, *keys])
        return list(cursor.fetchall())

    def publish_edges(self, cursor: Any, edges: Sequence[Edge]) -> None:
        rows = [{"b": one.before, "a": one.after, "k": one.kind} for one in edges]
        cursor.execute(INSERT_EDGES, (dump(rows),))

    def step(
        self,
        engine: Any,
        outcomes: Sequence[Outcome],
        *,
        holder: Holder,
        plan: Any,
        limit: int,
        unknown: Sequence[str],
    ) -> tuple[list[Delivery], set[str], list[str]]:
        finishing = [_as_outcomes(outcomes), holder.name] if outcomes else []
        claiming = []
        if limit:
            names = list(unknown)
            claiming = [holder.worker, holder.slot, dump(plan.ranges()), names, limit, names, limit, limit]
        sql = STEP if outcomes and limit else CLAIM if limit else FINISH
        with engine.session() as connection:
            rows = _run(connection, sql, [*finishing, *claiming])
        deliveries, refused, awaited = [], set(), []
        for row in rows:
            if limit and row[0] == 0:
                deliveries.append(self.delivery(row[1:]))
            elif row[0] == 1:
                refused.add(row[1])
            else:
                awaited.append(row[1])
        return deliveries, refused, awaited

    def step_and_follow(
        self,
        engine: Any,
        outcomes: Sequence[Outcome],
        *,
        holder: Holder,
        plan: Any,
        limit: int,
        unknown: Sequence[str],
    ) -> Followed | None:
        ranges = plan.ranges() if limit else []
        queues, names = list({one["q"] for one in ranges}), list(unknown)
        claiming = [limit, dump(ranges), names, names, holder.worker, holder.slot, queues, names]
        with engine.session() as connection:
            rows = _run(connection, FOLLOWING, [_as_outcomes(outcomes), holder.name, *claiming])
        told: dict[int, list[Any]] = {}
        for kind, *row in rows:
            told.setdefault(kind, []).append(row)
        if 4 in told:
            return None
        return Followed(
            [self.delivery(row) for row in told.get(0, ())],
            [(row[0], row[5]) for row in told.get(5, ())],
            {row[0] for row in told.get(1, ())},
            [row[0] for row in told.get(2, ())],
            [row[0] for row in told.get(3, ())],
        )

    def finish(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> tuple[set[str], list[str]]:
        cursor.execute(FINISH, [_as_outcomes(outcomes), worker])
        rows = cursor.fetchall()
        return {row[1] for row in rows if row[0] == 1}, [row[1] for row in rows if row[0] == 2]

    def bands(self, engine: Any, queues: Sequence[str] | None) -> list[Band]:
        with engine.session() as connection:
            rows = _run(connection, BANDS, [])
        return [Band(*row) for row in rows if queues is None or row[0] in queues]

    def look(self, engine: Any, queues: Sequence[str] | None) -> Look:
        # In one statement: an idle worker sends few.
        rules = f"SELECT coalesce(json_agg(r)::text, '[]') FROM ({self.rules_sql()}) r"
        sql = (
            f"{BANDS} UNION ALL SELECT ({rules}), NULL, NULL UNION ALL SELECT NULL, NULL, NULL WHERE EXISTS ({LIMITED})"
        )
        with engine.session() as connection:
            rows = _run(connection, sql, [])
        told = [row for row in rows if row[1] is None]
        found = next((row[0] for row in told if row[0] is not None), "[]")
        bands = [Band(*row) for row in rows if row[1] is not None and (queues is None or row[0] in queues)]
        return Look(bands, Rules(map(Rule.read, json.loads(found))), any(row[0] is None for row in told))

    def tell(self, engine: Any, channel: str, payloads: Iterable[str]) -> None:
        with engine.session() as connection:
            for payload in payloads:
                _run(connection, "SELECT pg_notify(%s, %s)", [channel, payload])


def _run(connection: Any, sql: str, params: list[Any]) -> list[tuple[Any, ...]]:
    """Run a hot statement prepared, on the driver's own cursor; through Django's where statements cannot be
    prepared."""
    if connection.pooled or not hasattr(connection.connection, "prepare_threshold"):
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())
    import psycopg

    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(sql, params, prepare=True).fetchall()


_OUTCOME_KEYS = ("i", "a", "s", "ago", "rt", "v", "ve", "ex", "tb", "h", "k")


def _as_outcomes(outcomes: Sequence[Outcome]) -> str:
    return dump([dict(zip(_OUTCOME_KEYS, row, strict=True)) for row in outcome_rows(outcomes, str)])


def _as_parameters(one: Message) -> tuple[Any, ...]:
    """Return the parameters of :data:`INSERT_ONE`."""
    return (
        one.id,
        one.custom_id,
        one.name,
        one.queue,
        one.priority,
        one.eta,
        one.delay,
        one.expires_at,
        one.expires_in,
        one.body,
        one.encoding,
        one.options,
        one.at_most_once,
        one.root_id,
        one.parent_id,
    )


def _as_record(one: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"id": one.id, "n": one.name, "q": one.queue, "b": one.body}
    rest = {
        "c": one.custom_id,
        "p": one.priority,
        "eta": one.eta and one.eta.isoformat(),
        "d": one.delay,
        "x": one.expires_at and one.expires_at.isoformat(),
        "xi": one.expires_in,
        "e": one.encoding,
        "o": one.options,
        "amo": one.at_most_once,
        "r": one.root_id,
        "pa": one.parent_id,
    }
    record.update({key: value for key, value in rest.items() if value})
    if one.expires_in is not None:
        record["xi"] = one.expires_in
    return record
