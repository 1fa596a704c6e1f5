"""Running tasks in the test's own process and transaction, by the steps of a worker: claim, execute, store, tell."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar
from uuid import UUID

from django.db import DatabaseError, connections
from django.db.models import F
from django.utils import timezone

from .. import client, signals, states
from ..backends.message import Delivery, Holder, Return
from ..conf import settings
from ..exceptions import NotRegistered
from ..executor import Execution, execute
from ..ids import key_of
from ..querysets import DatabaseNow
from ..registry import tasks
from ..result import AsyncResult
from ..routing import validate_queue
from .broker import CallersBroker, callers_broker
from .eager import overridden

if TYPE_CHECKING:
    from ..models import Task as TaskRow
    from ..querysets import TaskQuerySet
    from ..task import Task

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

#: Attempts after which :func:`run_tasks` without ``max_tasks`` no longer believes in an end.
ENDLESS = 10_000
#: States of what may run. Limits and pauses hold nothing back here.
FREE = states.CLAIMABLE | {states.LIMITED}
#: SQLite compares moments as texts, of which one moment has several; no two differ by as much.
TICK = timedelta(milliseconds=1)
#: Later than every due time.
END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)
#: Ends of a task by an exception that is no ``Exception`` and that a worker takes for a failure all the same.
_FAILURES = (Exception, SystemExit, asyncio.CancelledError)
#: Columns that a delivery has under the same name.
_SAME = (
    *("name", "queue", "priority", "body", "encoding", "custom_id", "options", "retries", "losses", "history"),
    "at_most_once",
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What :func:`run_tasks` did."""

    #: The handles of the tasks that ran, each once, in the order of their first attempt.
    results: list[AsyncResult[Any]] = field(default_factory=list)
    #: The state in which the last attempt of each left it, by task id: ``SUCCESS``, ``RETRY``, ``IGNORED`` …
    states: dict[str, str] = field(default_factory=dict)
    #: The exceptions of the tasks that ended as FAILURE, by task id.
    errors: dict[str, BaseException] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """How many tasks were left in which state."""
        return Counter(self.states.values())


def run_tasks(
    queue: str | Iterable[str] | None = None,
    *,
    max_tasks: int | None = None,
    until_empty: bool = True,
    with_scheduled: bool = False,
    now: datetime | timedelta | None = None,
    failures: Literal["raise", "collect"] = "raise",
) -> Summary:
    """Run what is enqueued, here: in this process, on this connection, in the transaction that is open.

    Each task goes the way it goes in a worker, from the stored row to the stored result: arguments are decoded, states,
    retries, handlers and signals are real, what it sends is stored and runs as well. Tasks come by queue in the order
    given (by name without), then higher priority, then earlier due time.

    - ``queue``: a name, or several; all by default.
    - ``max_tasks``: stop after so many attempts. Without it, ``RuntimeError`` after 10,000: a task sends itself for
      ever.
    - ``until_empty=False``: one attempt of each task that waits at the beginning, none of what they send.
    - ``with_scheduled``: run also what is due later, each at its time: retries with their delay, ``countdown``,
      ``eta``.
    - ``now``: the same until this moment, or for a ``timedelta`` from the database's now. Only the clock of the tasks
      is set forward, step by step: retries and what is sent meanwhile are due from there, and what has expired by then
      is revoked. ``timezone.now()`` in a task stays as it is; for that, travel with ``time-machine`` or ``freezegun``,
      and pass ``now=timezone.now()``.
    - ``failures``: ``"raise"`` the exception of the first task that ends as FAILURE, or ``"collect"`` them in
      :attr:`Summary.errors`.

    Functions that a task gives to ``transaction.on_commit()`` run after its body, as they would after its commit. In a
    test that is itself a transaction, a database error outside of the task's own ``atomic()`` takes back all that this
    attempt wrote; in a worker, only its statement. Time limits are not enforced, and rates, other limits and pauses
    hold nothing back. Call it from synchronous code.

    Raises ``TypeError`` or ``ValueError`` for a bad argument; :class:`~django_tasks.exceptions.NotRegistered` for a
    task that this process does not know (unless collected).
    """
    if failures not in ("raise", "collect"):
        raise ValueError(f"failures must be 'raise' or 'collect', not {failures!r}")
    if max_tasks is not None and (type(max_tasks) is not int or max_tasks < 1):
        raise ValueError(f"max_tasks must be a whole number from 1, or None, not {max_tasks!r}")
    if with_scheduled and now is not None:
        raise TypeError("Give either with_scheduled=True (all that is scheduled) or now=… (until then), not both")
    names = [queue] if isinstance(queue, str) else None if queue is None else list(queue)
    for name in names or ():
        validate_queue(name)
    with _workshop() as broker:
        plan = _Plan(broker, names, _horizon(broker, with_scheduled, now))
        only = None if until_empty else plan.waiting()
        summary = Summary()
        name = ""
        for _ in range(ENDLESS if max_tasks is None else max_tasks):
            row = plan.next(only)
            if row is None:
                return summary
            if only is not None:
                only.discard(row.pk)
            name = row.name
            error = _attempt(broker, row, summary)
            if error is not None and failures == "raise":
                raise error
        if max_tasks is None:
            raise RuntimeError(
                f"run_tasks() made {ENDLESS:,} attempts, the last of {name}: does a task send itself, or reject "
                "itself, for ever? max_tasks= stops after as many."
            )
        return summary


