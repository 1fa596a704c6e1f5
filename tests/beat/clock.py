"""A beat whose clock the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django_tasks.beat.engine import Engine
from django_tasks.models import CrontabSchedule, IntervalSchedule, PeriodicRun, PeriodicTask, Task
from django_tasks.schedules import crontab

#: A Wednesday.
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


class Clock:
    """Stands still until it is moved, either way."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **time: float) -> datetime:
        """Move it; negative times go back."""
        self.now += timedelta(**time)
        return self.now


class OneBeat:
    """A beat in the thread of the test. Each start of one is a new engine: nothing lives but the rows."""

    def __init__(self, now: datetime = NOON) -> None:
        self.clock = Clock(now)
        self.engine = Engine(self.clock)

    def restart(self) -> None:
        """End, and begin anew."""
        self.engine = Engine(self.clock)

    def turn(self) -> int:
        """Plan what changed and send what is due; return how many runs that were."""
        self.engine.plan()
        return self.engine.fire()

    def go(self, **step: float) -> int:
        """Move the clock and turn."""
        self.clock.forward(**step)
        return self.turn()

    def row(
        self, schedule: Any = 60, *, name: str = "sweep", task: str = "tests.app.tasks.noop", **columns: Any
    ) -> PeriodicTask:
        """Make a row, as if at the clock's time, and plan it."""
        row = PeriodicTask(name=name, task=task, **columns)
        row.set_schedule(schedule)
        row.save()
        # What save() planned was by the real clock.
        PeriodicTask.objects.filter(pk=row.pk).update(schedule_key="", next_run_at=None)
        self.engine.plan()
        row.refresh_from_db()
        return row


def sent_for(row: PeriodicTask) -> list[datetime]:
    """Return the moments for which tasks were sent, oldest first."""
    runs = PeriodicRun.objects.filter(periodic_task=row, task_id__isnull=False).order_by("pk")
    assert set(runs.values_list("task_id", flat=True)) <= set(Task.objects.values_list("pk", flat=True))
    return list(runs.values_list("scheduled_for", flat=True))


def interval(every: int, period: str = "seconds") -> IntervalSchedule:
    """Return a saved interval."""
    row: IntervalSchedule = IntervalSchedule.objects.get_or_create(every=every, period=period)[0]
    return row


def crontab_row(*fields: Any, **options: Any) -> CrontabSchedule:
    """Return a saved crontab."""
    row = CrontabSchedule.from_schedule(crontab(*fields, **options))
    row.save()
    return row
