"""Numbers about tasks and workers, for people and their programs; nothing is changed here.

The to-do list is small and may be grouped; the ledger is only ever counted along an index, and not far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import connections
from django.db.models import Count, Min, Q, QuerySet

from . import distinct, paging, states
from .backends import get_broker
from .conf import settings
from .models import Task, TaskResult, TaskTag, Worker
from .registry import tasks
from .replica import reads_from

#: Most names or rows of anything that is listed whole.
MOST: Final = 1_000
#: How far back finished tasks are counted.
RECENTLY: Final = timedelta(hours=1)

#: Where the claim index has the queues, its condition word for word.
_QUEUES: Final[Any] = {
    "table": Task._meta.db_table,
    "column": "queue",
    "where": "state IN ('PENDING', 'RETRY')",
    "most": MOST,
}
#: What else is chosen from, each a walk along an index, or over a small table.
_CHOICES: Final = {
    "workers": f"SELECT name FROM {Worker._meta.db_table} WHERE stopped_at IS NULL AND lost_at IS NULL",  # noqa: S608
    "tags": f"SELECT tag AS name FROM {TaskTag._meta.db_table} ORDER BY id DESC",  # noqa: S608
    "exceptions": f"SELECT exception AS name FROM {TaskResult._meta.db_table}"  # noqa: S608
    " WHERE state = 'FAILURE' ORDER BY finished_at DESC",
}
#: How many of the newest of these are looked at.
NEWEST: Final = 300


@dataclass(frozen=True, slots=True)
class QueueNumbers:
    """What one queue holds."""

    name: str
    #: Due now.
    waiting: int
    #: Due later: an ETA, or the next attempt.
    scheduled: int
    running: int
    #: Set aside, because no running worker knows the name.
    unroutable: int
    #: Held back by a limit or a pause of the task.
    limited: int
    #: Seconds since the first of those waiting became due.
    oldest_wait: float | None
    #: Online workers that consume it.
    workers: int


@dataclass(frozen=True, slots=True)
class WorkerNumbers:
    """One worker process."""

    id: int
    name: str
    status: str
    queues: str
    pool: str
    concurrency: int
    processed: int
    #: Seconds since it last renewed its lease.
    silent_for: float


@dataclass(frozen=True, slots=True)
class Stats:
    """The state of everything at one moment of the database's clock."""

    at: datetime
    queues: list[QueueNumbers]
    workers: list[WorkerNumbers]
    #: Final state to how many ended in it within :data:`RECENTLY`, at most :data:`paging.COUNT_LIMIT` + 1.
    finished: dict[str, int]


def stats() -> Stats:
    """Return the numbers of every queue and worker, and what finished recently."""
    now = database_now()
    workers = current_workers()
    numbers = [_numbers(worker, now) for worker in workers]
    return Stats(now, queue_numbers(now, workers), numbers, finished_since(now - RECENTLY))


def database_now() -> datetime:
    """Return the clock by which everything here is judged."""
    dialect = get_broker().dialect
    with connections[reads_from()].cursor() as cursor:
        cursor.execute(f"SELECT {dialect.epoch(dialect.now)}", [])
        return datetime.fromtimestamp(float(cursor.fetchone()[0]), UTC)


def queue_numbers(now: datetime, workers: Iterable[Worker]) -> list[QueueNumbers]:
    """Return the numbers of every queue that has something in it."""
    online = [worker for worker in workers if worker.status(now) == "online"]
    # By state, too: what is asked then stands in one index of MariaDB and MySQL.
    rows = _to_do().order_by().values("queue", "state")
    counted = rows.annotate(number=Count("pk"), due=Count("pk", filter=Q(due_at__lte=now)), first=Min("due_at"))
    found: dict[str, Counter[str]] = {}
    oldest: dict[str, datetime] = {}
    for row in counted:
        queue, state, number, due = row["queue"], row["state"], row["number"], row["due"]
        counts = found.setdefault(queue, Counter())
        if state not in states.CLAIMABLE:
            counts[state] += number
            continue
        counts["waiting"] += due
        counts["scheduled"] += number - due
        if due:
            oldest[queue] = min(oldest.get(queue, now), row["first"])
    return [
        QueueNumbers(
            name=queue,
            waiting=counts["waiting"],
            scheduled=counts["scheduled"],
            running=counts[states.STARTED],
            unroutable=counts[states.UNROUTABLE],
            limited=counts[states.LIMITED],
            oldest_wait=(now - oldest[queue]).total_seconds() if queue in oldest else None,
            workers=sum(consumes(worker, queue) for worker in online),
        )
        for queue, counts in sorted(found.items())
    ]


