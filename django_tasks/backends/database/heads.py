"""The heads of what limits hold back: the best task of each kind, found at a cost that does not grow with the backlog.

There may be thousands of heads, of which none may start: a look takes some, and the next one goes on behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from .dialect import HELD_BACK, TASK, Dialect
from .engine import Engine

#: Most heads (priorities of a task's key in a queue) that a round looks at; the next round goes on behind them. MySQL
#: allows no more than 1,000 steps of a recursion.
HEADS = 500
#: If there are more, so many of those that let something through last are looked at in every round besides: heads that
#: may not start, however many there are, cost the others none of their pace.
LIVELY = 40

#: From one head to the next: what is the same, what is beyond, and how that is ordered. Columns that are the same are
#: not among the latter, or MariaDB would sort.
_STEPS = (
    (("limit_key", "queue", "name"), "priority <", "priority DESC, due_at"),
    (("limit_key", "queue"), "name >", "name, priority DESC, due_at"),
    (("limit_key",), "queue >", "queue, name, priority DESC, due_at"),
    ((), "limit_key >", "limit_key, queue, name, priority DESC, due_at"),
)
#: Before all heads: key, queue, name and priority.
START = ("", "", "", 32_767)


def _steps(of: Callable[[str], str]) -> Iterator[str]:
    """Yield a query for the next head in each direction from what ``of`` says of its columns."""
    for same, beyond, order in _STEPS:
        behind = f"{beyond} {of(beyond.split()[0])}"
        conditions = " AND ".join([*(f"{column} = {of(column)}" for column in same), behind])
        yield f"(SELECT t.id FROM {TASK} t WHERE {HELD_BACK} AND {conditions} ORDER BY {order} LIMIT 1)"


#: A loose index scan: from one head to the next, however many tasks wait behind each.
NEXT_HEADS = f"""
WITH RECURSIVE h (id, n) AS (
    SELECT coalesce({", ".join(_steps(lambda _: "%s"))}), 1
    UNION ALL
    SELECT coalesce({", ".join(_steps("c.{}".format))}), h.n + 1
    FROM h JOIN {TASK} c ON c.id = h.id WHERE h.n < {HEADS}
)
SELECT c.limit_key, c.queue, c.name, c.priority, {{due}} - {{now}} FROM h JOIN {TASK} c ON c.id = h.id ORDER BY h.n
"""

_HEAD = f"limit_key, queue, name, priority, {{due}} - {{now}} AS due_in FROM {TASK}{{hint}} WHERE {HELD_BACK}"

#: The same in single steps, where the planner finds no way along an index by what another row says.
NEXT_HEAD = " UNION ALL ".join(
    f"(SELECT {place} AS place, {_HEAD} AND {' AND '.join([*(f'{one} = %s' for one in same), f'{beyond} %s'])}"
    f" ORDER BY {order} LIMIT 1)"
    for place, (same, beyond, order) in enumerate(_STEPS)
)

#: One head by its name.
SAME_HEAD = f"""
SELECT * FROM (SELECT {_HEAD} AND limit_key = %s AND queue = %s AND name = %s AND priority = %s
    ORDER BY due_at LIMIT 1) f{{number}}
"""

#: What names a head: key, queue, name and priority.
Kind = tuple[str, str, str, int]


class Head(NamedTuple):
    """The best of those that wait under one key, queue, name and priority; due in ``due_in`` seconds (≤ 0: now)."""

    key: str
    queue: str
    name: str
    priority: int
    due_in: float

    @classmethod
    def read(cls, row: Sequence[Any]) -> Head:
        """Return what was found."""
        key, queue, name, priority, due_in = row
        return cls(key, queue, name, priority, float(due_in))

    @property
    def kind(self) -> Kind:
        """What names it."""
        return self[:4]


class Heads:
    """Looks for one process, some heads at a time."""

    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine = engine
        self._in_steps = not dialect.searches_by_other_rows
        now, due = dialect.epoch(dialect.now), dialect.epoch("due_at")
        self._next_heads = NEXT_HEADS.format(due=dialect.epoch("c.due_at"), now=now)
        self._next_head = NEXT_HEAD.format(due=due, now=now, hint=dialect.by_limit)
        self._same_head = partial(SAME_HEAD.format, due=due, now=now, hint=dialect.by_limit)
        #: Behind which head the next look begins, when there are more than one look takes.
        self._from: Kind = START
        #: The heads that let something through last, the last ones first.
        self._lively: list[Kind] = []

    def look(self) -> tuple[list[Head], bool]:
        """Return heads, from where the last look ended, and the lively ones; and whether these are all there are."""
        start, heads = self._from, self._next()
        self._from = heads[-1].kind if len(heads) >= HEADS else START
        if start == self._from == START:
            return heads, True
        return heads + self._look_again({head.kind for head in heads}), False

    def let_through(self, kinds: Iterable[Kind]) -> None:
        """These let something through just now."""
        self._lively = list(dict.fromkeys([*kinds, *self._lively]))[:LIVELY]

    def _next(self) -> list[Head]:
        """Return the heads in order, from where the last look ended."""
        if not self._in_steps:
            return [Head.read(row) for row in self._engine.query(self._next_heads, _beyond(self._from))]
        found: list[Head] = []
        while len(found) < HEADS:
            following = self._engine.query(self._next_head, _beyond(found[-1].kind if found else self._from))
            if not following:
                break
            found.append(Head.read(min(following)[1:]))
        return found

    def _look_again(self, seen: Container[Kind]) -> list[Head]:
        """Return those of the lively heads that were not seen now, if they are there still."""
        kinds = [kind for kind in self._lively if kind not in seen]
        if not kinds:
            return []
        sql = " UNION ALL ".join(self._same_head(number=number) for number in range(len(kinds)))
        return [Head.read(row) for row in self._engine.query(sql, [value for kind in kinds for value in kind])]


def _beyond(kind: Kind) -> list[Any]:
    """Return the parameters of the steps from this head to the next one."""
    key, queue, name, priority = kind
    return [key, queue, name, priority, key, queue, name, key, queue, key]
