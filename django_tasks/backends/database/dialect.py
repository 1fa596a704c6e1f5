"""What differs between databases: the clock, ids, and the three hot statements (publish, step, bands)."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from ... import states
from ...fields import utc_text
from ...ids import dashed
from ..message import Delivery, Edge, Holder, Message, Outcome
from ..rules import Rule, Rules
from .turns import Turn

TASK = "django_tasks_task"
RESULT = "django_tasks_taskresult"
WORKER = "django_tasks_worker"
LIMIT = "django_tasks_limit"

#: The condition of the claim index; spelled with literals, so that a partial index is seen to fit.
CLAIMABLE = "state IN ('PENDING', 'RETRY')"
#: The same for what limits hold back.
HELD_BACK = "state = 'LIMITED' AND limit_key IS NOT NULL"
LIMITED = f"SELECT 1 FROM {TASK} WHERE {HELD_BACK} LIMIT 1"

#: Columns that the ledger takes over from the to-do list, copied inside the server.
COPIED = [
    "id",
    "custom_id",
    "name",
    "queue",
    "priority",
    "created_at",
    "due_at",
    "expires_at",
    "attempt",
    "retries",
    "body",
    "encoding",
    "options",
    "root_id",
    "parent_id",
]

#: A claimed row as the worker gets it, after its id, due time and expiry.
CLAIMED = [
    "attempt",
    "name",
    "queue",
    "priority",
    "body",
    "encoding",
    "custom_id",
    "options",
    "retries",
    "losses",
    "history",
    "at_most_once",
    "revoked_at",
    "root_id",
    "parent_id",
    "limit_key",
]

#: A limit as it is read; the last one in seconds, −1 for a pause without end.
RULES = ("kind", "name", "rate", "per_worker", "per_key", "concurrency", "fair", "resumes_in")


class Band(NamedTuple):
    """One priority of one queue that has something waiting; its head is due in ``due_in`` seconds (≤ 0: now)."""

    queue: str
    priority: int
    due_in: float


class Look(NamedTuple):
    """What waits, what may not start, and whether something waits for that."""

    bands: list[Band]
    rules: Rules
    limited: bool


class Followed(NamedTuple):
    """What a step gave that let others run, too."""

    #: What was let run and taken at once, and what was let run without that, by queue.
    deliveries: list[Delivery]
    released: list[tuple[str, str]]
    refused: set[str]
    awaited: list[str]
    #: What waits behind these and could not be let run so.
    left: list[str]


class Dialect(ABC):
    """One database's spelling. Stateless: connections and marks are passed in."""

    #: The database's clock, and a moment so many seconds (one parameter) from it.
    now: ClassVar[str]
    later: ClassVar[str]
    #: Opens a transaction in which the first statement may write.
    begin: ClassVar[str] = "BEGIN"
    #: Turns a text parameter into an id.
    uuid: ClassVar[str] = "%s"
    #: At the end of a query: lock its rows, and leave out, or wait for, those that are locked already.
    skip_locked: ClassVar[str] = " FOR UPDATE SKIP LOCKED"
    lock: ClassVar[str] = " FOR UPDATE"
    #: Behind a table's name: read the to-do list by the index of what limits hold back.
    by_limit: ClassVar[str] = ""
    #: Is an index used for a range that another row of the same statement begins?
    searches_by_other_rows: ClassVar[bool] = True
    #: Must a moment that may be NULL tell its type?
    is_typed: ClassVar[bool] = False

    def connection_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the ``OPTIONS`` for an engine connection, made from the site's own."""
        return options

    @abstractmethod
    def prepare_session(self, connection: Any) -> None:
        """Set an engine connection up, once it is open."""

    def turn(self, connection: Any) -> Turn:
        """Return this engine connection's place among the writers, where the database does not queue them itself."""
        return Turn()

    @abstractmethod
    def epoch(self, column: str) -> str:
        """Return SQL for ``column`` in seconds since 1970, as a double."""

    @abstractmethod
    def is_transient(self, error: Exception) -> bool:
        """Is this a deadlock or a busy database: may the same work succeed at once?"""

    def key(self, task_id: str) -> str:
        """Return a canonical id as a parameter of this database."""
        return task_id

    def moment(self, moment: datetime) -> Any:
        """Return a moment as a parameter of this database: the same one as the model's field makes of it."""
        return utc_text(moment)

    def publish_prepared(self, connection: Any, message: Message, notify: bool, transaction: object) -> bool:
        """Insert one task as :meth:`publish` does, by a statement that the server keeps ready on the caller's own
        connection; ``False`` where that cannot be had, and nothing was done.

        ``transaction`` is the same object for all that the caller's open transaction sends after the first task, and
        ``None`` for that one.
        """
        return False

    @abstractmethod
    def publish(self, cursor: Any, messages: Sequence[Message], notify: bool) -> None:
        """Insert tasks in the caller's transaction; wake idle workers if the database can and ``notify`` asks for
        it."""

    @abstractmethod
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
        """Finish ``outcomes`` and claim up to ``limit`` in one transaction.

        Return the deliveries, the ids that were not this holder's any more, and the finished ids somebody waits for.
        """

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
        """Finish successes and let run what waits behind them, in one statement; what could be claimed next of that, if
        nothing else is due, is taken with it. ``None`` if this cannot be done so: then nothing was done."""
        return None

    def claim_within(
        self, cursor: Any, *, holder: Holder, plan: Any, limit: int, unknown: Sequence[str]
    ) -> list[Any] | None:
        """Claim as :meth:`step` does in the cursor's transaction; return rows for :meth:`delivery`, ``None`` where a
        statement of its own is better."""
        return None

    def delivery(self, row: Any) -> Delivery:
        """Make a delivery of a claimed row: id, due (epoch), expires in (seconds), then :data:`CLAIMED`."""
        (id_, due, expires_in, attempt, name, queue, priority, body, encoding, custom_id, options) = row[:11]
        (retries, losses, history, at_most_once, revoked_at, root_id, parent_id, limit_key) = row[11:19]
        return Delivery(
            id=dashed(id_),
            attempt=attempt,
            name=name,
            queue=queue,
            priority=priority,
            body=body,
            encoding=encoding,
            custom_id=custom_id,
            options=options,
            retries=retries,
            losses=losses,
            history=history,
            at_most_once=bool(at_most_once),
            revoked=revoked_at is not None,
            root_id=dashed(root_id) if root_id is not None else None,
            parent_id=dashed(parent_id) if parent_id is not None else None,
            due=due,
            expires_in=expires_in,
            limit_key=limit_key,
        )

    @abstractmethod
    def finish(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> tuple[set[str], list[str]]:
        """Move outcomes to the ledger in the cursor's transaction; return refused and awaited ids."""

    @abstractmethod
    def bands(self, engine: Any, queues: Sequence[str] | None) -> list[Band]:
        """Return what waits: a look at the head of each priority of each queue, at constant cost. ``None``: all
        queues."""

    def look(self, engine: Any, queues: Sequence[str] | None) -> Look:
        """Return what :meth:`bands` does, with the limits there are."""
        rules = rules_of(engine.query(self.rules_sql()))
        return Look(self.bands(engine, queues), rules, bool(engine.query(LIMITED)))

    def rules_sql(self) -> str:
        """Return the query for all limits, in the columns :data:`RULES`."""
        left = f"{self.epoch('paused_until')} - {self.epoch(self.now)}"
        paused = f"paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > {self.now})"
        resumes = f"CASE WHEN NOT ({paused}) THEN NULL WHEN paused_until IS NULL THEN -1 ELSE {left} END AS resumes_in"
        return f"SELECT {', '.join(RULES[:-1])}, {resumes} FROM {LIMIT}"

    def partner(self, column: str) -> str:
        """Return SQL for the other one of the two unique keys that calls of one kind may have at a time."""
        return f"CASE WHEN {column} LIKE '+%%' THEN substr({column}, 2) ELSE '+' || {column} END"

    @abstractmethod
    def publish_edges(self, cursor: Any, edges: Sequence[Edge]) -> None:
        """Store what comes after what, in the cursor's transaction."""

    def close_edges(self, cursor: Any, table: str, where: str, params: Sequence[Any], outcome: str) -> list[Any]:
        """Say of edges what became of the task before; return the keys of those after it."""
        cursor.execute(f"UPDATE {table} SET outcome = %s WHERE {where} RETURNING after_id", [outcome, *params])
        return [row[0] for row in cursor.fetchall()]

    def follow(self, cursor: Any, edge: str, keys: Sequence[Any]) -> list[tuple[Any, str | None]]:
        """Forget what these waited for, which have succeeded; close the edges from them; return the keys of what waits
        behind those, each with its queue if it is released already."""
        marks = ", ".join([self.uuid] * len(keys))
        self.delete_edges(cursor, edge, f"after_id IN ({marks})", keys)
        where = f"before_id IN ({marks}) AND outcome IS NULL"
        return [(key, None) for key in self.close_edges(cursor, edge, where, keys, "ok")]

    def delete_edges(self, cursor: Any, table: str, where: str, params: Sequence[Any]) -> None:
        """Delete edges."""
        cursor.execute(f"DELETE FROM {table} WHERE {where}", params)

    @abstractmethod
    def since(self, column: str) -> str:
        """Return SQL for so many seconds (one parameter) after a column."""

    def unless_there(self, table: str, column: str) -> str:
        """Return the end of an INSERT that leaves alone what any unique column finds there; ``column`` is any."""
        return "ON CONFLICT DO NOTHING"

    def unless_beyond(self, table: str, *replaced: str) -> str:
        """Return the end of an INSERT of tasks that changes attempt, limit and state of what has the same id, if it is
        in one of these states and its attempt is not a later one."""
        sets = ", ".join(f"{name} = excluded.{name}" for name in ("attempt", "limit_key", "state"))
        where = f"{table}.state IN ({', '.join(map(repr, replaced))}) AND {table}.attempt <= excluded.attempt"
        return f"ON CONFLICT (id) DO UPDATE SET {sets} WHERE {where}"

    def upsert(self, table: str, columns: Sequence[str], key: Sequence[str]) -> str:
        """Return an INSERT that replaces what has the same key."""
        rest = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
        marks = ", ".join(["%s"] * len(columns))
        return (
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {rest}"
        )

    def adding(self, table: str, columns: Sequence[str], key: Sequence[str], rows: int) -> str:
        """Return an INSERT of so many rows that adds their numbers to what has the same key."""
        more = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in columns if name not in key)
        marks = ", ".join([f"({', '.join(['%s'] * len(columns))})"] * rows)
        return (
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks}"
            f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {more}"
        )

    @abstractmethod
    def tell(self, engine: Any, channel: str, payloads: Iterable[str]) -> None:
        """Wake who waits on ``channel``, where the database can."""


def outcome_rows(outcomes: Sequence[Outcome], key: Any) -> list[list[Any]]:
    """Return outcomes as rows: id, attempt, state, age, runtime, result, encoding, exception, traceback, history,
    keep."""
    moment = time.monotonic()
    return [
        [
            key(one.id),
            one.attempt,
            one.state,
            round(moment - one.ended, 6),
            one.runtime,
            one.result,
            one.result_encoding,
            one.exception,
            one.traceback,
            one.history,
            1 if one.keep else 0,
        ]
        for one in outcomes
    ]


def rules_of(rows: Iterable[Sequence[Any]]) -> Rules:
    """Return the limits that were read with :meth:`Dialect.rules_sql`."""
    return Rules(Rule.read(dict(zip(RULES, row, strict=True))) for row in rows)


def dump(value: Any) -> str:
    """Write a parameter: one JSON text costs a tenth of an array of Python values."""
    return _dumps(value)


try:
    import orjson

    def _dumps(value: Any) -> str:
        return orjson.dumps(value).decode()

except ImportError:

    def _dumps(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))


assert {"PENDING", "RETRY"} == states.CLAIMABLE  # noqa: S101 - the literal above says the same
