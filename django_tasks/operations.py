"""What people do to tasks: run them again, cancel them, empty queues, clear the ledger.

The admin and ``manage.py tasks`` call these verbs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from django.utils import timezone

from . import client, display, ids, states
from .backends import get_broker
from .backends.base import Queues
from .backends.message import Message
from .conf import settings
from .models import Task, TaskResult
from .querysets import TaskQuerySet, TaskResultQuerySet
from .registry import tasks
from .routing import validate_queue

#: In the options of a copy: the id of the task that it runs again.
RETRY_OF: Final = "retry_of"
#: Rows per transaction; their bodies are in memory at the same time.
BATCH: Final = 100
#: Later results of the same task that are looked through for copies.
LOOK_FOR_COPIES: Final = 1_000


@dataclass(slots=True)
class Retried:
    """What :func:`retry` did, by ids as they were given."""

    #: The original's id to the id of its copy.
    copies: dict[str, str] = field(default_factory=dict)
    #: Left alone: a copy of it waits or runs already.
    queued: list[str] = field(default_factory=list)
    #: Left alone: it is not done itself.
    unfinished: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Revoked:
    """What :func:`revoke` did, by ids as they were given."""

    #: Will not run any more.
    cancelled: list[str] = field(default_factory=list)
    #: Runs, and was asked to stop.
    asked: list[str] = field(default_factory=list)
    #: Was done before.
    finished: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a finished task: where it is now."""

    id: str
    state: str
    finished: bool


def retry(task_ids: Iterable[str]) -> Retried:
    """Run finished tasks again: send copies with the very same stored arguments, headers, queue and priority, due now.

    Each copy has a new id, and the original's root and parent; its options name the original (:data:`RETRY_OF`). An
    expiry is counted anew. A task of which a copy is not done yet is left alone. Copies are stored in batches of
    :data:`BATCH`, each in a transaction of its own unless the caller has one.

    Raises :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached.
    """
    done = Retried()
    queued = _originals_of_waiting_copies()
    given = iter(dict.fromkeys(task_ids))
    while batch := {ids.key_of(one): one for one in islice(given, BATCH)}:
        found = {str(row.pk): row for row in _ledger().filter(pk__in=list(batch))}
        waiting = {str(pk) for pk in _to_do().filter(pk__in=list(batch)).values_list("pk", flat=True)}
        messages = []
        for key, one in batch.items():
            if key in queued:
                done.queued.append(one)
            elif (row := found.get(key)) is not None:
                messages.append(message := _copy(row))
                done.copies[one] = message.id
            else:
                (done.unfinished if key in waiting else done.unknown).append(one)
        if messages:
            client.publish(messages)
    return done


def failed(*, name: str | None = None, since: datetime | None = None) -> list[str]:
    """Return the ids of the failures that nobody has run again yet, oldest first; of one task, since a moment if given.

    A copy that failed is itself a failure. Looks through all results of the tasks concerned since the first failure.
    """
    chosen = _ledger().failed()
    if name is not None:
        chosen = chosen.filter(name=name)
    if since is not None:
        chosen = chosen.filter(finished_at__gte=since)
    rows = list(chosen.order_by("finished_at").values_list("pk", "name", "finished_at"))
    if not rows:
        return []
    later = _ledger().filter(name__in={row[1] for row in rows}, finished_at__gte=rows[0][2])
    copies = later.filter(options__contains=f'"{RETRY_OF}"').only("options")
    again = {display.options_of(copy).get(RETRY_OF) for copy in copies.iterator()}
    return [str(pk) for pk, *_ in rows if str(pk) not in again]


def copies_of(result: TaskResult) -> Iterator[Copy]:
    """Yield the copies of a finished task: those not done yet, then those among the next results of the same task."""
    key = str(result.pk)
    later = (
        _ledger()
        .filter(name=result.name, finished_at__gte=result.finished_at)
        .order_by("finished_at")
        .only("state", "options")[:LOOK_FOR_COPIES]
    )
    waiting = _to_do().filter(options__contains=key).only("state", "options")[:LOOK_FOR_COPIES]
    rows: list[Task | TaskResult] = [*waiting, *later]
    for row in rows:
        if row.options and key in row.options and display.options_of(row).get(RETRY_OF) == key:
            yield Copy(str(row.pk), row.state, isinstance(row, TaskResult))


