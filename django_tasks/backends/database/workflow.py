"""Workflows: what waits for what, and what follows from the end of a task.

The edges are rows, and each says what became of the task before it. A task is released, or fails, when no edge to it is
open. Nothing is counted, so nothing can be counted wrong. All of this happens in the transaction that ends the task
before, so a crash leaves both or neither; what another cause may leave, :meth:`Workflows.sweep` finds.

Two tasks that end in the same moment each see the other's edge still open. So whoever closed an edge locks the row that
waits *before* it looks: the second one waits for the first one's commit, and then sees all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connections, transaction

from ... import states
from ...conf import settings
from ...exceptions import ChordError, TaskRevokedError
from ...ids import dashed, new_id
from ...redaction import REDACTED
from ...serialization import dumps, exception_from_data, exception_to_data, loads_error, storable
from ..fate import FAILED, NOT_RUN, OK, SKIPPED, Reason, fate
from ..message import ANY, JOIN, JOIN_TASK, Edge, Message, Outcome
from .arrivals import Arrivals
from .dialect import RESULT, TASK, Dialect
from .engine import Engine

EDGE = "django_tasks_edge"
GROUP = "django_tasks_savedgroup"

#: Rows per INSERT.
CHUNK = 1_000
#: Ids per statement.
MANY = 500
#: Edges that one call of :meth:`Workflows.sweep` looks at.
SWEPT = 5_000

_OPEN = f"EXISTS (SELECT 1 FROM {EDGE} e WHERE e.after_id = t.id AND e.outcome IS NULL)"
_SPOILT = f"EXISTS (SELECT 1 FROM {EDGE} e WHERE e.after_id = t.id AND e.outcome <> '{OK}' AND e.kind <> '{ANY}')"


class Ended(NamedTuple):
    """A task that is done, as those see it that wait for it."""

    outcome: str
    #: Are its errbacks to be called?
    calls: bool = False


class Waiting(NamedTuple):
    """A row that waits, locked."""

    id: str
    name: str
    queue: str
    attempt: int
    #: Given where its due time or its expiry begins only now.
    options: str | None


class Released(NamedTuple):
    """A task that waits for nothing any more, or an errback that was stored."""

    id: str
    queue: str


class Told(NamedTuple):
    """What followed from the end of tasks: whom to wake."""

    refused: set[str]
    awaited: list[str]
    released: list[Released]


class Workflows:
    """The edges of one database, worked on through the cursors of whoever ends a task."""

    #: Is this attempt (one parameter) the one that runs?
    owned = "attempt = %s AND state = 'STARTED'"

    def __init__(self, alias: str, dialect: Dialect, arrivals: Arrivals) -> None:
        self._alias = alias
        self._dialect = dialect
        self._arrivals = arrivals
        self._swept = 0

    def move(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> tuple[set[str], list[str]]:
        """Move what ran to the ledger; return refused and awaited ids."""
        return self._dialect.finish(cursor, outcomes, worker)

    # Storing

    def store(self, messages: Sequence[Message], edges: Sequence[Edge]) -> None:
        """Store tasks and their edges in the caller's transaction, all or none."""
        with transaction.atomic(using=self._alias, savepoint=False):
            controlled = [one for one in messages if _is_controlled(one)]
            if controlled:
                self._arrivals.store(controlled)
            with connections[self._alias].cursor() as cursor:
                self._insert(cursor, [one for one in messages if not _is_controlled(one)], edges)

    def _insert(self, cursor: Any, messages: Sequence[Message], edges: Sequence[Edge]) -> None:
        for waiting in (False, True):
            some = [one for one in messages if one.waiting is waiting]
            for start in range(0, len(some), CHUNK):
                self._dialect.publish(cursor, some[start : start + CHUNK], False)
        for start in range(0, len(edges), CHUNK):
            self._dialect.publish_edges(cursor, edges[start : start + CHUNK])

    def replace(
        self, cursor: Any, own: Message, attempt: int, history: str, others: Sequence[Message], edges: Sequence[Edge]
    ) -> bool:
        """Put other tasks in the place of a running one, the last of them under its id; False if it lost its lease.

        What waits for it now waits for the last one.
        """
        dialect = self._dialect
        typed = "::timestamptz" if dialect.is_typed else ""
        moment = f"coalesce(%s{typed}, {dialect.later})"
        state = "'WAITING'" if own.waiting else "CASE WHEN %s THEN 'LIMITED' ELSE 'PENDING' END"
        cursor.execute(
            f"UPDATE {TASK} SET name = %s, queue = %s, priority = %s, body = %s, encoding = %s, options = %s,"
            f" due_at = {moment}, expires_at = {moment}, at_most_once = %s, limit_key = %s, history = %s, retries = 0,"
            " worker_id = NULL, slot = NULL, started_at = NULL, custom_state = NULL, meta = NULL, attempt = %s,"
            f" state = {state} WHERE id = {dialect.uuid} AND {self.owned} AND revoked_at IS NULL",
            [
                *(own.name, own.queue, own.priority, own.body, own.encoding, own.options),
                *(own.eta and self._arrivals.moment(own.eta), own.delay),
                *(own.expires_at and self._arrivals.moment(own.expires_at), own.expires_in),
                *(own.at_most_once, own.limit_key, history, attempt),
                *([] if own.waiting else [own.limit_key is not None]),
                *(self._key(own.id), attempt),
            ],
        )
        if not cursor.rowcount:
            return False
        self._drop_inputs(cursor, [own.id])
        controlled = [one for one in others if _is_controlled(one)]
        self._arrivals.insert(cursor, controlled)
        self._insert(cursor, [one for one in others if not _is_controlled(one)], edges)
        return True

    def extend(self, body: str, messages: Sequence[Message], edges: Sequence[Edge], value: Any) -> bool:
        """Add to what a chord's body waits for and takes in, in the caller's transaction; False if it does not wait
        any more."""
        with transaction.atomic(using=self._alias):
            with connections[self._alias].cursor() as cursor:
                where = f"WHERE id = {self._dialect.uuid} AND state = 'WAITING'"
                cursor.execute(f"SELECT options FROM {TASK} {where}{self._dialect.lock}", [self._key(body)])
                row = cursor.fetchone()
                if row is None:
                    return False
                options = json.loads(row[0])
                options["node"]["in"] = [*options["node"]["in"], value]
                cursor.execute(f"UPDATE {TASK} SET options = %s {where}", [dumps(options)[1], self._key(body)])
            self.store(messages, edges)
            return True

    # Ending

    def finish(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> Told:
        """End tasks, and release or end what waits for them, in the cursor's transaction."""
        refused, awaited = self.move(cursor, outcomes, worker)
        self._redact(cursor, [one for one in outcomes if one.body is not None and one.id not in refused])
        ended = {
            one.id: Ended(OK if one.state == states.SUCCESS else FAILED, one.state == states.FAILURE)
            for one in outcomes
            if one.id not in refused
        }
        awaited = list(awaited)
        return Told(refused, awaited, self.advance(cursor, ended, awaited))

    def settle(self, cursor: Any, after: Collection[str]) -> Told:
        """Release or end those of these that have nothing to wait for any more, and do what follows from that."""
        awaited: list[str] = []
        released: list[Released] = []
        ended = self._settle(cursor, sorted(after), awaited, released)
        return Told(set(), awaited, [*released, *self.advance(cursor, ended, awaited)])

    def _redact(self, cursor: Any, outcomes: Sequence[Outcome]) -> None:
        """Keep the arguments of these without the sensitive ones: the lines were written in this transaction."""
        sql = f"UPDATE {RESULT} SET body = %s, encoding = %s WHERE id = {self._dialect.uuid}"
        for one in outcomes:
            cursor.execute(sql, [one.body, REDACTED, self._key(one.id)])

    def advance(self, cursor: Any, ended: Mapping[str, Ended], awaited: list[str]) -> list[Released]:
        """Do what follows from the end of these; return what was released."""
        released: list[Released] = []
        while ended:
            self._call_errbacks(cursor, [one for one, what in ended.items() if what.calls], released)
            after = self._follow(cursor, [one for one, what in ended.items() if _is_done_well(what)], released)
            others = {one: what for one, what in ended.items() if not _is_done_well(what)}
            after |= self._mark(cursor, others)
            self._drop_inputs(cursor, [one for one, what in others.items() if what is not _JOINED])
            ended = self._settle(cursor, sorted(after), awaited, released)
        return released

    def _follow(self, cursor: Any, succeeded: Sequence[str], released: list[Released]) -> set[str]:
        """Close the edges from these; return what waits behind them, but for what is released by that."""
        after: set[str] = set()
        for keys in self._keys(succeeded):
            rows = self._dialect.follow(cursor, EDGE, keys)
            released += [Released(dashed(key), queue) for key, queue in rows if queue is not None]
            after |= {dashed(key) for key, queue in rows if queue is None}
        return after

    def _mark(self, cursor: Any, ended: Mapping[str, Ended]) -> set[str]:
        """Close the edges from these; return what waits behind them."""
        after: set[str] = set()
        for outcome in (OK, FAILED, SKIPPED):
            for keys in self._keys([one for one, what in ended.items() if what.outcome == outcome]):
                where = f"before_id IN ({self._marks(keys)}) AND outcome IS NULL"
                after |= {dashed(one) for one in self._dialect.close_edges(cursor, EDGE, where, keys, outcome)}
        return after

    def _drop_inputs(self, cursor: Any, ended: Sequence[str]) -> None:
        """Forget what these waited for: nobody needs it for them any more."""
        for keys in self._keys(ended):
            self._dialect.delete_edges(cursor, EDGE, f"after_id IN ({self._marks(keys)})", keys)

    def _settle(
        self, cursor: Any, after: Sequence[str], awaited: list[str], released: list[Released]
    ) -> dict[str, Ended]:
        """Release what has nothing to wait for any more, or end it; return what ended."""
        ended: dict[str, Ended] = {}
        for keys in self._keys(after):
            locked = self._locked(cursor, keys)
            if not locked:
                continue
            # Read after the locks are there, so that it sees what all others before us have committed.
            chosen = self._keys_of(locked)
            cursor.execute(
                f"SELECT t.id, {_SPOILT} FROM {TASK} t WHERE t.id IN ({self._marks(chosen)}) AND NOT {_OPEN}", chosen
            )
            spoilt = {dashed(id_): bool(bad) for id_, bad in cursor.fetchall()}
            complete = [locked[one] for one in sorted(spoilt)]
            free = [one for one in complete if not spoilt[one.id]]
            ready = [one for one in free if one.name != JOIN_TASK]
            self._release(cursor, ready)
            released += [Released(one.id, one.queue) for one in ready]
            joins = [one for one in free if one.name == JOIN_TASK]
            if joins:
                self._end(cursor, joins, [Outcome(one.id, one.attempt + 1, states.SUCCESS) for one in joins], awaited)
                ended |= dict.fromkeys((one.id for one in joins), _JOINED)
            bad = [one for one in complete if spoilt[one.id]]
            if bad:
                ended |= self._fail(cursor, bad, awaited)
        return ended

    def _locked(self, cursor: Any, keys: Sequence[Any]) -> dict[str, Waiting]:
        cursor.execute(
            "SELECT id, name, queue, attempt,"
            " CASE WHEN due_at > created_at OR expires_at IS NOT NULL THEN options END"
            f" FROM {TASK} WHERE id IN ({self._marks(keys)}) AND state = 'WAITING' ORDER BY id{self._dialect.lock}",
            keys,
        )
        rows = (Waiting(dashed(row[0]), *row[1:]) for row in cursor.fetchall())
        return {one.id: one for one in rows}

    def _release(self, cursor: Any, rows: Sequence[Waiting]) -> None:
        release = "state = CASE WHEN limit_key IS NULL THEN 'PENDING' ELSE 'LIMITED' END"
        plain = [one for one in rows if one.options is None]
        if plain:
            keys = self._keys_of({one.id: one for one in plain})
            cursor.execute(
                f"UPDATE {TASK} SET {release}, due_at = {self._dialect.now}"
                f" WHERE id IN ({self._marks(keys)}) AND state = 'WAITING'",
                keys,
            )
        for one in rows:
            if one.options is None:
                continue
            options = json.loads(one.options)
            place, sets, params = options["node"], [release], []
            if "countdown" in place or not options.get("eta"):
                sets.append(f"due_at = {self._dialect.later}")
                params.append(float(place.get("countdown", 0)))
            if "expires_in" in place:
                sets.append(f"expires_at = {self._dialect.later}")
                params.append(float(place["expires_in"]))
            cursor.execute(
                f"UPDATE {TASK} SET {', '.join(sets)} WHERE id = {self._dialect.uuid} AND state = 'WAITING'",
                [*params, self._key(one.id)],
            )

    def _end(self, cursor: Any, rows: Sequence[Waiting], outcomes: Sequence[Outcome], awaited: list[str]) -> None:
        """Move rows that wait, and are locked, to the ledger: taken as a worker would, so that no worker can."""
        keys = self._keys_of({one.id: one for one in rows})
        cursor.execute(
            f"UPDATE {TASK} SET state = 'STARTED', attempt = attempt + 1 WHERE id IN ({self._marks(keys)})"
            " AND state = 'WAITING'",
            keys,
        )
        awaited += self._dialect.finish(cursor, outcomes, "")[1]

    # Failing

    def _fail(self, cursor: Any, rows: Sequence[Waiting], awaited: list[str]) -> dict[str, Ended]:
        """End what cannot run because of what came before it."""
        keys = self._keys_of({one.id: one for one in rows})
        cursor.execute(
            f"SELECT after_id, before_id, kind, outcome FROM {EDGE} WHERE after_id IN ({self._marks(keys)})"
            f" AND outcome <> '{OK}' AND kind <> '{ANY}' ORDER BY id",
            keys,
        )
        reasons: dict[str, list[Reason]] = {}
        for after, before, kind, outcome in cursor.fetchall():
            reasons.setdefault(dashed(after), []).append(Reason(dashed(before), kind, outcome))
        fates = {one.id: fate(reasons[one.id]) for one in rows}
        culprits = self._culprits(cursor, sorted({one.culprit for one in fates.values()}))
        outcomes, ended = [], {}
        for one in rows:
            before, kind, outcome = fates[one.id]
            culprit = culprits.get(before, _Culprit(before))
            is_skipped = outcome == SKIPPED
            if is_skipped or kind == JOIN or one.name == JOIN_TASK:
                ending = culprit.passed_on(one.id, one.attempt + 1)
            else:
                ending = culprit.broke_chord(one.id, one.attempt + 1)
            outcomes.append(ending)
            # A join has none but those of a batch, which are for whatever kept it from being complete.
            calls = ending.state == states.FAILURE or one.name == JOIN_TASK
            ended[one.id] = Ended(outcome, calls=calls and not is_skipped)
        self._end(cursor, rows, outcomes, awaited)
        return ended

    def _culprits(self, cursor: Any, ids: Sequence[str]) -> dict[str, _Culprit]:
        found = {}
        for keys in self._keys(ids):
            cursor.execute(
                f"SELECT id, custom_id, name, state, result, result_encoding, exception FROM {RESULT}"
                f" WHERE id IN ({self._marks(keys)})",
                keys,
            )
            for id_, custom_id, *rest in cursor.fetchall():
                found[dashed(id_)] = _Culprit(custom_id or dashed(id_), *rest)
        return found

    def _call_errbacks(self, cursor: Any, failed: Sequence[str], released: list[Released]) -> None:
        """Store the errbacks of these, which are in the ledger by now."""
        messages = []
        for keys in self._keys(failed):
            cursor.execute(
                f"SELECT id, custom_id, options, root_id, CASE WHEN traceback LIKE %s THEN 1 ELSE 0 END FROM {RESULT}"
                f" WHERE id IN ({self._marks(keys)}) AND (options LIKE %s OR options LIKE %s)",
                [f"{NOT_RUN}%", *keys, '%"errbacks":%', '%"fallbacks":%'],
            )
            for id_, custom_id, options, root_id, was_not_run in cursor.fetchall():
                place = json.loads(options).get("node") or {}
                fallbacks = place.get("fallbacks", ()) if was_not_run else ()
                for record in (*place.get("errbacks", ()), *fallbacks):
                    root = dashed(root_id) if root_id is not None else dashed(id_)
                    messages.append(_errback(record, dashed(id_), custom_id or dashed(id_), root))
        if messages:
            self._arrivals.insert(cursor, [one for one in messages if _is_controlled(one)])
            self._insert(cursor, [one for one in messages if not _is_controlled(one)], [])
            released += [Released(one.id, one.queue) for one in messages]

    # Sweeping

    def sweep(self, engine: Engine) -> tuple[int, Told]:
        """Look at the next edges for what nobody did, and do it; return how many tasks that concerned, and what
        followed.

        That is: a task was deleted, or ended by what knew nothing of edges.
        """
        rows = engine.query(
            f"SELECT id, before_id, after_id, outcome FROM {EDGE} WHERE id > %s ORDER BY id LIMIT {SWEPT}",
            [self._swept],
        )
        self._swept = rows[-1][0] if len(rows) == SWEPT else 0
        nothing = Told(set(), [], [])
        if not rows:
            return 0, nothing
        open_ = {dashed(before) for _, before, _, outcome in rows if outcome is None}
        gone = open_ - self._there(engine, TASK, open_)
        targets = {dashed(after) for _, _, after, _ in rows}
        waiting = self._there(engine, TASK, targets, " AND state = 'WAITING'")
        closed = {dashed(after) for _, _, after, outcome in rows if outcome is not None} & waiting

        def work(cursor: Any) -> tuple[int, Told]:
            awaited: list[str] = []
            late: list[Released] = []
            ended = {one: self._ended_as(cursor, one) for one in sorted(gone)}
            released = self.advance(cursor, ended, awaited)
            found = self._settle(cursor, sorted(closed), awaited, late)
            released += self.advance(cursor, found, awaited)
            return len(ended) + len(found) + len(late), Told(set(), awaited, [*released, *late])

        done = engine.transaction(work) if gone or closed else (0, nothing)
        self._tidy(engine, [row[0] for row in rows if dashed(row[2]) not in waiting])
        return done

    def _ended_as(self, cursor: Any, task_id: str) -> Ended:
        cursor.execute(f"SELECT state, traceback FROM {RESULT} WHERE id = {self._dialect.uuid}", [self._key(task_id)])
        row = cursor.fetchone()
        if row is None:
            return Ended(FAILED)
        state, traceback = row
        if state == states.SUCCESS:
            return Ended(OK)
        return Ended(SKIPPED if (traceback or "").startswith(NOT_RUN) else FAILED)

    def _tidy(self, engine: Any, edges: Sequence[int]) -> None:
        """Delete edges to tasks that are done; those to a join stay while somebody needs what it stands for."""
        for start in range(0, len(edges), MANY):
            some = edges[start : start + MANY]
            marks = ", ".join(["%s"] * len(some))
            rows = engine.query(
                f"SELECT e.id FROM {EDGE} e WHERE e.id IN ({marks})"
                f" AND NOT EXISTS (SELECT 1 FROM {TASK} t WHERE t.id = e.after_id)"
                f" AND NOT EXISTS (SELECT 1 FROM {EDGE} o WHERE o.before_id = e.after_id)",
                some,
            )
            if rows:
                keys = [row[0] for row in rows]
                marks = ", ".join(["%s"] * len(keys))
                engine.execute(f"DELETE FROM {EDGE} WHERE id IN ({marks})", keys)

    def _there(self, engine: Engine, table: str, ids: Collection[str], condition: str = "") -> set[str]:
        found: set[str] = set()
        for keys in self._keys(sorted(ids)):
            rows = engine.query(f"SELECT id FROM {table} WHERE id IN ({self._marks(keys)}){condition}", keys)
            found |= {dashed(row[0]) for row in rows}
        return found

    # Inside

    def _key(self, task_id: str) -> Any:
        return self._dialect.key(task_id)

    def _keys(self, ids: Sequence[str]) -> Iterator[list[Any]]:
        """Yield keys in parts, each in key order: whoever locks rows does it in that order."""
        ordered = sorted(map(self._key, ids))
        for start in range(0, len(ordered), MANY):
            yield ordered[start : start + MANY]

    def _keys_of(self, rows: Mapping[str, Any]) -> list[Any]:
        return sorted(map(self._key, rows))

    def _marks(self, keys: Sequence[Any]) -> str:
        return ", ".join([self._dialect.uuid] * len(keys))


#: A join is done, and what it waited for is still needed.
_JOINED = Ended(OK)


def _is_done_well(what: Ended) -> bool:
    return what.outcome == OK and what is not _JOINED


class _Culprit(NamedTuple):
    """A task because of which another one cannot run."""

    task_id: str
    name: str = ""
    state: str = ""
    result: str | None = None
    encoding: str = ""
    exception: str = ""

    def passed_on(self, task_id: str, attempt: int) -> Outcome:
        """Return the end of a task that shares the fate of this one."""
        if self.state in states.PROPAGATE_STATES and self.result is not None:
            state, encoding, result, line = self.state, self.encoding, self.result, self.exception
        else:
            error = TaskRevokedError(self._reason())
            state, line = states.REVOKED, f"TaskRevokedError: {error}"
            encoding, result = dumps(exception_to_data(error))
        return Outcome(
            task_id, attempt, state, result=result, result_encoding=encoding, exception=line[:255],
            traceback=f"{NOT_RUN}{self._reason()}",
        )  # fmt: skip

    def broke_chord(self, task_id: str, attempt: int) -> Outcome:
        """Return the end of a chord's body of whose header this is a member."""
        error = ChordError(f"Dependency {self.task_id} raised {self._error()!r}")
        error.__cause__ = self._error()
        encoding, result = dumps(exception_to_data(error))
        return Outcome(
            task_id, attempt, states.FAILURE, result=result, result_encoding=encoding,
            exception=storable(f"ChordError: {error}")[:255], traceback=f"{NOT_RUN}{self._reason()}",
        )  # fmt: skip

    def _error(self) -> BaseException:
        if self.result is not None and self.state in states.PROPAGATE_STATES:
            data = loads_error(self.result, self.encoding, settings.ACCEPT_CONTENT)
            if isinstance(data, dict):
                return exception_from_data(data)
        return TaskRevokedError(self._reason())

    def _reason(self) -> str:
        if not self.state:
            return f"its predecessor {self.task_id} is gone without a result"
        return f"its predecessor {self.name}[{self.task_id}] ended as {self.state}"


def _errback(record: Mapping[str, Any], key: str, failed: str, root: str) -> Message:
    """Return the message of an errback of a task that failed."""
    options = json.loads(record.get("options") or "{}")
    options["node"] = {"failed": failed, "immutable": bool(record.get("immutable"))}
    return Message(
        id=new_id(),
        name=record["name"],
        queue=record["queue"],
        priority=record.get("priority", 0),
        body=record["body"],
        encoding=record.get("encoding", ""),
        options=json.dumps(options),
        delay=record.get("delay", 0.0),
        expires_in=record.get("expires_in"),
        at_most_once=record.get("at_most_once", False),
        limit_key=record.get("limit_key"),
        root_id=root,
        parent_id=key,
        tags=tuple(options.get("tags", ())),
    )


def _is_controlled(message: Message) -> bool:
    """Is a limit, uniqueness or a tag to be minded?"""
    return message.limit_key is not None or message.unique is not None or bool(message.tags)
