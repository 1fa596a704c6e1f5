"""What people do to limits, and what the code says of them: pause and resume, change, declare, look.

Everything is a row of :class:`~django_tasks.models.Limit`; workers obey within about a second.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import DatabaseError, transaction
from django.db.models import Count

from . import rates, states
from .backends import get_broker
from .conf import settings
from .exceptions import OperationalError
from .models import Limit, LimitState, Task
from .replica import reads_from
from .routing import validate_queue

#: What a limit says when it says nothing.
NOTHING: Final[dict[str, Any]] = {
    "rate": "",
    "per_worker": False,
    "concurrency": None,
    "per_key": False,
    "fair": False,
}
NOT_PAUSED: Final[dict[str, Any]] = {"paused_at": None, "paused_until": None, "paused_by": "", "pause_reason": ""}
#: Waiting tasks are counted so far.
COUNT_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class LimitNumbers:
    """A limit, and what it does at the moment."""

    kind: str
    name: str
    rate: str
    per_worker: bool
    concurrency: int | None
    per_key: bool
    fair: bool
    overridden: bool
    paused: bool
    paused_at: datetime | None
    paused_until: datetime | None
    paused_by: str
    pause_reason: str
    #: Let through and not done.
    running: int
    #: Held back, counted to :data:`COUNT_LIMIT` + 1.
    waiting: int


def pause(kind: str, name: str, *, by: str = "", reason: str = "", until: datetime | timedelta | None = None) -> Limit:
    """Let nothing of a queue or a task start any more; what runs goes on.

    ``until``, a moment or a time from now, ends it by itself. Pausing again replaces what was said before. Joins the
    caller's transaction. Raises ``ValueError`` for a name that cannot be, or an end that has passed.
    """
    _check(kind, name)
    now = get_broker().now()
    end = now + until if isinstance(until, timedelta) else until
    if end is not None and end <= now:
        raise ValueError(f"A pause until {end.isoformat()} would be over already")
    values = {"paused_at": now, "paused_until": end, "paused_by": by[:255], "pause_reason": reason[:255]}
    limit, _ = Limit.objects.using(settings.DATABASE).update_or_create(kind=kind, name=name, defaults=values)
    return limit


def resume(kind: str, name: str) -> bool:
    """End a pause; False if there was none. Joins the caller's transaction."""
    _check(kind, name)
    found = Limit.objects.using(settings.DATABASE).filter(kind=kind, name=name, paused_at__isnull=False)
    resumed = bool(found.update(**NOT_PAUSED))
    if resumed:
        _forget_empty(kind, name)
        get_broker().wake()
    return resumed


def change(kind: str, name: str, **values: Any) -> Limit:
    """Set ``rate``, ``per_worker``, ``concurrency``, ``per_key`` or ``fair`` over what the code declares.

    Joins the caller's transaction. Raises ``TypeError`` or ``ValueError`` for a value that nothing could keep.
    """
    _check(kind, name)
    unknown = values.keys() - NOTHING.keys()
    if unknown:
        raise TypeError(f"A limit has no {sorted(unknown)[0]!r}; it has {', '.join(NOTHING)}")
    if "rate" in values:
        values["rate"] = rates.text(values["rate"])
    if "concurrency" in values:
        rates.validate_concurrency(values["concurrency"])
    defaults = {**values, "overridden": True}
    limit, _ = Limit.objects.using(settings.DATABASE).update_or_create(kind=kind, name=name, defaults=defaults)
    get_broker().wake()
    return limit


def reset(kind: str, name: str) -> bool:
    """Return to what the code declares; False if nobody had changed it. Joins the caller's transaction."""
    _check(kind, name)
    with transaction.atomic(using=settings.DATABASE):
        limits = Limit.objects.using(settings.DATABASE).select_for_update()
        limit = limits.filter(kind=kind, name=name, overridden=True).first()
        if limit is None:
            return False
        declared = json.loads(limit.declared) if limit.declared else {}
        Limit.objects.using(settings.DATABASE).filter(pk=limit.pk).update(**{**NOTHING, **declared}, overridden=False)
        _forget_empty(kind, name)
    get_broker().wake()
    return True


