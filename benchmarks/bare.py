"""The machine's limit: two processes that claim a batch, call a function for each row and store the results.

No signals, retries, leases, supervisor or error handling. The distance from here is what the real thing costs.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from benchmarks.contestant import Contestant


def _json() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    try:
        import orjson
    except ImportError:  # the same choice as the real thing has
        return json.dumps, json.loads
    return lambda value: orjson.dumps(value).decode(), orjson.loads


dumps, loads = _json()

BATCH = 100
BODY = "[[], {}]"

TABLES = """
CREATE TABLE job (id {uuid} PRIMARY KEY, name varchar(255) NOT NULL, queue varchar(64) NOT NULL,
    priority smallint NOT NULL, due_at {moment} NOT NULL, state varchar(16) NOT NULL, attempt int NOT NULL, worker int,
    body text NOT NULL);
CREATE INDEX job_claim ON job (queue, priority DESC, due_at) WHERE state = 'PENDING';
CREATE TABLE ledger (id {uuid} PRIMARY KEY, name varchar(255) NOT NULL, queue varchar(64) NOT NULL,
    priority smallint NOT NULL, due_at {moment} NOT NULL, state varchar(16) NOT NULL, attempt int NOT NULL, worker int,
    body text NOT NULL, started_at {moment}, finished_at {moment}, result text);
CREATE INDEX ledger_finished ON ledger (finished_at);
"""

#: Finish a batch and claim the next.
STEP = """
WITH done AS (SELECT * FROM json_to_recordset(%s::json) AS d(i uuid, s float8, f float8, r text)),
gone AS (DELETE FROM job USING done WHERE id = i AND worker = %s
    RETURNING id, name, queue, priority, due_at, attempt, worker, body, s, f, r),
kept AS (INSERT INTO ledger SELECT id, name, queue, priority, due_at, 'SUCCESS', attempt, worker, body,
    to_timestamp(s), to_timestamp(f), r FROM gone)
