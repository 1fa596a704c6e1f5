"""Real ``runbeat`` processes on a fresh database, and the accounting of what they sent."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django_tasks.beat import DatabaseScheduler, Scheduler
from django_tasks.models import IntervalSchedule, PeriodicRun, PeriodicTask, Task
from django_tasks.schedules import BaseSchedule
from tests.integration.jobs import JOURNAL
from tests.integration.site import Site, Worker

#: Beats look for changes more often than they need to, so that tests need not wait.
BUSY = ("--max-interval", "0.5")


def start_beat(site: Site, *options: str, wait: bool = True, **tasks_settings: Any) -> Worker:
    """Start a beat; it ends with the site."""
    beat = Worker(
        [sys.executable, "-m", "tests.manage", "runbeat", "-l", "DEBUG", *options],
        site.environ(**tasks_settings),
        site.directory / f"beat-{len(site.workers) + 1}.log",
    )
    site.workers.append(beat)
    if wait:
        beat.wait_until_it_says("beat: Starting...")
    return beat


def every(seconds: int, *, name: str = "sweep", task: str = "tests.app.tasks.noop", **columns: Any) -> PeriodicTask:
    """Return a new row that runs every so many seconds."""
    schedule, _ = IntervalSchedule.objects.get_or_create(every=seconds, period="seconds")
    row = PeriodicTask(name=name, task=task, interval=schedule, **columns)
    row.save()
    return row


class Often(BaseSchedule):
    """A schedule that no row can hold."""

    def next_after(self, moment: datetime) -> datetime:
        """Return what comes a tenth of a second later."""
        return moment + timedelta(seconds=0.1)


class OwnScheduler(Scheduler):
    """What a site may write: its entries live in memory."""

    def setup_schedule(self) -> None:
        """Add the only entry."""
        self.add(name="often", task="tests.app.tasks.noop", schedule=Often())


class Hanging(DatabaseScheduler):
    """Stands still as long as there is :func:`hang_file`, as what waits for an answer that never comes."""

    def tick(self) -> float:
        """Tick, sooner or later."""
        while Path(os.environ[JOURNAL]).with_name("hang").exists():
            time.sleep(0.01)
        return super().tick()


def hang_file(site: Site) -> Path:
    """Return the file that makes :class:`Hanging` stand still."""
    return site.journal_path.with_name("hang")


def moments(row: PeriodicTask) -> list[datetime]:
    """Return the moments for which a row was sent, in order."""
    runs = PeriodicRun.objects.filter(periodic_task=row, task_id__isnull=False)
    return sorted(runs.values_list("scheduled_for", flat=True))


def assert_each_tick_once(rows: Iterable[PeriodicTask], seconds: float) -> int:
    """Assert that no tick of these rows is missing or doubled, and that each has its one task; return how many."""
    sent = 0
    for row in rows:
        found = moments(row)
        assert found, f"{row.name} never ran"
        steps = {late - early for early, late in itertools.pairwise(found)}
        assert steps <= {timedelta(seconds=seconds)}, f"{row.name}: {steps}"
        sent += len(found)
    assert Task.objects.count() == PeriodicRun.objects.filter(task_id__isnull=False).count() == sent
    assert PeriodicRun.objects.values("task_id").distinct().count() == sent
    return sent


FREEZE, THAW, KILL = signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL
