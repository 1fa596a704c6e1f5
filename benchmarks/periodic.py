"""Schedules for the measurement of beats."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

#: The command that sends what is due.
RUNBEAT = [sys.executable, "-m", "benchmarks.project.manage", "runbeat", "--loglevel", "WARNING"]
#: Rows per INSERT.
BATCH = 500


def fill(count: int) -> None:
    """Make ``count`` rows that run once a year."""
    from django_tasks.models import CrontabSchedule, PeriodicTask

    yearly = CrontabSchedule(minute="0", hour="0", day_of_month="29", month_of_year="2")
    yearly.save()
    rows = [PeriodicTask(name=f"row {number}", task="noop", crontab=yearly) for number in range(count)]
    PeriodicTask.objects.bulk_create(rows, batch_size=BATCH)


def planned() -> bool:
    """Has a beat reckoned the next runs of all rows?"""
    from django_tasks.models import PeriodicTask

    return not PeriodicTask.objects.filter(next_run_at=None).exists()


def settle() -> None:
    """Let the database put its tables in order, which would count as the work of an idle beat."""
    from benchmarks import rows

    rows.settle()


def let_run(count: int, ahead: timedelta) -> datetime:
    """Let ``count`` rows run in the same second, so far ahead; return that second."""
    from django_tasks.dashboard import database_now
    from django_tasks.models import ClockedSchedule, PeriodicTask

    moment = (database_now() + ahead).replace(microsecond=0)
    once = ClockedSchedule(clocked_time=moment)
    once.save()
    keys = PeriodicTask.objects.order_by("pk").values_list("pk", flat=True)[:count]
    PeriodicTask.objects.filter(pk__in=list(keys)).update(crontab=None, clocked=once, one_off=True)
    return moment


def sent() -> int:
    """Return how many runs were sent."""
    from django_tasks.models import PeriodicRun

    return int(PeriodicRun.objects.exclude(task_id=None).count())


def sent_last() -> datetime:
    """Return when the last of the tasks was sent."""
    from django.db.models import Max

    from django_tasks.models import Task

    found: datetime = Task.objects.aggregate(last=Max("created_at"))["last"]
    return found
