"""Sends what is due. Any number of these may run: each tick is sent by exactly one of them, and there is no leader.

To fire is one transaction: the row's next run is moved on *if it still is the one that was due*, and the task is
stored. A beat that is killed in between has done neither; of several only one finds the row as it was.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db import OperationalError as DatabaseOperationalError
from django.db.models import F, Min

from .. import client, exceptions, states, typed_json
from ..backends.message import Message
from ..conf import settings
from ..dashboard import database_now
from ..models import PeriodicRun, PeriodicTask, Task
from ..periodic import planning
from ..periodic.batches import INTEGER, MOMENT, TEXT, TOLD, BatchUpdate, line_of
from ..periodic.rows import CLOCK_WAS_AHEAD, TIMETABLES, json_of
from ..registry import tasks
from .footprints import Footprints
from .history import last_runs

logger = logging.getLogger("django_tasks.beat")

#: Rows fired in one transaction, and looked at in one round.
BATCH: Final = 250
ROUND: Final = 2_000
#: Seconds between looks for runs in the future, unless the clock is seen to go back; by how many seconds that counts.
FUTURE_EVERY, WENT_BACK = 60.0, 1.0
#: Runs of a row among which one may not be done yet.
RECENT: Final = 20
#: Moves rows on, unless another beat has, or somebody switched them off.
MOVE_ON: Final = BatchUpdate(
    "next_run_at",
    MOMENT,
    "next_run_at = m.next_at, total_run_count = total_run_count + m.runs,"
    " last_run_at = CASE WHEN m.runs > 0 THEN m.moment ELSE last_run_at END,"
    f" enabled = CASE WHEN m.is_last = 1 THEN false ELSE enabled END, {TOLD}",
    {"next_at": MOMENT, "is_last": INTEGER, "runs": INTEGER, "told": TEXT, "moment": MOMENT},
    only="enabled",
)
#: Unfinished, and begun: whether another may wait behind it.
BEGUN: Final = frozenset({states.STARTED, states.RETRY})
#: The server is away, or wants it done again: nothing that a single row could be blamed for.
UNAVAILABLE: Final = (DatabaseOperationalError, InterfaceError, exceptions.OperationalError)


@dataclass(slots=True)
class Shot:
    """What one row that is due sends."""

    row: PeriodicTask
    #: Its values in :data:`MOVE_ON`.
    move: Mapping[str, Any]
    runs: Sequence[datetime]
    skipped: Sequence[datetime]
    error: str
    messages: list[tuple[Message, Any, Any]] = field(default_factory=list)


class Engine:
    """Plans and fires the rows of ``PeriodicTask``. ``now`` is the clock: the database's unless a test gives one."""

    def __init__(self, now: Callable[[], datetime] = database_now) -> None:
        self.now = now
        #: How many runs it has sent.
        self.sent = 0
        #: Seconds by which the latest of those it sent last was late.
        self.late = 0.0
        #: What the clock said last, and ``time.monotonic()`` then.
        self._asked = (datetime.fromtimestamp(0, UTC), 0.0)
        #: Which rows may have changed.
        self.footprints = Footprints()
        #: When it was looked for runs in the future, by ``time.monotonic()``, and how far ahead of that the clock was
        #: at most since.
        self._looked = self._ahead = float("-inf")

    def plan(self) -> int:
        """Reckon the next runs of rows that changed, whoever changed them; return how many that were."""
        if self._may_have_gone_back():
            self._forget_the_future()
        with self.footprints.followed() as look:
            count = 0
            if look.rows is not None:
                count, held = look.rows.plan_changed(self.now)
                look.done = not held
            return count

    def _may_have_gone_back(self) -> bool:
        """May the clock have been set back since the last look? To find what that did takes a look at every row."""
        now, own = self._read_clock()
        ahead = now.timestamp() - own
        if own - self._looked < FUTURE_EVERY and ahead > self._ahead - WENT_BACK:
            self._ahead = max(self._ahead, ahead)
            return False
        self._looked, self._ahead = own, ahead
        return True

    def _forget_the_future(self) -> None:
        for row in PeriodicTask.objects.run_in_the_future(self.now()).select_related(*TIMETABLES):
            # Asked again after the row was read: this beat may have stood still, and what others sent meanwhile lies in
            # no future.
            now = self.now()
            if row.last_run_at is None or row.last_run_at <= now + CLOCK_WAS_AHEAD:
                continue
            # The clock was set back: an interval counts from now on, or it would wait until that moment comes again.
            rows = PeriodicTask.objects.filter(pk=row.pk, last_run_at=row.last_run_at, next_run_at=row.next_run_at)
            with suppress(TypeError, ValueError):  # its schedule makes no sense: who plans it tells so
                rows.update(last_run_at=now, next_run_at=row.schedule.next_after(now))

    def next_due(self) -> datetime | None:
        """Return when the next row is due, ``None`` if none will be."""
        found: datetime | None = PeriodicTask.objects.filter(enabled=True).aggregate(due=Min("next_run_at"))["due"]
        return found

    def seconds_until(self, moment: datetime) -> float:
        """Return how far ahead a moment is, by the clock as it was read last, and the time since."""
        now, own = self._asked
        return (moment - now).total_seconds() - (time.monotonic() - own)

    def fire(self) -> int:
        """Send what is due; return how many runs that were.

        Raises what the database raises when it is away; what was not sent then is still due.
        """
        now, count = self._read_clock()[0], 0
        rows = PeriodicTask.objects.due(now).order_by("next_run_at", "pk")
        due = sorted(rows.values_list("pk", flat=True)[:ROUND])
        batches = [due[start : start + BATCH] for start in range(0, len(due), BATCH)]
        random.shuffle(batches)  # so that several beats do not all wait for the same rows
        for batch in batches:
            count += self._fire_batch(batch, now)
        self.sent += count
        return count

    def _read_clock(self) -> tuple[datetime, float]:
        self._asked = self.now(), time.monotonic()
        return self._asked

    def _fire_batch(self, keys: Sequence[int], now: datetime) -> int:
        try:
            shots = self._fire_together(keys, now)
        except UNAVAILABLE:
            raise
        except Exception as error:
            if len(keys) == 1:
                self._blame(keys[0], now, error)
                return 0
            # One row that cannot be stored must not take its neighbours along.
            return sum(self._fire_batch([key], now) for key in keys)
        for shot in shots:
            self._tell(shot, now)
        return sum(len(shot.messages) for shot in shots)

    def _fire_together(self, keys: Sequence[int], now: datetime) -> list[Shot]:
        # Read outside the transaction: on SQLite one that begins with a read may not write after somebody else did.
        found = PeriodicTask.objects.due(now).with_key().filter(pk__in=keys)
        rows = list(found.select_related(*TIMETABLES).order_by("pk"))
        changed = [row for row in rows if row.schedule_key != row.current_key]
        if changed:  # since the last look: what was due by the old schedule is not run
            PeriodicTask.objects.filter(pk__in=[row.pk for row in changed]).plan(self.now)
        return self._fire_rows([row for row in rows if row.schedule_key == row.current_key], now)

    def _fire_rows(self, rows: Sequence[PeriodicTask], now: datetime) -> list[Shot]:
        """Send what rows say that were read as due; return the shots of those which no other beat, nor an edit, has
        moved on meanwhile."""
        unfinished = _unfinished(row for row in rows if row.overlap != PeriodicTask.ALLOW)
        aimed = [_aim(row, now, unfinished.get(row.pk, [])) for row in rows]
        if not aimed:
            return []
        with transaction.atomic(using=settings.DATABASE):
            mine = MOVE_ON.apply(settings.DATABASE, {shot.row.pk: shot.move for shot in aimed})
            shots = [shot for shot in aimed if shot.row.pk in mine]
            for shot in shots:
                _load(shot, now)
            messages = [message for shot in shots for message, _, _ in shot.messages]
            if messages:
                client.publish(messages)
            PeriodicRun.objects.bulk_create(run for shot in shots for run in _runs_of(shot, now))
        return shots

    def _blame(self, key: int, now: datetime, error: Exception) -> None:
        """A row that cannot be sent: tell so, and go on with its next run."""
        row = PeriodicTask.objects.select_related(*TIMETABLES).filter(pk=key).first()
        if row is None or row.next_run_at is None:
            return
        following = planning.decide(row, now).next_run_at
        with transaction.atomic(using=settings.DATABASE):
            if PeriodicTask.objects.filter(pk=key, next_run_at=row.next_run_at).update(next_run_at=following):
                _store_error(key, line_of(error), now)
                run = PeriodicRun(scheduled_for=row.next_run_at, created_at=now, skipped=PeriodicRun.ERROR)
                run.periodic_task = row
                run.save(using=settings.DATABASE)
        logger.error("Periodic task %s cannot be sent: %s", row.name, line_of(error))

    def _tell(self, shot: Shot, now: datetime) -> None:
        for message, args, kwargs in shot.messages:
            if not message.conflict:
                client.tell_sent(message, args, kwargs)
        if shot.error:
            logger.error("Periodic task %s cannot be sent: %s", shot.row.name, shot.error)
        elif shot.messages:
            self.late = max(0.0, (now - shot.runs[-1]).total_seconds())
            logger.info("Sending due task %s (%s)", shot.row.name, shot.row.task)
        elif shot.skipped:
            logger.info("Periodic task %s is skipped: an earlier run is not done", shot.row.name)


