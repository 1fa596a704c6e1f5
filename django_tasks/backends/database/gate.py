"""The gatekeeper: lets tasks through that limits hold back, from what the rows say and nothing else.

A task that a limit counts waits as LIMITED, outside of the claim index, so it delays no other. Let through, it is
PENDING with its ``limit_key`` kept, and then STARTED: these rows *are* the places that are taken. No counter can drift
and no lock can expire, and a worker that dies takes no place with it for longer than its lease.

One round is one short transaction. Gatekeepers take turns by locking the rows of the limits; who finds them locked
leaves and comes back. PostgreSQL and MySQL count with READ COMMITTED, so a round sees all that the round before did.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from typing import Any, NamedTuple

from ...ids import dashed
from ...rates import Spacing
from ..base import Queues
from ..message import Admission
from ..rules import Rule, Rules, Scope
from .dialect import HELD_BACK, LIMIT, TASK, WORKER, Dialect, rules_of
from .engine import Engine
from .heads import Head, Heads, Kind
from .postgresql import NOTIFY_IDLE, PostgreSQL

STATE = "django_tasks_limitstate"

#: Most tasks that a round lets through.
MOST = 1_000
#: Heads per statement.
PART = 40
#: Seconds after which to come back: when another gatekeeper is at it, when the one before has not begun yet, and when
#: there were more heads than a round looks at.
BUSY, WATCH, MORE = 0.01, 0.02, 0.1
#: Seconds of work that a fair queue lets through ahead of its start, and over which its pace is smoothed.
AHEAD, SMOOTH = 0.05, 0.1

LET_THROUGH = "limit_key IS NOT NULL AND state IN ('PENDING', 'STARTED')"

#: What holds places: how many, how many of them nobody has taken, and how many have not begun.
PLACES = f"""
SELECT queue, name, limit_key, count(*), sum(CASE WHEN state = 'PENDING' THEN 1 ELSE 0 END),
    sum(CASE WHEN started_at IS NULL THEN 1 ELSE 0 END)
FROM {TASK} WHERE {LET_THROUGH} GROUP BY queue, name, limit_key
"""

#: What is to run after another one waits while that one, begun before it, is not done.
_FREE = f"""(unique_key IS NULL OR attempt > 0 OR NOT EXISTS (
    SELECT 1 FROM {TASK} u WHERE u.unique_key = {{partner}} AND u.attempt > 0))"""

#: The first of one head that are due, as many as may be wanted; what has expired may go in any case.
FIRST = f"""
SELECT * FROM (SELECT {{number}} AS number, id, {{due}} AS due,
    CASE WHEN expires_at <= {{now}} THEN 1 ELSE 0 END AS expired FROM {TASK} t{{hint}}
WHERE {HELD_BACK} AND limit_key = %s AND queue = %s AND name = %s AND priority = %s AND due_at <= {{now}}
    AND {_FREE} ORDER BY due_at LIMIT %s) f{{number}}
