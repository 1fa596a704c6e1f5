"""What queues hold right now, at a cost that does not grow with it: counting stops, and the rest is read at heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db import connections

from .backends import get_broker
from .backends.database.dialect import CLAIMABLE, HELD_BACK, TASK
from .dashboard import QueueNumbers, consumes
from .models import Worker
from .paging import COUNT_LIMIT
from .replica import reads_from

#: Most queues and priorities that are looked at.
MOST: Final = 200


@dataclass(frozen=True, slots=True)
class Look:
    """The to-do list at one moment of the database's clock. No number is above ``COUNT_LIMIT`` + 1 per priority."""

    now: datetime
    queues: list[QueueNumbers]

    @property
    def waiting(self) -> int:
        """Due, and not begun."""
        return sum(queue.waiting for queue in self.queues)

    @property
    def scheduled(self) -> int:
        """Due later."""
        return sum(queue.scheduled for queue in self.queues)

    @property
    def running(self) -> int:
        """Claimed by workers."""
        return sum(queue.running for queue in self.queues)

    @property
    def unroutable(self) -> int:
        """Set aside until a worker knows them."""
        return sum(queue.unroutable for queue in self.queues)


def look(workers: Iterable[Worker]) -> Look:
    """Look at every queue that holds something; two queries (on SQLite and MySQL one more for each priority)."""
    broker = get_broker(reads_from())
    dialect = broker.dialect
    bands = dialect.bands(broker.engine, None)[:MOST]
    parts = [f"SELECT 'now' AS kind, '' AS queue, {dialect.epoch(dialect.now)} AS n"]
    params: list[Any] = []
    for kind, when in (("waiting", "<="), ("scheduled", ">")):
        for band in bands:
            head = (
                f"SELECT queue FROM {TASK} WHERE queue = %s AND priority = %s AND {CLAIMABLE}"  # noqa: S608 - our own SQL
                f" AND due_at {when} {dialect.now} LIMIT {COUNT_LIMIT + 1}"
            )
            parts.append(_counted(kind, head))
            params += [band.queue, band.priority]
    for kind, where in (
        (
            "running",
            "worker_id IS NOT NULL ORDER BY worker_id",
        ),  # the order asks for the index, whatever is known of it
        ("limited", HELD_BACK),
        ("unroutable", "state = 'UNROUTABLE'"),
    ):
        parts.append(_counted(kind, f"SELECT queue FROM {TASK} WHERE {where} LIMIT {COUNT_LIMIT + 1}"))  # noqa: S608
    with connections[broker.alias].cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), params)
        rows = cursor.fetchall()
    now = next(float(row[2]) for row in rows if row[0] == "now")
    found: dict[str, dict[str, int]] = {band.queue: {} for band in bands}
    for kind, queue, count in rows:
        if kind != "now":
            counts = found.setdefault(queue, {})
            counts[kind] = counts.get(kind, 0) + int(count)
    oldest: dict[str, float] = {}
    for band in bands:
        if band.due_in <= 0:
            oldest[band.queue] = max(oldest.get(band.queue, 0.0), -band.due_in)
    moment = datetime.fromtimestamp(now, UTC)
    online = [worker for worker in workers if worker.status(moment) == "online"]
    return Look(moment, [_numbers(name, found[name], oldest.get(name), online) for name in sorted(found)])


def empty(name: str, workers: Iterable[Worker], now: datetime) -> QueueNumbers:
    """Return the numbers of a queue that holds nothing."""
    return _numbers(name, {}, None, [worker for worker in workers if worker.status(now) == "online"])


def _counted(kind: str, head: str) -> str:
    return f"SELECT '{kind}', h.queue, COUNT(*) FROM ({head}) h GROUP BY h.queue"  # noqa: S608 - our own SQL


def _numbers(name: str, counts: dict[str, int], oldest: float | None, online: Iterable[Worker]) -> QueueNumbers:
    return QueueNumbers(
        name=name,
        waiting=counts.get("waiting", 0),
        scheduled=counts.get("scheduled", 0),
        running=counts.get("running", 0),
        unroutable=counts.get("unroutable", 0),
        limited=counts.get("limited", 0),
        oldest_wait=oldest,
        workers=sum(consumes(worker, name) for worker in online),
    )