def _aim(row: PeriodicTask, now: datetime, unfinished: Sequence[str]) -> Shot:
    """Return what a row that is due sends, as its policies say; no message is made yet."""
    error = ""
    try:
        decision = planning.decide(row, now)
    except Exception as problem:  # its schedule makes no sense: it waits for an edit
        decision, error = planning.Decision((), None, False), line_of(problem)
    runs, skipped = _let_through(row.overlap, decision.runs, unfinished)
    move = {
        "was": row.next_run_at,
        "next_at": decision.next_run_at,
        "is_last": int(decision.over),
        "runs": len(runs),
        "told": error if error or row.last_error else None,
        "moment": now,
    }
    return Shot(row, move, runs, skipped, error)


def _load(shot: Shot, now: datetime) -> None:
    """Make the messages of a row that was moved on. One for which there can be none says why."""
    row = shot.row
    try:
        shot.messages = [message_of(row, run) for run in shot.runs]
    except Exception as problem:
        shot.messages, shot.error = [], line_of(problem)
        taken_back = {"last_run_at": row.last_run_at, "total_run_count": F("total_run_count") - len(shot.runs)}
        _store_error(row.pk, shot.error, now, **taken_back)


def message_of(row: PeriodicTask, run: datetime, *, jitter: bool = True) -> tuple[Message, list[Any], dict[str, Any]]:
    """Return the message of a run, and its arguments. Raises whatever is wrong with the row."""
    args, kwargs = (typed_json.untag(value) for value in row.arguments())
    headers = typed_json.untag(json_of("headers", row.headers, dict))
    task = tasks.get(row.task)
    if task is not None:
        args, kwargs = task._checked(args, kwargs)
    options: dict[str, Any] = {
        "headers": {**headers, "periodic_task_name": row.name, "scheduled_for": run.isoformat()},
        "countdown": random.uniform(0, row.jitter) if jitter and row.jitter else None,
        "expires": row.expires_,
        **{name: getattr(row, name) for name in ("queue", "exchange", "routing_key", "priority")},
        **{name: getattr(row, name) for name in ("time_limit", "soft_time_limit")},
        "durable": True,  # or a beat that dies right after its commit would take the run along
    }
    given = {name: value for name, value in options.items() if value is not None}
    return client.prepare(row.task, args, kwargs, given, task), args, kwargs


