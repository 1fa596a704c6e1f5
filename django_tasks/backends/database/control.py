"""Commands and replies as rows, on the same connections and by the same clock as everything else."""

from __future__ import annotations

import json
import select
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

from django.db import connections

from ...exceptions import WouldBlockForever
from ...ids import dashed
from ...periodic import BEAT_LOST_AFTER
from ..control import Answer, Line, Node, Order, RemoteControl, Seen
from . import wakers
from .dialect import CLAIMABLE, RESULT, TASK, WORKER, Dialect
from .engine import Engine
from .postgresql import REPLY_CHANNEL, WAKE_CHANNEL

COMMAND = "django_tasks_command"
REPLY = "django_tasks_reply"
BEAT = "django_tasks_beat"
#: Rows per DELETE.
CHUNK = 1_000

_SEEN = "id, custom_id, attempt, name, queue, priority, state, body, encoding, {due}, at_most_once, losses, options"


class DatabaseLine(Line):
    """One sender's connections: one that asks, and one that hears of replies once it waits for them."""

    def __init__(self, alias: str, dialect: Dialect) -> None:
        self._alias = alias
        self._dialect = dialect
        self._engine = Engine(alias, dialect)
        self._listener: wakers.Listener | None = None
        self._looker: wakers.LookingCaller | None = None

    def nodes(self) -> list[Node]:
        return _nodes(self._engine)

    def beats(self) -> list[Node]:
        epoch, now = self._dialect.epoch, self._dialect.now
        fresh = f"stopped_at IS NULL AND {epoch('seen_at')} + {BEAT_LOST_AFTER} >= {epoch(now)}"
        rows = self._engine.query(f"SELECT id, name FROM {BEAT} WHERE {fresh} ORDER BY id")
        return [Node(-key, name, "") for key, name in rows]

    def send(
        self,
        name: str,
        arguments: str,
        *,
        destination: Collection[str] | None = None,
        wants_replies: bool = False,
        lifetime: float,
    ) -> int:
        caller = connections[self._alias]
        shut_out = caller.vendor == "sqlite" and caller.in_atomic_block
        if wants_replies:
            if shut_out:
                raise WouldBlockForever(
                    f"Replies to {name!r} are wanted inside of a transaction on SQLite, where nobody else can write "
                    "before it ends. Ask outside of it."
                )
            self._listen()
        returns = caller.vendor == "postgresql"
        insert = (
            f"INSERT INTO {COMMAND} (name, arguments, destination, wants_replies, created_at, expires_at)"
            f" VALUES (%s, %s, %s, %s, {self._dialect.now}, {self._dialect.later})" + (" RETURNING id" * returns)
        )
        names = None if destination is None else json.dumps(sorted(destination))

        def work(cursor: Any) -> int:
            cursor.execute(insert, [name, arguments, names, wants_replies, lifetime])
            return int(cursor.fetchone()[0] if returns else cursor.lastrowid)

        if shut_out:
            with caller.cursor() as cursor:
                return work(cursor)
        command = self._engine.transaction(work)
        self._dialect.tell(self._engine, WAKE_CHANNEL, [wakers.COMMANDED])
        return command

    def replies(self, command: int, known: Collection[int] = ()) -> list[Answer]:
        rows = self._engine.query(
            f"SELECT worker_id, worker, body FROM {REPLY} WHERE command_id = %s{_but('worker_id', known)} ORDER BY id",
            [command, *known],
        )
        return [Answer(*row) for row in rows]

    def wait(self, timeout: float) -> None:
        if self._listener is not None:
            select.select([self._listener], [], [], min(timeout, 1.0))
            self._listener.woken()
        elif self._looker is not None:
            self._looker.wait(timeout)

    def close(self) -> None:
        for each in (self._listener, self._looker, self._engine):
            if each is not None:
                each.close()

    def _listen(self) -> None:
        """Begin to hear of replies, before the first one can come."""
        if self._listener is None and wakers.can_listen(self._alias):
            self._listener = wakers.Listener(Engine(self._alias, self._dialect), REPLY_CHANNEL)
        elif self._looker is None and self._listener is None:
            own = Engine(self._alias, self._dialect)
            self._looker = wakers.LookingCaller(wakers.local_waker(self._alias, own))


