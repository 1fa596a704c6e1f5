"""Which tasks running workers know: those of a site's other processes may not be able to import them.

A worker writes it down when it starts, as :class:`~django_tasks.models.TaskNames`; no heartbeat repeats it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

from django.db import DatabaseError
from django.db.models import ExpressionWrapper

from .conf import settings
from .exceptions import OperationalError
from .fields import UTCDateTimeField
from .models import TaskNames, Worker
from .querysets import DatabaseNow
from .registry import tasks
from .replica import reads_from

__all__ = ["Known", "close_to", "declare", "of_workers", "shown"]

#: Most workers that are told of by their names.
MOST: Final = 3


class Known(NamedTuple):
    """What running workers say that they know."""

    #: By the name of each task the node names of the workers that know it.
    workers: Mapping[str, tuple[str, ...]]
    #: Is a name that is not among these unknown to all of them? Not if none runs, nor if one does not tell: those of
    #: earlier releases do not.
    certain: bool


def declare(names: Iterable[str]) -> str:
    """Write down the names of the tasks of this process; return what a worker's row says to name them.

    Raises :class:`~django_tasks.exceptions.OperationalError` when the database cannot be reached.
    """
    text = json.dumps(sorted(names))
    key = blake2b(text.encode(), digest_size=16).hexdigest()
    rows = TaskNames.objects.using(settings.DATABASE)
    try:
        # The update first: it keeps a row from being deleted in this moment.
        if not rows.filter(pk=key).update(told_at=DatabaseNow()):
            row = TaskNames(id=key, names=text, told_at=cast(Any, DatabaseNow()))
            rows.bulk_create([row], ignore_conflicts=True)
    except DatabaseError as error:
        raise OperationalError(f"The names of tasks in {settings.DATABASE!r} cannot be written: {error}") from error
    return key


def of_workers() -> Known:
    """Return what workers know that run at this moment of the database's clock. Two queries."""
    rows = Worker.objects.using(reads_from()).filter(stopped_at=None, lost_at=None)
    at_once = rows.annotate(read_at=ExpressionWrapper(DatabaseNow(), UTCDateTimeField()))
    running = [row for row in at_once if row.status(row.read_at) != "lost"]
    keys = {row.task_names for row in running if row.task_names}
    sets = dict(TaskNames.objects.using(reads_from()).filter(pk__in=keys).values_list("pk", "names"))
    found: dict[str, tuple[str, ...]] = {}
    for key, text in sets.items():
        for name in json.loads(text):
            found[name] = (*found.get(name, ()), key)
    # Most names are in the same sets: many workers are put in order a few times, not once for each name.
    nodes = {of: tuple(sorted({row.name for row in running if row.task_names in of})) for of in {*found.values()}}
    workers = {name: nodes[of] for name, of in found.items()}
    return Known(workers, bool(running) and all(row.task_names in sets for row in running))


def close_to(name: str, known: Known) -> str | None:
    """Return the name that somebody may have meant by one that nobody knows; ``None`` if none is like it."""
    return next(iter(difflib.get_close_matches(name, {*tasks, *known.workers}, n=1)), None)


def shown(workers: Sequence[str]) -> str:
    """Return the names of workers as they are told, :data:`MOST` of them at most."""
    return ", ".join([*workers[:MOST], "…"] if len(workers) > MOST else workers)