def run_now(row: PeriodicTask) -> str:
    """Send a row's task at once; return its id. Its schedule goes on as if nothing had been.

    Raises ``ValueError``, ``TypeError`` or another error that says why it cannot be sent.
    """
    now = database_now()
    message, args, kwargs = message_of(row, now, jitter=False)
    with transaction.atomic(using=settings.DATABASE):
        client.publish([message])
        PeriodicRun.objects.create(
            periodic_task=row, scheduled_for=now, created_at=now, task_id=UUID(message.id), by_hand=True
        )
    if not message.conflict:
        client.tell_sent(message, args, kwargs)
    return message.custom_id or message.id


def _unfinished(rows: Iterable[PeriodicTask]) -> dict[int, list[str]]:
    """Return the states of the runs of each row that are not done, read from the to-do list itself."""
    sent = {run.task_id: run.periodic_task_id for run in last_runs([row.pk for row in rows], RECENT, sent=True)}
    found: dict[int, list[str]] = {}
    if sent:
        left = Task.objects.using(settings.DATABASE).filter(pk__in=list(sent))
        for key, state in left.values_list("pk", "state"):
            found.setdefault(sent[key], []).append(state)
    return found


def _let_through(
    overlap: str, runs: Sequence[datetime], unfinished: Sequence[str]
) -> tuple[Sequence[datetime], Sequence[datetime]]:
    """Return which runs start, and which give way to earlier ones."""
    if overlap == PeriodicTask.SKIP:
        room = 0 if unfinished else 1
    elif overlap == PeriodicTask.QUEUE:
        waiting = sum(state not in BEGUN for state in unfinished)
        room = max(0, (1 if unfinished else 2) - waiting)
    else:
        return runs, ()
    return runs[:room], runs[room:]


def _runs_of(shot: Shot, now: datetime) -> Iterable[PeriodicRun]:
    def run(moment: datetime, **fields: Any) -> PeriodicRun:
        return PeriodicRun(periodic_task_id=shot.row.pk, scheduled_for=moment, created_at=now, **fields)

    if shot.error:
        moments = shot.runs or [shot.row.next_run_at or now]
        yield from (run(moment, skipped=PeriodicRun.ERROR) for moment in moments)
    else:
        sent = zip(shot.runs, shot.messages, strict=True)
        yield from (run(moment, task_id=UUID(message.id)) for moment, (message, _, _) in sent)
        yield from (run(moment, skipped=PeriodicRun.OVERLAP) for moment in shot.skipped)


def _store_error(key: int, error: str, now: datetime, **changes: Any) -> None:
    PeriodicTask.objects.filter(pk=key).update(last_error=error, failed_at=now, **changes)


def close_connection() -> None:
    """Give up this thread's connection after an error: the next statement opens a new one."""
    try:
        connections[settings.DATABASE].close()
    except DatabaseError:
        connections[settings.DATABASE].connection = None