def declare(tasks: Iterable[Any]) -> None:
    """Write down what these tasks declare; what people changed stays as it is. Any number of workers may do so.

    Raises :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached.
    """
    known = {task.name: task._flow for task in tasks}
    wanted = {name: flow.declared for name, flow in known.items() if flow is not None and flow.is_limited}
    limits = Limit.objects.using(settings.DATABASE).filter(kind=Limit.TASK)
    try:
        rows = {row.name: row for row in limits}
        new = [
            Limit(kind=Limit.TASK, name=name, declared=json.dumps(values), **values)
            for name, values in wanted.items()
            if name not in rows
        ]
        Limit.objects.using(settings.DATABASE).bulk_create(new, ignore_conflicts=True)
        for name, row in rows.items():
            declared = json.dumps(wanted[name]) if name in wanted else ""
            if name in known and row.declared != declared:
                limits.filter(pk=row.pk).update(declared=declared)
                limits.filter(pk=row.pk, overridden=False).update(**wanted.get(name, NOTHING))
                _forget_empty(Limit.TASK, name)
    except DatabaseError as error:
        raise OperationalError(f"The limits in {settings.DATABASE!r} cannot be written: {error}") from error


def overview() -> list[LimitNumbers]:
    """Return all limits, with how many tasks each has let through and holds back."""
    now = get_broker().now()
    found = []
    for limit in Limit.objects.using(settings.DATABASE).all():
        counted = Task.objects.using(settings.DATABASE).filter(limit_key__isnull=False)
        mine = counted.filter(**{"queue" if limit.kind == Limit.QUEUE else "name": limit.name})
        found.append(
            LimitNumbers(
                kind=limit.kind,
                name=limit.name,
                rate=limit.rate,
                per_worker=limit.per_worker,
                concurrency=limit.concurrency,
                per_key=limit.per_key,
                fair=limit.fair,
                overridden=limit.overridden,
                paused=limit.is_paused(now),
                paused_at=limit.paused_at,
                paused_until=limit.paused_until,
                paused_by=limit.paused_by,
                pause_reason=limit.pause_reason,
                running=mine.filter(state__in=["PENDING", "STARTED"]).count(),
                waiting=mine.filter(state="LIMITED")[: COUNT_LIMIT + 1].count(),
            )
        )
    return found


class Use(NamedTuple):
    """What a limit does at the moment."""

    #: Let through and not done.
    running: int
    #: Held back.
    waiting: int


def uses() -> dict[tuple[str, str], Use]:
    """Return what the limits of queues and tasks have let through and hold back, by kind and name; one that does
    neither is left out. One query, over all that limits count."""
    counted = Task.objects.using(reads_from()).filter(limit_key__isnull=False).order_by()
    found: Counter[tuple[str, str, str]] = Counter()
    for queue, name, state, count in counted.values_list("queue", "name", "state").annotate(Count("pk")):
        found[Limit.QUEUE, queue, state] += count
        found[Limit.TASK, name, state] += count
    running = {key: found[*key, states.PENDING] + found[*key, states.STARTED] for key in {key[:2] for key in found}}
    return {key: Use(count, found[*key, states.LIMITED]) for key, count in running.items()}


def next_starts() -> dict[tuple[str, str], datetime]:
    """Return from when on the next may start of what has a rate, by kind and name; of a rate per key nothing is said,
    nor of one that nothing used for long. One query."""
    rows = LimitState.objects.using(reads_from()).filter(kind__in=(Limit.QUEUE, Limit.TASK), limit_key="")
    return {(row.kind, row.name): datetime.fromtimestamp(row.moment, UTC) for row in rows}


def _check(kind: str, name: str) -> None:
    if kind == Limit.QUEUE:
        validate_queue(name)
    elif kind != Limit.TASK:
        raise ValueError(f"A limit is that of a 'queue' or of a 'task', not of {kind!r}")
    elif not 0 < len(name) <= 255:
        raise ValueError(f"A task's name is a text of 1 to 255 characters, not {name!r}")


def _forget_empty(kind: str, name: str) -> None:
    """Delete a row that says nothing any more."""
    silent = Limit.objects.using(settings.DATABASE).filter(declared="", overridden=False, paused_at=None)
    silent.filter(kind=kind, name=name, **NOTHING).delete()
