"""What SQLite, MariaDB and MySQL share: rows go in one by one, and a claim walks priorities from the highest down.

PostgreSQL does both in one statement (:mod:`.postgresql`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from ..message import Delivery, Edge, Holder, Message, Outcome
from .dialect import Band, Dialect

_TOP = 32_767  # above every priority


class Walking(Dialect):
    """A dialect whose step is a short transaction of several statements."""

    #: Inserts one task; an id that is there already stays.
    insert: ClassVar[str]
    #: The best priority of a queue below another one, and in how many seconds its head is due.
    next_band: ClassVar[str]
    #: The next queue name in which something waits.
    next_queue: ClassVar[str]

    def key(self, task_id: str) -> str:
        return task_id.replace("-", "")

    def publish(self, cursor: Any, messages: Sequence[Message], notify: bool) -> None:
        rows = [
            (
                self.key(one.id),
                one.custom_id,
                one.name,
                one.queue,
                one.priority,
                one.eta and self.moment(one.eta),
                one.delay,
                one.expires_at and self.moment(one.expires_at),
                one.expires_in,
                one.body,
                one.encoding,
                one.options,
                one.at_most_once,
                one.root_id and self.key(one.root_id),
                one.parent_id and self.key(one.parent_id),
            )
            for one in messages
        ]
        insert = self.insert.replace("'PENDING'", "'WAITING'") if messages[0].waiting else self.insert
        if len(rows) == 1:
            cursor.execute(insert, rows[0])
        else:
            cursor.executemany(insert, rows)

    def publish_edges(self, cursor: Any, edges: Sequence[Edge]) -> None:
        cursor.executemany(
            "INSERT INTO django_tasks_edge (before_id, after_id, kind) VALUES (%s, %s, %s)",
            [(self.key(one.before), self.key(one.after), one.kind) for one in edges],
        )

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
        finish = self.finishing(outcomes, holder.name)

        def work(cursor: Any) -> tuple[list[Any], set[str]]:
            refused = finish(cursor) if outcomes else set()
            return self._claim(cursor, holder, plan.queues() if limit else [], limit, unknown), refused

        rows, refused = engine.transaction(work)
        return [self.delivery(row) for row in rows], refused, []

    def finish(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> tuple[set[str], list[str]]:
        return self.finishing(outcomes, worker)(cursor), []

    def bands(self, engine: Any, queues: Sequence[str] | None) -> list[Band]:
        with engine.session() as connection, connection.cursor() as cursor:
            found = []
            for queue in self._queues(cursor) if queues is None else queues:
                priority = _TOP
                while row := _one(cursor, self.next_band, (queue, priority)):
                    priority = row[0]
                    found.append(Band(queue, priority, float(row[1])))
            return found

    def tell(self, engine: Any, channel: str, payloads: Iterable[str]) -> None:
        """Nobody listens: callers that wait look for themselves."""

    @abstractmethod
    def finishing(self, outcomes: Sequence[Outcome], worker: str) -> Callable[[Any], set[str]]:
        """Return what moves these outcomes to the ledger, given a cursor, and returns the refused ids.

        What needs no transaction is done by now: others wait for each moment of it.
        """

    @abstractmethod
    def claim_band(
        self, cursor: Any, holder: Holder, queue: str, priority: int, limit: int, unknown: Sequence[str]
    ) -> list[Any]:
        """Claim up to ``limit`` due tasks of one priority of one queue; return their rows for :meth:`delivery`."""

    def claim_within(
        self, cursor: Any, *, holder: Holder, plan: Any, limit: int, unknown: Sequence[str]
    ) -> list[Any] | None:
        return self._claim(cursor, holder, plan.queues(), limit, unknown)

    def _claim(
        self, cursor: Any, holder: Holder, queues: Sequence[str], limit: int, unknown: Sequence[str]
    ) -> list[Any]:
        taken: list[Any] = []
        for queue in queues:
            priority = _TOP
            while len(taken) < limit and (row := _one(cursor, self.next_band, (queue, priority))):
                priority = row[0]
                if row[1] <= 0:
                    taken += self.claim_band(cursor, holder, queue, priority, limit - len(taken), unknown)
        return taken

    def _queues(self, cursor: Any) -> list[str]:
        names: list[str] = []
        while row := _one(cursor, self.next_queue, (names[-1] if names else "",)):
            names.append(row[0])
        return names


def _one(cursor: Any, sql: str, params: tuple[Any, ...]) -> tuple[Any, ...] | None:
    cursor.execute(sql, params)
    return cursor.fetchone()  # type: ignore[no-any-return]


def marks(values: Sequence[Any]) -> str:
    """Return the placeholders for these values."""
    return ", ".join(["%s"] * len(values))