"""


class Places(NamedTuple):
    """What holds places under one queue, name and key: how many, how many that nobody has taken, and that have not
    begun."""

    queue: str
    name: str
    key: str
    total: int
    pending: int
    unbegun: int


class Candidate(NamedTuple):
    """A task that may be let through."""

    id: Any
    due: float
    head: Head
    expired: bool


class Fairness(NamedTuple):
    """What is remembered of a fair queue."""

    moment: float
    ahead: int
    pace: float
    turn: str


class Gate:
    """The gatekeeper of one process."""

    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine = engine
        self._dialect = dialect
        self._heads = Heads(engine, dialect)
        self._rules_sql = f"{dialect.rules_sql()} ORDER BY id{dialect.skip_locked}"
        #: The ids of those that the last round let through.
        self.let_through: list[str] = []

    def admit(self, queues: Queues, free: int) -> Admission:
        """Do one round, as :meth:`Broker.admit <django_tasks.backends.base.Broker.admit>` promises."""
        found, everything = self._heads.look()
        heads = [head for head in found if queues.includes(head.queue)]
        again_in = None if everything else MORE
        if not any(head.due_in <= 0 for head in heads):
            later = [head.due_in for head in heads] + ([again_in] if again_in else [])
            return Admission(0, min(later, default=None), waiting=bool(heads))

        def work(cursor: Any) -> Admission:
            round_ = _Round(cursor, self._dialect, self._rules_sql, heads, free)
            admission = round_.run()
            self.let_through = round_.let_through
            self._heads.let_through(round_.kinds)
            return admission

        done = self._engine.transaction(work)
        if not everything and (done.again_in is None or done.again_in > MORE):
            done = done._replace(again_in=0.0 if done.admitted else MORE)
        return done


class _Round:
    """One transaction of the gatekeeper."""

    def __init__(self, cursor: Any, dialect: Dialect, rules_sql: str, heads: list[Head], free: int) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self._rules_sql = rules_sql
        self._heads = heads
        self._free = free
        self._rules = Rules()
        self._workers: list[Queues] = []
        self._now = 0.0
        #: How many more each scope lets through.
        self._room: dict[Scope, int] = {}
        self._spacings: dict[Scope, Spacing] = {}
        self._following: dict[Scope, float] = {}
        #: Seconds after which something may have changed by itself.
        self._waits: list[float] = []
        self._paced = False
        #: The ids of those that were let through, and their heads.
        self.let_through: list[str] = []
        self.kinds: list[Kind] = []

    def run(self) -> Admission:
        """Do it."""
        if not self._lock():
            return Admission(0, BUSY)
        places = self._places()
        self._measure(places)
        windows = self._windows(places)
        chosen = self._choose(self._candidates(windows), windows)
        self._let_through(chosen)
        self._remember(chosen, windows)
        self._waits += [head.due_in for head in self._heads if head.due_in > 0]
        again_in = 0.0 if len(chosen) >= MOST else min(self._waits, default=None)
        self.let_through = [dashed(one.id) for one, _ in chosen]
        self.kinds = [one.head.kind for one, _ in chosen]
        return Admission(len(chosen), again_in, paced=self._paced)

    def _lock(self) -> bool:
        """Lock the limits and read them; ``False`` if another gatekeeper has."""
        rows = self._query(self._rules_sql)
        # Those that are locked were left out.
        [(count, now)] = self._query(f"SELECT count(*), {self._dialect.epoch(self._dialect.now)} FROM {LIMIT}")
        self._now = float(now)
        self._rules = rules_of(rows)
        return len(rows) >= int(count)

    def _places(self) -> list[Places]:
        """Return what holds places, after what cannot start has lost its."""
        beat, now = self._dialect.epoch("beat_at"), self._dialect.epoch(self._dialect.now)
        workers = self._query(
            f"SELECT queues FROM {WORKER} WHERE stopped_at IS NULL AND lost_at IS NULL AND draining = %s"
            f" AND {beat} + lease >= {now}",
            [False],
        )
        self._workers = [Queues.parse(row[0]) for row in workers]
        found = []
        for queue, name, key, total, pending, unbegun in self._query(PLACES):
            back = 0
            if pending and not self._can_start(queue, name):
                back = self._execute(
                    f"UPDATE {TASK} SET state = 'LIMITED' WHERE state = 'PENDING' AND limit_key = %s AND queue = %s"
                    " AND name = %s",
                    [key, queue, name],
                )
            found.append(Places(queue, name, key, int(total) - back, int(pending) - back, int(unbegun) - back))
        return found

    def _can_start(self, queue: str, name: str) -> bool:
        paused = any(self._rules.paused(rule) is not None for rule in self._rules.of(queue, name))
        return not paused and any(worker.includes(queue) for worker in self._workers)

    def _measure(self, places: list[Places]) -> None:
        """Find out how much room each scope has."""
        totals: dict[Scope, list[int]] = defaultdict(lambda: [0, 0, 0])
        for queue, name, key, *counts in places:
            for rule in self._rules.of(queue, name):
                scope = rule.scope(key)
                totals[scope] = [one + other for one, other in zip(totals[scope], counts, strict=True)]
        scopes = {rule.scope(head.key): rule for head in self._heads for rule in self._rules.of(head.queue, head.name)}
        rated = [scope for scope, rule in scopes.items() if rule.per_second is not None]
        following = self._states(rated)
        for scope, rule in scopes.items():
            total, pending, unbegun = totals[scope]
            room = MOST
            if (left := self._rules.paused(rule)) is not None:
                room = 0
                self._waits.append(left)
            elif rule.concurrency is not None:
                room = rule.concurrency - total
            if (spacing := rule.spacing(len(self._workers))) is not None:
                self._spacings[scope] = spacing
                self._following[scope] = following.get(scope, 0.0)
                if spacing.is_watched and unbegun:
                    room = 0
                    self._waits.append(WATCH)
                else:
                    due = spacing.room(self._following[scope], self._now)
                    room = min(room, due - (0 if spacing.is_watched else pending))
            self._room[scope] = max(0, room)

    def _windows(self, places: list[Places]) -> dict[str, tuple[int, Fairness]]:
        """Return for each fair queue how many more it lets through now, and what is to be remembered of it."""
        queues = {head.queue for head in self._heads if self._is_fair(head.queue, head.name)}
        if not queues:
            return {}
        columns = "name, moment, ahead, pace, turn"
        kept = self._query(
            f"SELECT {columns} FROM {STATE} WHERE kind = 'fair' AND name IN ({_marks(queues)})", sorted(queues)
        )
        before = {row[0]: Fairness(*row[1:]) for row in kept}
        found = {}
        for queue in queues:
            ahead = sum(one.pending for one in places if one.queue == queue and self._is_fair(queue, one.name))
            last = before.get(queue, Fairness(self._now, ahead, 0.0, ""))
            passed = max(self._now - last.moment, 1e-4)
            share = 1.0 - math.exp(-passed / SMOOTH)
            pace = last.pace + share * (max(0, last.ahead - ahead) / passed - last.pace)
            wanted = max(self._free, math.floor(pace * AHEAD))
            if ahead == 0 and passed < SMOOTH:  # all were taken at once: more could have been
                wanted = max(wanted, 2 * last.ahead)
            found[queue] = (max(0, min(MOST, wanted) - ahead), Fairness(self._now, ahead, pace, last.turn))
        return found

    def _is_fair(self, queue: str, name: str) -> bool:
        return any(rule.fair for rule in self._rules.of(queue, name))

    def _candidates(self, windows: dict[str, tuple[int, Fairness]]) -> list[Candidate]:
        """Return the first tasks of every head that has room."""
        wanted: list[tuple[Head, int]] = []
        for head in self._heads:
            rules = self._rules.of(head.queue, head.name)
            room = min([MOST, *(self._room[rule.scope(head.key)] for rule in rules)])
            if any(rule.fair for rule in rules):
                room = min(room, windows[head.queue][0])
            if room > 0 and head.due_in <= 0:
                wanted.append((head, room))
        found = []
        for start in range(0, len(wanted), PART):
            part = wanted[start : start + PART]
            sql = " UNION ALL ".join(self._first(number) for number in range(len(part)))
            params = [param for head, room in part for param in (*head[:4], room)]
            for number, id_, due, expired in self._query(sql, params):
                found.append(Candidate(id_, float(due), part[number][0], bool(expired)))
        return found

    def _first(self, number: int) -> str:
        dialect = self._dialect
        return FIRST.format(
            number=number,
            due=dialect.epoch("due_at"),
            now=dialect.now,
            hint=dialect.by_limit,
            partner=dialect.partner("t.unique_key"),
        )

    def _choose(
        self, candidates: list[Candidate], windows: dict[str, tuple[int, Fairness]]
    ) -> list[tuple[Candidate, list[Rule]]]:
        """Return who goes, with the rules that count it: as many as every scope has room for."""
        ordinary, fair = [], defaultdict(list)
        for one in sorted(candidates, key=lambda one: (-one.head.priority, one.due)):
            if one.head.queue in windows and self._is_fair(one.head.queue, one.head.name):
                fair[one.head.queue].append(one)
            else:
                ordinary.append(one)
        chosen: list[tuple[Candidate, list[Rule]]] = []
        for one in ordinary:
            if len(chosen) >= MOST:
                break
            self._take(one, chosen)
        for queue, waiting in fair.items():
            window, state = windows[queue]
            for one in _in_turns(waiting, state.turn):
                if window <= 0:
                    break
                if self._take(one, chosen) and not one.expired:
                    window -= 1
                    state = state._replace(ahead=state.ahead + 1, turn=one.head.key)
            windows[queue] = (window, state)
        return chosen

    def _take(self, one: Candidate, chosen: list[tuple[Candidate, list[Rule]]]) -> bool:
        rules = [rule for rule in self._rules.of(one.head.queue, one.head.name) if rule.limits]
        scopes = [rule.scope(one.head.key) for rule in rules]
        if one.expired:
            rules = []
        elif any(self._room[scope] <= 0 for scope in scopes):
            return False
        else:
            for scope in scopes:
                self._room[scope] -= 1
        chosen.append((one, rules))
        return True

    def _let_through(self, chosen: list[tuple[Candidate, list[Rule]]]) -> None:
        by_change: dict[str, list[Any]] = defaultdict(list)
        for one, rules in chosen:
            if not rules:  # nothing counts it any more
                change = ", limit_key = NULL"
            elif any(rule.fair for rule in rules):  # whose turn is now comes behind those whose turn was before
                change = f", due_at = {self._dialect.now}"
            else:
                change = ""
            by_change[change].append(one.id)
        for change, keys in by_change.items():
            keys.sort()
            for start in range(0, len(keys), MOST // 2):
                some = keys[start : start + MOST // 2]
                marks = ", ".join([self._dialect.uuid] * len(some))
                self._execute(
                    f"UPDATE {TASK} SET state = 'PENDING'{change} WHERE id IN ({marks}) AND state = 'LIMITED'", some
                )
        if chosen and isinstance(self._dialect, PostgreSQL):
            self._cursor.execute(NOTIFY_IDLE)

    def _remember(
        self,
        chosen: list[tuple[Candidate, list[Rule]]],
        windows: dict[str, tuple[int, Fairness]],
    ) -> None:
        counts: dict[Scope, int] = defaultdict(int)
        for one, rules in chosen:
            for rule in rules:
                counts[rule.scope(one.head.key)] += 1
        rows: list[tuple[Any, ...]] = []
        for scope, spacing in self._spacings.items():
            if count := counts.get(scope):
                self._following[scope] = spacing.after(self._following[scope], self._now, count)
                rows.append((*scope, self._following[scope], 0, 0.0, ""))
            if (wait := spacing.wait(self._following[scope], self._now)) > 0:
                self._waits.append(wait)
                self._paced = True
        for queue, (_, state) in windows.items():
            rows.append(("fair", queue, "", *state))
        if rows:
            self._cursor.executemany(self._dialect.upsert(STATE, _STATE_COLUMNS, _STATE_KEY), rows)

    def _states(self, scopes: Sequence[Scope]) -> dict[Scope, float]:
        """Return when the next one of each scope may start, for those that remember it."""
        found: dict[Scope, float] = {}
        for kind, name in {scope[:2] for scope in scopes}:
            keys = sorted({key for k, n, key in scopes if (k, n) == (kind, name)})
            of_keys = f"kind = %s AND name = %s AND limit_key IN ({_marks(keys)})"
            rows = self._query(f"SELECT limit_key, moment FROM {STATE} WHERE {of_keys}", [kind, name, *keys])
            found |= {(kind, name, key): float(moment) for key, moment in rows}
        return found

    def _query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self._cursor.execute(sql, list(params))
        return list(self._cursor.fetchall())

    def _execute(self, sql: str, params: Sequence[Any]) -> int:
        self._cursor.execute(sql, list(params))
        return int(self._cursor.rowcount)


_STATE_COLUMNS = ("kind", "name", "limit_key", "moment", "ahead", "pace", "turn")
_STATE_KEY = ("kind", "name", "limit_key")


def _in_turns(waiting: Sequence[Candidate], turn: str) -> Iterator[Candidate]:
    """Yield tasks by priority; within one, their keys take turns, beginning behind the key whose turn was last."""
    for _, alike in groupby(waiting, key=lambda one: one.head.priority):
        by_key: dict[str, list[Candidate]] = defaultdict(list)
        for one in alike:
            by_key[one.head.key].append(one)
        keys = sorted(by_key)
        order = [key for key in keys if key > turn] + [key for key in keys if key <= turn]
        for each in zip_longest(*(by_key[key] for key in order)):
            yield from (one for one in each if one is not None)


def _marks(values: Iterable[Any]) -> str:
    return ", ".join("%s" for _ in values)
