"""When a row runs next, and what becomes of the moments that have come: rules without a database."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from ..schedules import BaseSchedule, clocked, schedule

__all__ = ["ALL", "ALLOW", "ONCE", "QUEUE", "SKIP", "Decision", "decide", "first_run", "preview"]

#: What becomes of a run while an earlier one is not done: ``allow`` it, ``skip`` it, or ``queue`` one behind it.
ALLOW: Final = "allow"
SKIP: Final = "skip"
QUEUE: Final = "queue"
#: What becomes of runs that came while no beat ran: run ``once``, or ``all`` of the last few, or ``skip`` them.
ONCE: Final = "once"
ALL: Final = "all"

#: A run later than this counts as missed where missed runs are skipped, unless the row says otherwise.
GRACE: Final = timedelta(seconds=60)
TICK: Final = timedelta(microseconds=1)
#: Missed runs that are looked for one after the other, where each hangs on the one before it.
LONGEST_CHAIN: Final = 100_000


class Plan(Protocol):
    """What is read of a periodic task."""

    enabled: bool
    one_off: bool
    max_runs: int | None
    total_run_count: int
    missed: str
    missed_limit: int
    grace_seconds: int | None
    next_run_at: datetime | None
    last_run_at: datetime | None
    schedule_key: str

    @property
    def schedule(self) -> BaseSchedule:
        """Its schedule."""

    @property
    def starts_at(self) -> datetime | None:
        """No run comes before this moment."""

    @property
    def ends_at(self) -> datetime | None:
        """No run comes after this moment."""


class Decision(NamedTuple):
    """What becomes of a row that is due: the moments to run it for, oldest first, and its next one."""

    runs: tuple[datetime, ...]
    next_run_at: datetime | None
    #: It will never run again: it is switched off.
    over: bool


def first_run(row: Plan, now: datetime) -> datetime | None:
    """Return the next run of a row that is new, was changed, or was switched on; ``None`` if there is none.

    It lies ahead: a change, and switching on, run nothing by themselves. Only a ``clocked`` moment that passed before
    the new row was seen is still to be run.
    """
    if not row.enabled or is_exhausted(row):
        return None
    found = _first(row, now)
    return None if found is None or (row.ends_at is not None and found > row.ends_at) else found


def decide(row: Plan, now: datetime) -> Decision:
    """Return what becomes of a row that is due at ``now``."""
    assert row.next_run_at is not None  # noqa: S101 - or it would not be due
    timetable, due = row.schedule, row.next_run_at
    most = max(1, row.missed_limit) if row.missed == ALL else 1
    came, following = _occurrences(timetable, due, now, most)
    grace = GRACE if row.missed == SKIP else None
    if row.grace_seconds is not None:
        grace = timedelta(seconds=row.grace_seconds)
    runs = [run for run in came if grace is None or now - run <= grace]
    end = row.ends_at
    if end is not None:
        runs = [run for run in runs if run <= end]
    left = _left(row)
    if left is not None:
        runs = runs[-left:]
    if (left is not None and len(runs) >= left) or (end is not None and following is not None and following > end):
        following = None
    return Decision(tuple(runs), following, following is None)


def preview(row: Plan, now: datetime, count: int) -> list[datetime]:
    """Return the next runs, as many as there are up to ``count``."""
    found: list[datetime] = []
    run = row.next_run_at or first_run(row, now)
    timetable, left, end = row.schedule, _left(row), row.ends_at
    while run is not None and len(found) < count and (end is None or run <= end):
        if left is not None and len(found) >= left:
            break
        found.append(run)
        run = timetable.next_after(run)
    return found


def is_exhausted(row: Plan) -> bool:
    """Has it run as often as it may?"""
    return row.max_runs is not None and row.total_run_count >= row.max_runs


def _left(row: Plan) -> int | None:
    """Return how often it may still run; ``None``: there is no limit."""
    left = None if row.max_runs is None else max(0, row.max_runs - row.total_run_count)
    return 1 if row.one_off and (left is None or left > 1) else left


def _first(row: Plan, now: datetime) -> datetime | None:
    timetable, start = row.schedule, row.starts_at
    if isinstance(timetable, clocked):
        ahead = timetable.next_after(now)
        # A new row: its moment may have passed while nobody had seen it yet.
        return timetable.next_after(timetable.clocked_time - TICK) if ahead is None and not row.schedule_key else ahead
    if isinstance(timetable, schedule):
        if start is not None and start > now:
            return start
        anchor = row.last_run_at or start
        if anchor is None or anchor > now or timetable.relative:
            return timetable.next_after(now)
        return anchor + ((now - anchor) // timetable.run_every + 1) * timetable.run_every
    return timetable.next_after(now if start is None or start <= now else start - TICK)


def _occurrences(
    timetable: BaseSchedule, due: datetime, now: datetime, most: int
) -> tuple[list[datetime], datetime | None]:
    """Return the last ``most`` runs from ``due`` to ``now``, oldest first, and the first one after ``now``."""
    if isinstance(timetable, schedule) and not timetable.relative:
        every = timetable.run_every
        last = (now - due) // every
        runs = [due + i * every for i in range(max(0, last - most + 1), last + 1)]
        return runs, due + (last + 1) * every
    if isinstance(timetable, schedule):  # each boundary is counted from the one before
        return _chain(timetable, due, now, most)
    return _last_of_calendar(timetable, due, now, most), timetable.next_after(now)


def _chain(timetable: BaseSchedule, due: datetime, now: datetime, most: int) -> tuple[list[datetime], datetime | None]:
    runs = deque([due], maxlen=most)
    for _ in range(LONGEST_CHAIN):
        following = timetable.next_after(runs[-1])
        if following is None or following > now:
            return list(runs), following
        runs.append(following)
    return list(runs), timetable.next_after(now)


def _last_of_calendar(timetable: BaseSchedule, due: datetime, now: datetime, most: int) -> list[datetime]:
    # Backwards in ever longer strides: after a year of standstill the last few runs are found without all the others.
    stride = timedelta(minutes=1)
    while True:
        begin = max(due, now - stride) - TICK
        runs: deque[datetime] = deque(maxlen=most)
        run = timetable.next_after(begin)
        while run is not None and run <= now:
            runs.append(run)
            run = timetable.next_after(run)
        if len(runs) >= most or begin < due:
            return list(runs) or [due]
        stride *= 4
