"""Is it enqueued? Questions to the to-do list, in the test's own transaction, with answers that help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connections

from .. import states
from ..conf import settings
from ..querysets import DatabaseNow
from ..routing import validate_queue
from .sent import SentTask, waiting_as

#: How many near misses a failed assertion shows.
MISSES_SHOWN = 5


@dataclass(frozen=True)
class _Wanted:
    """What a test asks for; ``None`` asks for nothing."""

    name: str | None
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    queue: str | None
    within: timedelta | None

    def lacks(self, sent: SentTask, soon: bool) -> list[str]:
        """Return what is different with this one, in words."""
        found: list[str] = []
        if self.name not in (None, sent.name):
            found.append("it is another task")
        # What is wanted stands on the left: unittest.mock.ANY is asked before the value is.
        if self.args is not None and not _plain(self.args) == _plain(sent.args):  # noqa: SIM201
            found.append(f"args are {sent.args!r}")
        if self.kwargs is not None and not _plain(self.kwargs) == _plain(sent.kwargs):  # noqa: SIM201
            found.append(f"kwargs are {sent.kwargs!r}")
        if self.queue not in (None, sent.queue):
            found.append(f"queue is {sent.queue!r}")
        if not soon:
            found.append(f"it is due at {sent.eta:%Y-%m-%d %H:%M:%S %Z}" if sent.eta else "it is due later")
        return found

    def __str__(self) -> str:
        said = [
            f"{key}={value!r}" for key, value in (("args", self.args), ("kwargs", self.kwargs)) if value is not None
        ]
        if self.queue is not None:
            said.append(f"queue={self.queue!r}")
        if self.within is not None:
            said.append(f"within={self.within}")
        return f"{self.name or 'any task'}{' with ' + ', '.join(said) if said else ''}"


def enqueued(
    task: Any = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    within: float | timedelta | None = None,
) -> list[SentTask]:
    """Return what is enqueued and matches, in the order in which it is due.

    Enqueued is what waits to run, now or later, for the first time or again; not what runs, and not what is done.
    ``task`` is a task or its name. ``args`` and ``kwargs`` must be equal to those of the call, as far as given; a value
    of ``unittest.mock.ANY`` is equal to everything, and tuples are equal to lists, as which they arrive. ``within``:
    due in so many seconds (or a ``timedelta``) at the latest, by the database's clock.

    Raises ``TypeError`` or ``ValueError`` for a condition that nothing can meet.
    """
    wanted = _wanted(task, args, kwargs, queue, within)
    return [sent for sent, soon in _waiting(wanted.within) if not wanted.lacks(sent, soon)]


def assert_enqueued(
    task: Any,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    count: int | None = None,
    within: float | timedelta | None = None,
) -> list[SentTask]:
    """Assert that such a task is enqueued, as :func:`enqueued` means it; return those that are.

    ``count``: exactly so many; else at least one. The ``AssertionError`` shows what comes nearest.
    """
    __tracebackhide__ = True
    if count is not None and (type(count) is not int or count < 1):
        raise ValueError(f"count must be a whole number from 1, not {count!r}; assert_not_enqueued() asks for none")
    wanted = _wanted(task, args, kwargs, queue, within)
    waiting = _waiting(wanted.within)
    found = [sent for sent, soon in waiting if not wanted.lacks(sent, soon)]
    if len(found) == count if count is not None else found:
        return found
    number = "None" if not found else f"{len(found)}"
    asked = "" if count is None else f", {count} wanted"
    raise AssertionError(
        "\n".join([f"Enqueued: {number} of {wanted}{asked}.", *_list("So are", found), *_near(wanted, waiting)])
    )


def assert_not_enqueued(
    task: Any = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    within: float | timedelta | None = None,
) -> None:
    """Assert that no such task is enqueued, as :func:`enqueued` means it; without conditions: none at all."""
    __tracebackhide__ = True
    found = enqueued(task, args=args, kwargs=kwargs, queue=queue, within=within)
    if found:
        wanted = _wanted(task, args, kwargs, queue, within)
        raise AssertionError("\n".join([f"Enqueued, against expectation: {wanted}.", *_list("There are", found)]))


def _wanted(
    task: Any,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    queue: str | None,
    within: float | timedelta | None,
) -> _Wanted:
    if args is not None and not isinstance(args, list | tuple):
        raise TypeError(f"args must be a list or a tuple, not {args!r}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a dict, not {kwargs!r}")
    if queue is not None:
        validate_queue(queue)
    if within is not None and not isinstance(within, timedelta):
        if isinstance(within, bool) or not isinstance(within, int | float):
            raise TypeError(f"within must be seconds as a number, or a timedelta, not {within!r}")
        within = timedelta(seconds=within)
    return _Wanted(None if task is None else name_of(task), args, kwargs, queue, within)


def name_of(task: Any) -> str:
    """Return the name of a task that is given itself or by its name. Raises ``TypeError`` for anything else."""
    name = getattr(task, "name", task)
    if not isinstance(name, str) or not name:
        raise TypeError(f"task must be a task or its name, not {task!r}")
    return name


def _waiting(within: timedelta | None) -> list[tuple[SentTask, bool]]:
    """Return all that is enqueued; with each, whether it is due within that time."""
    from ..models import Task as TaskRow

    rows = TaskRow.objects.using(settings.DATABASE).exclude(state=states.STARTED).order_by("due_at", "pk")
    soon = None if within is None else set(rows.filter(due_at__lte=DatabaseNow() + within).values_list("pk", flat=True))
    return [(waiting_as(row), soon is None or row.pk in soon) for row in rows]


def _near(wanted: _Wanted, waiting: Sequence[tuple[SentTask, bool]]) -> list[str]:
    """Return lines about what comes nearest, and about why nothing may have been found."""
    misses = [(sent, lacks) for sent, soon in waiting if (lacks := wanted.lacks(sent, soon))]
    misses.sort(key=lambda miss: (wanted.name not in (None, miss[0].name), len(miss[1])))
    lines = ["Nearest to it:"] if misses else []
    lines += [f"  {sent}: {' and '.join(lacks)}" for sent, lacks in misses[:MISSES_SHOWN]]
    if len(misses) > MISSES_SHOWN:
        lines.append(f"  … and {len(misses) - MISSES_SHOWN} more")
    if not waiting:
        lines.append("Nothing is enqueued.")
    return lines + _hints(wanted)


def _hints(wanted: _Wanted) -> list[str]:
    from ..models import TaskResult

    hints = []
    if settings.TASK_ALWAYS_EAGER:
        hints.append("TASK_ALWAYS_EAGER is on here: calls run at once, and none is enqueued.")
    done = TaskResult.objects.using(settings.DATABASE).all()
    if wanted.name is not None and (count := done.filter(name=wanted.name).count()):
        hints.append(f"Done already: {count} of {wanted.name}.")
    later = [one for one in connections[settings.DATABASE].run_on_commit if not _is_ours(one[1])]
    if later:
        hints.append(
            f"Functions that wait for the commit: {len(later)}. In a TestCase they run within "
            "captureOnCommitCallbacks(execute=True)."
        )
    return hints


def _is_ours(function: Any) -> bool:
    """Does it only tell of what is stored already?"""
    function = getattr(function, "func", function)
    return str(getattr(function, "__module__", "")).startswith(("django_tasks.backends.", "django_tasks.client"))


def _list(title: str, sent: Sequence[SentTask]) -> list[str]:
    return [f"{title}:", *[f"  {one}" for one in sent]] if sent else []


def _plain(value: Any) -> Any:
    """Return a value with lists for tuples, as they arrive."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value