def perform_task(
    task: Task[P, R] | str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
) -> AsyncResult[R]:
    """Send one task and make its first attempt here, as :func:`run_tasks` does; return its result's handle.

    It runs at once, whatever ``countdown`` or ``eta`` say, and nothing else does: a retry, and what it sends, wait as
    rows for :func:`run_tasks`. ``get()`` of the handle returns its value or raises its exception. ``options`` as for
    ``apply_async()``, whose exceptions it raises.
    """
    from ..models import Task as TaskRow

    with _workshop() as broker:
        declared = tasks[task] if isinstance(task, str) else task
        result: AsyncResult[R] = declared.apply_async(args, kwargs, **options)
        row = TaskRow.objects.using(broker.alias).filter(pk=key_of(result.id), state__in=FREE).first()
        if row is not None:  # a task_id that was used before may be done already
            _attempt(broker, row, Summary())
        return result


@contextmanager
def _workshop() -> Iterator[CallersBroker]:
    """Give the broker; calls are stored even if the project's tests run eagerly otherwise."""
    with (
        overridden(TASK_ALWAYS_EAGER=False) if settings.TASK_ALWAYS_EAGER else nullcontext(),
        callers_broker() as broker,
    ):
        before = broker.clock
        try:
            yield broker
        finally:
            broker.clock = before


# Which one ----------------------------------------------------------------------------------------------------------


def _horizon(broker: CallersBroker, with_scheduled: bool, now: datetime | timedelta | None) -> datetime | None:
    """Return until when to travel; ``None``: not at all."""
    if now is None:
        return END_OF_TIME if with_scheduled else None
    present = broker.now()
    if isinstance(now, timedelta):
        now = present + now
    elif not isinstance(now, datetime):
        raise TypeError(f"now must be a datetime, or a timedelta from the database's now, not {now!r}")
    elif timezone.is_naive(now):
        now = timezone.make_aware(now)
    if now < present:
        raise ValueError(
            f"now={now} lies before the database's now, {present}: the time of tasks can only be set forward. "
            "Leave now= out to run what is due."
        )
    return now


class _Plan:
    """Chooses what runs next."""

    def __init__(self, broker: CallersBroker, names: list[str] | None, horizon: datetime | None) -> None:
        self._broker = broker
        self._names = names
        self._horizon = horizon

    def waiting(self) -> set[UUID]:
        """Return what may run by the horizon, as of now."""
        rows = self._rows()
        if self._horizon is not None:
            return set(rows.filter(due_at__lte=self._horizon + TICK).values_list("pk", flat=True))
        return set(rows.filter(due_at__lte=DatabaseNow()).values_list("pk", flat=True))

    def next(self, only: set[UUID] | None) -> TaskRow | None:
        """Return the best task that is due, after a journey to when the next one is, if need be; ``None``: none is."""
        rows = self._rows() if only is None else self._rows().filter(pk__in=only)
        if (row := self._due(rows)) is not None or self._horizon is None:
            return row
        soonest = rows.filter(due_at__lte=self._horizon + TICK).order_by("due_at").first()
        if soonest is None:
            return None
        self._broker.clock = soonest.due_at
        return self._due(rows)

    def _rows(self) -> TaskQuerySet[TaskRow]:
        from ..models import Task as TaskRow

        rows = TaskRow.objects.using(self._broker.alias).filter(state__in=FREE)
        return rows if self._names is None else rows.filter(queue__in=self._names)

    def _due(self, rows: TaskQuerySet[TaskRow]) -> TaskRow | None:
        clock = self._broker.clock
        # The database compares its clock itself: read and sent back, it could lie before what was just sent.
        due = rows.filter(due_at__lte=DatabaseNow())
        if clock is not None:
            due = due | rows.filter(due_at__lte=clock + TICK)
        queues = [due] if self._names is None else [due.filter(queue=name) for name in self._names]
        for mine in queues:
            if (row := mine.order_by("queue", "-priority", "due_at", "pk").first()) is not None:
                return row
        return None