UPDATE job SET state = 'STARTED', worker = %s, attempt = attempt + 1
WHERE id = ANY(ARRAY(SELECT id FROM job WHERE queue = 'default' AND state = 'PENDING' AND due_at <= now()
    ORDER BY priority DESC, due_at LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id::text, name, body
"""

KEEP = """
INSERT INTO ledger SELECT job.id, name, queue, priority, due_at, 'SUCCESS', attempt, worker, body,
    d.value->>1, d.value->>2, d.value->>3 FROM json_each(?) d JOIN job ON job.id = d.value->>0 AND worker = ?
"""
CLAIM = """
UPDATE job SET state = 'STARTED', worker = ?, attempt = attempt + 1
WHERE rowid IN (SELECT rowid FROM job WHERE queue = 'default' AND state = 'PENDING' AND due_at <= ?
    ORDER BY priority DESC, due_at LIMIT ?)
RETURNING id, name, body
"""

#: Forget what ended, lease the next. KEYS: ids that wait, their bodies, the worker's leases. ARGV: worker, limit, ids.
TURN = """
if #ARGV > 2 then
  redis.call('HDEL', KEYS[3], unpack(ARGV, 3))
  redis.call('HDEL', KEYS[2], unpack(ARGV, 3))
end
local ids = redis.call('LPOP', KEYS[1], ARGV[2])
if not ids then return {{}, {}} end
local leases = {}
for _, id in ipairs(ids) do
  leases[#leases + 1] = id
  leases[#leases + 1] = ARGV[1]
end
redis.call('HSET', KEYS[3], unpack(leases))
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}
"""
WRITE = "INSERT INTO ledger VALUES (?, ?, 'default', 0, ?, 'SUCCESS', 1, ?, ?, ?, ?, ?)"

Done = list[tuple[str, float, float, str]]
Row = tuple[str, str, str]


class Store(Protocol):
    """The to-do list and the ledger."""

    def set_up(self) -> None:
        """Make the tables."""

    def insert(self, ids: Sequence[str]) -> None:
        """Put rows in and commit."""

    def step(self, worker: int, done: Done) -> list[Row]:
        """Finish what is done, claim up to ``BATCH`` more, commit."""

    @abstractmethod
    def fetch(self, query: str, *parameters: Any) -> Any:
        """Return the first column of the first row, or ``None``. Parameters are marked with ``?``."""


class _PostgreSQL:
    def __init__(self, url: str) -> None:
        import psycopg

        self.connection = psycopg.connect(url, autocommit=True, prepare_threshold=0)
        self.connection.execute("SET plan_cache_mode = force_generic_plan")

    def set_up(self) -> None:
        self.connection.execute(TABLES.format(uuid="uuid", moment="timestamptz"), prepare=False)

    def insert(self, ids: Sequence[str]) -> None:
        if len(ids) == 1:
            values = "(%s, 'noop', 'default', 0, now(), 'PENDING', 0, %s)"
            self._insert(values, (ids[0], BODY))
        else:
            rows = "SELECT value::uuid, 'noop', 'default', 0, now(), 'PENDING', 0, %s FROM json_array_elements_text(%s)"
            self._insert(rows, (BODY, dumps(ids)), "")

    def _insert(self, rows: Any, parameters: tuple[str, ...], kind: str = "VALUES ") -> None:
        query = f"INSERT INTO job (id, name, queue, priority, due_at, state, attempt, body) {kind}{rows}"
        self.connection.execute(query, parameters)

    def step(self, worker: int, done: Done) -> list[Row]:
        outcomes = [{"i": i, "s": s, "f": f, "r": r} for i, s, f, r in done]
        return self.connection.execute(STEP, (dumps(outcomes), worker, worker, BATCH)).fetchall()

    def fetch(self, query: str, *parameters: Any) -> Any:
        row = self.connection.execute(query.replace("?", "%s"), parameters).fetchone()
        return row and row[0]


class _SQLite:
    def __init__(self, url: str) -> None:
        self.connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
        self.connection.execute("PRAGMA journal_mode = wal")
        self.connection.execute("PRAGMA synchronous = normal")

    def set_up(self) -> None:
        self.connection.executescript(TABLES.format(uuid="char(36)", moment="real"))

    def insert(self, ids: Sequence[str]) -> None:
        query = "INSERT INTO job VALUES (?, 'noop', 'default', 0, ?, 'PENDING', 0, NULL, ?)"
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(query, [(each, time.time(), BODY) for each in ids])
        self.connection.execute("COMMIT")

    def step(self, worker: int, done: Done) -> list[Row]:
        run = self.connection.execute
        outcomes = dumps(done)
        run("BEGIN IMMEDIATE")
        if done:
            run(KEEP, (outcomes, worker))
            run("DELETE FROM job WHERE id IN (SELECT value->>0 FROM json_each(?)) AND worker = ?", (outcomes, worker))
        rows: list[Row] = run(CLAIM, (worker, time.time(), BATCH)).fetchall()
        run("COMMIT")
        return rows

    def fetch(self, query: str, *parameters: Any) -> Any:
        row = self.connection.execute(query, parameters).fetchone()
        return row and row[0]


class _Redis:
    """A list of ids, their bodies in a hash, the leases of a worker in another, and the ledger in SQLite."""

    def __init__(self, url: str) -> None:
        import redis

        self.client = redis.Redis.from_url(url)
        self.turn = self.client.register_script(TURN)
        self.ledger = _SQLite(f"sqlite:///{os.environ['BENCHMARK_DIRECTORY']}/benchmark.sqlite3")
        self.held: dict[str, tuple[str, float, str]] = {}

    def set_up(self) -> None:
        self.ledger.set_up()

    def insert(self, ids: Sequence[str]) -> None:
        pipeline = self.client.pipeline()
        pipeline.hset("bodies", mapping={each: dumps(["noop", time.time(), BODY]) for each in ids})
        pipeline.rpush("waiting", *ids)
        pipeline.execute()

    def step(self, worker: int, done: Done) -> list[Row]:
        if done:
            run = self.ledger.connection
            rows = []
            for id_, started, finished, result in done:
                name, due, body = self.held.pop(id_)
                rows.append((id_, name, due, worker, body, started, finished, result))
            run.execute("BEGIN IMMEDIATE")
            run.executemany(WRITE, rows)
            run.execute("COMMIT")
        keys = ("waiting", "bodies", f"leases:{worker}")
        ids, bodies = self.turn(keys, (worker, BATCH, *(each[0] for each in done)))
        taken = []
        for key, text in zip(ids, bodies, strict=True):
            name, due, body = loads(text)
            self.held[key.decode()] = name, due, body
            taken.append((key.decode(), name, body))
        return taken

    def fetch(self, query: str, *parameters: Any) -> Any:
        return self.ledger.fetch(query, *parameters)


def _store(url: str) -> Store:
    if url.startswith("postgresql:"):
        return _PostgreSQL(url)
    if url.startswith("sqlite:"):
        return _SQLite(url)
    if url.startswith("redis:"):
        return _Redis(url)
    raise ValueError(f"The bare loop runs on PostgreSQL, SQLite and Redis, not on {url!r}.")


class Bare(Contestant):
    """The bare loop as a contestant."""

    def prepare(self) -> None:
        self.store = _store(self.url)
        self.store.set_up()

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "benchmarks.bare", self.url, str(number)] for number in (1, 2)]

    def send(self) -> Any:
        return self.send_many(1)[0]

    def send_many(self, count: int) -> Sequence[Any]:
        first = time.time_ns() << 64  # in order of time, as version 7 is
        ids = [str(uuid.UUID(int=first + number)) for number in range(count)]
        for start in range(0, count, 1_000):
            self.store.insert(ids[start : start + 1_000])
        return ids

    def is_done(self, task: Any) -> bool:
        return self.store.fetch("SELECT 1 FROM ledger WHERE id = ?", task) is not None

    def count_done(self) -> int:
        return int(self.store.fetch("SELECT count(*) FROM ledger"))


def noop() -> None:
    """Do nothing."""


def work(url: str, worker: int) -> None:
    """Claim, call, store, until killed."""
    functions = {"noop": noop}
    store = _store(url)
    rows = store.step(worker, [])
    while True:
        done = []
        for job, name, body in rows:
            started = time.time()
            args, kwargs = loads(body)
            result = functions[name](*args, **kwargs)
            done.append((job, started, time.time(), dumps(result)))
        rows = store.step(worker, done)
        if not rows:
            time.sleep(0.01)


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