def finished_since(moment: datetime) -> dict[str, int]:
    """Return how many tasks ended in each final state since a moment."""
    recent = _ledger().filter(finished_at__gte=moment)
    return {state: paging.count([recent.filter(state=state)], "finished_at") for state in sorted(states.FINISHED)}


def current_workers() -> list[Worker]:
    """Return the workers that did not stop, newest first: online, draining, or lost."""
    return list(Worker.objects.using(reads_from()).filter(stopped_at=None).order_by("-pk")[:MOST])


class Taken(NamedTuple):
    """How many tasks a worker runs, never more than it has places, and how many it has claimed behind them."""

    running: int
    claimed: int


def taken(worker: Worker, by_process: Iterable[int]) -> Taken:
    """Return what a worker does with the tasks that it has taken, so many in each of its processes."""
    counts = list(by_process)
    at_once = 1 if worker.pool in ("prefork", "solo") else worker.concurrency
    running = min(sum(min(count, at_once) for count in counts), worker.concurrency)
    return Taken(running, sum(counts) - running)


def worker_names(pks: Iterable[int]) -> dict[int, str]:
    """Return the names of workers by their ids."""
    return dict(Worker.objects.using(reads_from()).filter(pk__in=pks).values_list("pk", "name"))


def consumes(worker: Worker, queue: str) -> bool:
    """Does this worker take tasks from ``queue``?"""
    names, *excluded = worker.queues.split(" -")
    return queue not in excluded and (names == "*" or queue in names.split(","))


def waiting_queues() -> list[str]:
    """Return the names of the queues in which something waits; on MariaDB and MySQL, in which there is anything."""
    return distinct.values_of(reads_from(), **_QUEUES)


def finished_names() -> list[str]:
    """Return the names of all tasks in the ledger."""
    return distinct.values_of(reads_from(), TaskResult._meta.db_table, "name", most=MOST)


def known_queues() -> list[str]:
    """Return the queues that people may want to choose from: declared ones, and those in which something waits."""
    return _with_declared(waiting_queues())


def known(kinds: Iterable[str]) -> dict[str, list[str]]:
    """Return what people may want to choose from: ``queues`` as :func:`known_queues` has them, and of these ``kinds``
    the names of running ``workers``, and the ``tags`` and the classes of ``exceptions`` of late.

    One query; on MariaDB and MySQL more if there are many queues (see :mod:`.distinct`).
    """
    alias = reads_from()
    connection = connections[alias]
    text = connection.ops.cast_char_field_without_max_length  # columns have collations of their own
    heads = {kind: f"{_CHOICES[kind]} LIMIT {NEWEST}" for kind in kinds}
    found: dict[str, set[str]] = {kind: set() for kind in ("queues", *heads)}
    queues = distinct.sql_of(alias, **_QUEUES)
    heads["queues"] = f"SELECT value AS name FROM ({queues}) AS q WHERE value IS NOT NULL"  # noqa: S608
    parts = [
        f"SELECT DISTINCT '{kind}', CAST(name AS {text}) FROM ({head}) AS {kind}"  # noqa: S608
        for kind, head in heads.items()
    ]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts))
        for kind, name in cursor.fetchall():
            found[kind].add(name.partition(":")[0] if kind == "exceptions" else name)
    if connection.vendor == "mysql" and len(found["queues"]) == distinct.STEPS:
        found["queues"].update(distinct.values_of(alias, **_QUEUES, behind=max(found["queues"])))
    return {**{kind: sorted(names) for kind, names in found.items()}, "queues": _with_declared(found["queues"])}


def _with_declared(queues: Iterable[str]) -> list[str]:
    declared = {task.queue for task in tasks.values() if isinstance(task.queue, str)}
    return sorted({settings.TASK_DEFAULT_QUEUE, *declared, *queues})


def _numbers(worker: Worker, now: datetime) -> WorkerNumbers:
    return WorkerNumbers(
        id=worker.pk,
        name=worker.name,
        status=worker.status(now),
        queues=worker.queues,
        pool=worker.pool,
        concurrency=worker.concurrency,
        processed=worker.processed,
        silent_for=max(0.0, (now - worker.beat_at).total_seconds()),
    )


def _to_do() -> QuerySet[Task]:
    return Task.objects.using(reads_from())


def _ledger() -> QuerySet[TaskResult]:
    return TaskResult.objects.using(reads_from())