def revoke(task_ids: Iterable[str]) -> Revoked:
    """Cancel tasks, durably: what waits ends as REVOKED now, what runs is asked to stop.

    Raises :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached.
    """
    done = Revoked()
    given = iter(dict.fromkeys(task_ids))
    while batch := {ids.key_of(one): one for one in islice(given, BATCH)}:
        keys = list(batch)
        there = {str(pk) for pk in _to_do().filter(pk__in=keys).values_list("pk", flat=True)}
        if there:
            client.revoke(sorted(there))
        asked = {str(pk) for pk in _to_do().filter(pk__in=keys).values_list("pk", flat=True)}
        ended = {str(pk): state for pk, state in _ledger().filter(pk__in=keys).values_list("pk", "state")}
        for key, one in batch.items():
            if key in asked:
                done.asked.append(one)
            elif key in there and ended.get(key, states.REVOKED) == states.REVOKED:
                done.cancelled.append(one)
            else:
                (done.finished if key in ended else done.unknown).append(one)
    return done


def waiting_in(queues: Sequence[str]) -> int:
    """Return how many tasks :func:`purge` would delete."""
    return _to_do().claimable().filter(queue__in=_named(queues)).count()


def purge(queues: Sequence[str]) -> int:
    """Delete everything that waits in these queues, without a trace, and return how many; what runs goes on.

    Raises ``ValueError`` when no queue is named, or one that cannot exist.
    """
    return get_broker().purge(Queues(tuple(_named(queues))))


def prune(final_states: Iterable[str] = (), older_than: timedelta | None = None) -> int:
    """Delete results of these final states (none: all) that are older than ``older_than``, else than ``RESULT_EXPIRES``
    allows; return how many."""
    chosen = sorted(final_states) or sorted(states.FINISHED)
    unknown = set(chosen) - states.FINISHED
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: allowed are {', '.join(sorted(states.FINISHED))}")
    lifetimes = {state: settings.RESULT_EXPIRES[state] if older_than is None else older_than for state in chosen}
    return get_broker().prune(lifetimes)


# Inside --------------------------------------------------------------------------------------------------------------


def _to_do() -> TaskQuerySet[Task]:
    return Task.objects.using(settings.DATABASE)


def _ledger() -> TaskResultQuerySet[TaskResult]:
    return TaskResult.objects.using(settings.DATABASE)


def _named(queues: Sequence[str]) -> list[str]:
    if not queues:
        raise ValueError("Name the queue")  # an empty list means all of them to a broker
    return [validate_queue(queue) for queue in queues]


def _originals_of_waiting_copies() -> set[str]:
    marked = _to_do().filter(options__contains=f'"{RETRY_OF}"').only("options")
    return {str(display.options_of(row).get(RETRY_OF)) for row in marked.iterator()}


def _copy(row: TaskResult) -> Message:
    """Return a message with the stored texts of ``row``: they are never decoded, so nothing can change in them."""
    options = {key: value for key, value in display.options_of(row).items() if key not in ("eta", RETRY_OF)}
    lifetime = row.expires_at - row.created_at if row.expires_at is not None else None
    if lifetime is not None and "expires" in options:
        options["expires"] = (timezone.now() + lifetime).isoformat()
    return Message(
        id=ids.new_id(),
        name=row.name,
        queue=row.queue,
        body=row.body,
        encoding=row.encoding,
        priority=row.priority,
        options=json.dumps({RETRY_OF: str(row.pk), **options}),
        expires_in=lifetime.total_seconds() if lifetime is not None else None,
        # The ledger does not tell how the call was sent, so the copy follows the task's declaration.
        at_most_once=client.is_at_most_once(tasks.get(row.name)),
        root_id=str(row.root_id) if row.root_id else None,
        parent_id=str(row.parent_id) if row.parent_id else None,
    )
