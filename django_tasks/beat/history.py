"""What became of runs, and which beats there are: numbers for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from ..models import Beat, PeriodicRun, Task, TaskResult
from ..replica import reads_from

#: Most rows of which the latest runs are read at a time.
MOST: Final = 100
_TABLE: Final = PeriodicRun._meta.db_table


class Outcome(NamedTuple):
    """A run, and its task's state now."""

    run: PeriodicRun
    #: The task's state; ``""`` when nothing was sent, or its result is forgotten.
    state: str
    #: The model in which its row is: ``task`` or ``taskresult``; ``""`` for none.
    place: str


def latest(keys: Sequence[int], count: int) -> dict[int, list[Outcome]]:
    """Return the last ``count`` runs of up to a hundred periodic tasks, newest first, with what became of them."""
    found: dict[int, list[Outcome]] = {}
    for outcome in outcomes(last_runs(keys[:MOST], count)):
        found.setdefault(outcome.run.periodic_task_id, []).append(outcome)
    return {key: sorted(some, key=lambda one: -one.run.pk) for key, some in found.items()}


def last_runs(keys: Sequence[int], count: int, *, sent: bool = False) -> list[PeriodicRun]:
    """Return the last ``count`` runs of each of these periodic tasks; with ``sent`` only those that made a task."""
    # One short walk along the index for each; a window function would read every run there ever was.
    where = "periodic_task_id = %s" + " AND task_id IS NOT NULL" * sent
    each = f"SELECT * FROM (SELECT * FROM {_TABLE} WHERE {where} ORDER BY id DESC LIMIT {count:d}) r"  # noqa: S608
    found: list[PeriodicRun] = []
    for start in range(0, len(keys), MOST):
        some = keys[start : start + MOST]
        found += PeriodicRun.objects.raw(" UNION ALL ".join([each] * len(some)), some)
    return found


def outcomes(runs: Iterable[PeriodicRun]) -> list[Outcome]:
    """Return what became of runs, in their order."""
    runs = list(runs)
    keys = [run.task_id for run in runs if run.task_id is not None]
    places: dict[object, tuple[str, str]] = {}
    # What is done last: a task moves from the to-do list to the ledger, so none is missed.
    for model, place in ((Task, "task"), (TaskResult, "taskresult")):
        for start in range(0, len(keys), 500):
            rows = model._default_manager.using(reads_from()).filter(pk__in=keys[start : start + 500])
            places |= {key: (state, place) for key, state in rows.values_list("pk", "state")}
    return [Outcome(run, *places.get(run.task_id, ("", ""))) for run in runs]


def beats(now: datetime) -> list[tuple[Beat, str]]:
    """Return the beats that did not stop, newest first, each as it is: ``online`` or ``lost``."""
    return [(beat, beat.status(now)) for beat in Beat.objects.filter(stopped_at=None)]


def online(now: datetime) -> list[Beat]:
    """Return the beats that have told of themselves of late: one that stands still has not. Newest first."""
    return [beat for beat, status in beats(now) if status == "online"]