# One attempt --------------------------------------------------------------------------------------------------------


def _attempt(broker: CallersBroker, row: TaskRow, summary: Summary) -> BaseException | None:
    """Do what a worker does with one task, and write it down; return the exception if it failed for good.

    Raises what stops the test itself: ``KeyboardInterrupt``, ``pytest.fail()``.
    """
    delivery = _claim(broker, row)
    if delivery is None:
        return None  # a worker was faster
    holder = Holder(0, 0, f"testing@{socket.gethostname()}")
    track = getattr(tasks.get(delivery.name), "track_started", None)
    if delivery.at_most_once or (settings.TASK_TRACK_STARTED if track is None else track):
        broker.mark_started({(delivery.id, delivery.attempt): 0.0})
    signals.task_received.emit(holder.name, request=delivery)
    with _as_if_committed():
        execution = execute(delivery, worker=holder.name)
    stored = execution.stored or not broker.step([execution.done], holder=holder).refused
    if stored and execution.after is not None:
        with _as_if_committed():
            execution.after()
    error = _note(delivery, execution, summary)
    if isinstance(execution.value, BaseException) and not isinstance(execution.value, _FAILURES):
        raise execution.value
    return error


def _claim(broker: CallersBroker, row: TaskRow) -> Delivery | None:
    """Take this row as a worker's claim does; ``None`` if somebody else has it by now."""
    from ..models import Task as TaskRow

    free = TaskRow.objects.using(broker.alias).filter(pk=row.pk, attempt=row.attempt, state__in=FREE)
    # No worker's id: one that is not in the list of workers would be rescued from.
    taken = free.update(
        state=states.STARTED,
        attempt=F("attempt") + 1,
        worker_id=None,
        slot=None,
        started_at=None,
        custom_state=None,
        meta=None,
    )
    if not taken:
        return None
    return Delivery(
        id=str(row.pk),
        attempt=row.attempt + 1,
        root_id=str(row.root_id) if row.root_id else None,
        parent_id=str(row.parent_id) if row.parent_id else None,
        due=row.due_at.timestamp(),
        expires_in=None if row.expires_at is None else (row.expires_at - broker.now()).total_seconds(),
        **{name: getattr(row, name) for name in _SAME},
    )


def _note(delivery: Delivery, execution: Execution, summary: Summary) -> BaseException | None:
    task_id, done = delivery.task_id, execution.done
    if task_id not in summary.states:
        result: AsyncResult[Any] = AsyncResult(task_id, task_name=delivery.name)
        result.ignored = execution.request is not None and execution.request.ignore_result
        summary.results.append(result)
    record = client.read(task_id)  # it may have ended otherwise: revoked meanwhile, or with a result no database takes
    unknown = isinstance(done, Return) and done.state == states.UNROUTABLE
    summary.states[task_id] = states.UNROUTABLE if unknown else done.state if record is None else record.state
    if unknown:
        error: BaseException = NotRegistered(delivery.name, f", so run_tasks() cannot run {task_id}")
    elif record is None or record.state != states.FAILURE:
        return None
    else:
        value = execution.value if done.state == states.FAILURE else None
        error = value if isinstance(value, BaseException) else AsyncResult[Any](task_id).result
        error.add_note(f"Raised by task {delivery.name}[{task_id}], run by django_tasks.testing")
    summary.errors[task_id] = error
    return error


@contextmanager
def _as_if_committed() -> Iterator[None]:
    """Let the block see the test's transactions as if it had none around it, as far as that goes.

    What it gives to ``on_commit()`` runs at the end. What it breaks is rolled back to the beginning of the block.
    """
    points: list[tuple[Any, Any, int]] = [
        (connection, connection.savepoint(), len(connection.run_on_commit))
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
    ]
    yield
    for connection, point, before in points:
        try:
            if not connection.needs_rollback:
                connection.savepoint_commit(point)
                continue
        except DatabaseError:
            logger.debug("A task broke the transaction on %s", connection.alias, exc_info=True)
        connection.needs_rollback = False
        connection.savepoint_rollback(point)
        del connection.run_on_commit[before:]
    for connection, _, before in points:
        while len(connection.run_on_commit) > before:
            _, function, robust = connection.run_on_commit.pop(before)
            if not robust:
                function()
                continue
            try:
                function()
            except Exception:
                logger.exception("A function that ran on commit failed")
