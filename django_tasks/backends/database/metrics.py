"""Writing rollups and samples (:mod:`django_tasks.metrics`): a few statements in a while, in the steward's thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ...metrics.rows import EVER, KEPT, MINUTE, NUMBERS, SAMPLES_KEPT, SECONDS
from .dialect import CLAIMABLE, RESULT, TASK
from .engine import Engine

ROLLUP = "django_tasks_rollup"
SAMPLE = "django_tasks_queuesample"

_KEY: Final = ("length", "moment", "queue", "name")
_COLUMNS: Final = (*_KEY, *NUMBERS)
#: Rows per statement: their parameters have to stay below every database's bound.
CHUNK: Final = 100
#: Rows per DELETE.
BATCH: Final = 1_000
#: Ids per look-up.
MANY: Final = 500


class Metrics:
    """One broker's hand for numbers. May be used from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, numbers: Mapping[tuple[str, str], Sequence[float]]) -> float:
        """Add to the present minute, hour and day, and to all time, by queue and name; all or none.

        Return by how many seconds the database's clock is ahead of this machine's. A call whose answer was lost may
        have taken effect: repeating it would count twice.
        """
        dialect = self._engine.dialect

        def work(cursor: Any) -> float:
            before = time.time()
            cursor.execute(f"SELECT {dialect.epoch(dialect.now)}", [])  # or marks of percent stay doubled
            now = float(cursor.fetchone()[0])
            skew = now - (before + time.time()) / 2
            rows = list(_rows(numbers, int(now)))
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                sql = dialect.adding(ROLLUP, _COLUMNS, _KEY, len(some))
                cursor.execute(sql, [value for row in some for value in row])
            return skew

        return self._engine.transaction(work)

    def skew(self) -> float:
        """Return by how many seconds the database's clock is ahead of this machine's."""
        before = time.time()
        [(now,)] = self._engine.query(f"SELECT {self._engine.dialect.epoch(self._engine.dialect.now)}")
        return float(now) - (before + time.time()) / 2

    def sample(self) -> bool:
        """Write down what the queues hold, if nobody has done so in this minute; return whether it was done.

        It walks over the to-do list: how often that is worth it is the caller's to know.
        """
        dialect = self._engine.dialect
        now, last = self._engine.query(
            f"SELECT {dialect.epoch(dialect.now)}, (SELECT MAX(moment) FROM {SAMPLE} WHERE queue = '')"
        )[0]
        minute = int(float(now)) // MINUTE * MINUTE
        if last is not None and last >= minute:
            return False
        due = f"{CLAIMABLE} AND due_at <= {dialect.now}"
        found = self._engine.query(
            f"SELECT queue, SUM(CASE WHEN {due} THEN 1 ELSE 0 END), SUM(CASE WHEN {CLAIMABLE} THEN 1 ELSE 0 END),"
            f" SUM(CASE WHEN state = 'STARTED' THEN 1 ELSE 0 END),"
            f" {dialect.epoch(dialect.now)} - {dialect.epoch(f'MIN(CASE WHEN {due} THEN due_at END)')}"
            f" FROM {TASK} GROUP BY queue"
        )
        rows = [
            [minute, queue, int(waiting), int(both) - int(waiting), int(running), max(0.0, float(oldest or 0.0))]
            for queue, waiting, both, running, oldest in found
        ]
        rows.append([minute, "", *(sum(row[at] for row in rows) for at in (2, 3, 4)), _most(row[5] for row in rows)])
        columns = ("moment", "queue", "waiting", "scheduled", "running", "oldest")
        rows.sort(key=lambda row: row[1], reverse=True)  # the mark that it is done comes last
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            marks = ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(some))
            end = dialect.unless_there(SAMPLE, "moment")
            sql = f"INSERT INTO {SAMPLE} ({', '.join(columns)}) VALUES {marks} {end}"
            self._engine.execute(sql, [value for row in some for value in row])
        return True

    def ended(self, ids: Sequence[str]) -> list[tuple[str, str, str]]:
        """Return the queue, the name and the state of those that are in the ledger."""
        found: list[tuple[str, str, str]] = []
        for start in range(0, len(ids), MANY):
            keys = [self._engine.dialect.key(one) for one in ids[start : start + MANY]]
            marks = ", ".join([self._engine.dialect.uuid] * len(keys))
            sql = f"SELECT queue, name, state FROM {RESULT} WHERE id IN ({marks})"
            found += [(row[0], row[1], row[2]) for row in self._engine.query(sql, keys)]
        return found

    def prune(self, *, deadline: float = float("inf")) -> int:
        """Delete what is older than is kept, until ``time.monotonic()`` passes ``deadline``; return how many rows."""
        dialect = self._engine.dialect
        now = int(float(self._engine.query(f"SELECT {dialect.epoch(dialect.now)}")[0][0]))
        old = [(ROLLUP, "length = %s AND moment < %s", [key, now - kept]) for key, kept in KEPT.items() if kept]
        count = 0
        for table, where, params in [*old, (SAMPLE, "moment < %s", [now - SAMPLES_KEPT])]:
            while time.monotonic() < deadline:
                keys = sorted(self._engine.query(f"SELECT id FROM {table} WHERE {where} LIMIT {BATCH}", params))
                if keys:
                    marks = ", ".join(["%s"] * len(keys))
                    sql = f"DELETE FROM {table} WHERE id IN ({marks})"
                    count += self._engine.execute(sql, [key for (key,) in keys])
                if len(keys) < BATCH:
                    break
        return count


def _rows(numbers: Mapping[tuple[str, str], Sequence[float]], now: int) -> Iterator[list[Any]]:
    """Yield the rows to add to, in the order of their keys: so two workers never wait for each other."""
    whole = len(NUMBERS) - len(SECONDS)
    for length in sorted(KEPT):
        moment = 0 if length == EVER else now // length * length
        for (queue, name), values in sorted(numbers.items()):
            yield [length, moment, queue, name, *map(int, values[:whole]), *values[whole:]]


def _most(values: Iterable[float]) -> float:
    return max(values, default=0.0)