class DatabaseControl(RemoteControl, ABC):
    """The verbs for commands of the database broker."""

    alias: str
    dialect: Dialect
    engine: Engine

    @abstractmethod
    def _key(self, task_id: str) -> str: ...

    def line(self) -> Line:
        return DatabaseLine(self.alias, self.dialect)

    def nodes(self) -> list[Node]:
        return _nodes(self.engine)

    def commands(self, worker: int, known: Collection[int] = ()) -> list[Order]:
        epoch, now = self.dialect.epoch, self.dialect.now
        expires_in = f"{epoch('c.expires_at')} - {epoch(now)}"
        rows = self.engine.query(
            f"SELECT c.id, c.name, c.arguments, c.wants_replies, {expires_in}, c.destination, w.name FROM {WORKER} w"
            f" JOIN {COMMAND} c ON c.created_at >= w.started_at"
            f" WHERE w.id = %s AND c.expires_at > {now}{_but('c.id', known)} ORDER BY c.id",
            [worker, *known],
        )
        return [
            Order(id_, name, _object(arguments), bool(wants_replies), float(expires_in))
            for id_, name, arguments, wants_replies, expires_in, destination, mine in rows
            if destination is None or mine in json.loads(destination)
        ]

    def reply(self, command: int, worker: int, body: str) -> bool:
        answered = f"EXISTS (SELECT 1 FROM {REPLY} r WHERE r.command_id = c.id AND r.worker_id = w.id)"
        wanted = f"c.id = %s AND w.id = %s AND c.wants_replies AND c.expires_at > {self.dialect.now}"
        stored = self.engine.execute(
            f"INSERT INTO {REPLY} (command_id, worker_id, worker, body, created_at)"
            f" SELECT c.id, w.id, w.name, %s, {self.dialect.now} FROM {COMMAND} c CROSS JOIN {WORKER} w"
            f" WHERE {wanted} AND NOT {answered}",
            [body, command, worker],
        )
        if stored:
            self.dialect.tell(self.engine, REPLY_CHANNEL, [str(command)])
        return bool(stored)

    def answer_pings(self, beat: int, body: str) -> int:
        mine = "r.command_id = c.id AND r.worker_id = -b.id"
        asked = self.engine.query(
            f"SELECT c.id, c.destination, b.name FROM {COMMAND} c JOIN {BEAT} b ON c.created_at >= b.started_at"
            " WHERE b.id = %s AND c.name = 'ping' AND c.wants_replies AND c.destination IS NOT NULL"
            f" AND c.expires_at > {self.dialect.now} AND NOT EXISTS (SELECT 1 FROM {REPLY} r WHERE {mine})",
            [beat],
        )
        named = [(command, name) for command, destination, name in asked if name in json.loads(destination)]
        for command, name in named:
            self.engine.execute(
                f"INSERT INTO {REPLY} (command_id, worker_id, worker, body, created_at)"
                f" VALUES (%s, %s, %s, %s, {self.dialect.now})",
                [command, -beat, name, body],
            )
        if named:
            self.dialect.tell(self.engine, REPLY_CHANNEL, [str(command) for command, _ in named])
        return len(named)

    def prune_commands(self) -> int:
        count = 0
        while True:
            rows = self.engine.query(f"SELECT id FROM {COMMAND} WHERE expires_at <= {self.dialect.now} LIMIT {CHUNK}")
            if rows:
                keys = sorted(row[0] for row in rows)
                marks = ", ".join(["%s"] * len(keys))
                self.engine.execute(f"DELETE FROM {REPLY} WHERE command_id IN ({marks})", keys)
                count += self.engine.execute(f"DELETE FROM {COMMAND} WHERE id IN ({marks})", keys)
            if len(rows) < CHUNK:
                return count

    def peek(self, task_ids: Sequence[str]) -> list[Seen]:
        found: list[Seen] = []
        for start in range(0, len(task_ids), CHUNK):
            keys = [self._key(one) for one in task_ids[start : start + CHUNK]]
            marks = ", ".join([self.dialect.uuid] * len(keys))
            found += self._seen(f"id IN ({marks})", keys)
        return found

    def scheduled(self, queues: Collection[str], excluded: Collection[str], *, limit: int) -> list[Seen]:
        where, params = [CLAIMABLE, f"due_at > {self.dialect.now}"], [*queues, *excluded]
        if queues:
            where.append(f"queue IN ({', '.join(['%s'] * len(queues))})")
        if excluded:
            where.append(f"queue NOT IN ({', '.join(['%s'] * len(excluded))})")
        return self._seen(f"{' AND '.join(where)} ORDER BY due_at LIMIT {limit:d}", params)

    def revoked(self, *, limit: int) -> list[str]:
        asked = f"SELECT id, custom_id FROM {TASK} WHERE worker_id IS NOT NULL AND revoked_at IS NOT NULL"
        ended = f"SELECT id, custom_id FROM {RESULT} WHERE state = 'REVOKED' ORDER BY finished_at DESC"
        rows = [row for sql in (asked, ended) for row in self.engine.query(f"{sql} LIMIT {limit:d}")]
        return [custom_id or dashed(id_) for id_, custom_id in rows]

    def _seen(self, where: str, params: Sequence[Any]) -> list[Seen]:
        columns = _SEEN.format(due=self.dialect.epoch("due_at"))
        rows = self.engine.query(f"SELECT {columns} FROM {TASK} WHERE {where}", params)
        found = []
        for id_, custom_id, attempt, name, queue, priority, state, body, encoding, due, once, losses, options in rows:
            key = dashed(id_)
            call = (attempt, name, queue, priority, state, body, encoding, float(due), bool(once), losses, options)
            found.append(Seen(key, custom_id or key, *call))
        return found


def _nodes(engine: Engine) -> list[Node]:
    epoch, now = engine.dialect.epoch, engine.dialect.now
    fresh = f"stopped_at IS NULL AND lost_at IS NULL AND {epoch('beat_at')} + lease >= {epoch(now)}"
    return [Node(*row) for row in engine.query(f"SELECT id, name, queues FROM {WORKER} WHERE {fresh} ORDER BY id")]


def _but(column: str, known: Collection[int]) -> str:
    return f" AND {column} NOT IN ({', '.join(['%s'] * len(known))})" if known else ""


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
