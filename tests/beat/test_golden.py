"""Every change of clocks of 32 zones from 2020 to 2030, through the rows: planned, fired, and the beat restarted in the
middle of it, with ``USE_TZ`` and without.

When a crontab runs is tested against clocks watched minute by minute beside the schedules; here nothing but its row is
carried from one look of a beat to the next.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from django.test import override_settings

from django_tasks.models import CrontabSchedule, PeriodicTask
from django_tasks.periodic import planning
from tests.unit.schedules.specs import ZONES
from tests.unit.schedules.test_clock_changes import AROUND, MINUTE, Watched, changes, watch

#: How often a beat looks.
LOOK = 20 * MINUTE


@cache
def watched_once(name: str, change: datetime) -> Watched:
    return watch(change, ZoneInfo(name))


def restarted(row: PeriodicTask) -> PeriodicTask:
    """Return the row as another process reads it: columns, and nothing that was reckoned from them."""
    assert row.crontab is not None
    fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week", "timezone")
    timetable = CrontabSchedule(**{name: str(getattr(row.crontab, name)) for name in fields})
    names = ("next_run_at", "last_run_at", "schedule_key", "missed", "missed_limit")
    return PeriodicTask(crontab=timetable, **{name: getattr(row, name) for name in names})


def sent(row: PeriodicTask, start: datetime, end: datetime) -> list[datetime]:
    """Return for which moments a beat sends that looks every twenty minutes and is restarted after each look."""
    runs: list[datetime] = []
    row.next_run_at = planning.first_run(row, start)
    now = start
    while now < end:
        row = restarted(row)
        if row.next_run_at is not None and row.next_run_at <= now:
            decision = planning.decide(row, now)
            runs += decision.runs
            row.next_run_at, row.last_run_at = decision.next_run_at, now
        now += LOOK
    return runs


@pytest.mark.parametrize("use_tz", [True, False], ids=["USE_TZ", "local time"])
@pytest.mark.parametrize("name", ZONES)
def test_at_every_change_of_clocks_each_time_is_sent_once(name: str, use_tz: bool) -> None:
    zone = ZoneInfo(name)
    with override_settings(USE_TZ=use_tz, TIME_ZONE=name):
        for change in changes(name):
            watched = watched_once(name, change)
            hit = (change - MINUTE).astimezone(zone)
            for minute, hour in (("*/20", "*"), ("30", str((hit.hour + 1) % 24))):
                timetable = CrontabSchedule(minute=minute, hour=hour, timezone=name)
                row = PeriodicTask(crontab=timetable, missed="all", missed_limit=1000, schedule_key="planned")
                start, end = change - AROUND, change + AROUND - LOOK
                wanted = [run for run in watched.runs(timetable.schedule) if start < run <= end - LOOK]
                found = [run for run in sent(row, start, end) if run <= end - LOOK]
                assert found == wanted, (change.isoformat(), minute, hour)


def test_what_is_sent_late_over_a_change_of_clocks_is_sent_once() -> None:
    """A beat that stood still from before the gap until after it makes up for one run, that at the end of the gap."""
    zone = ZoneInfo("Europe/Berlin")
    timetable = CrontabSchedule(minute="30", hour="2", timezone="Europe/Berlin")
    row = PeriodicTask(crontab=timetable, schedule_key="planned")
    row.next_run_at = planning.first_run(row, datetime(2026, 3, 28, 12, tzinfo=zone))
    decision = planning.decide(restarted(row), datetime(2026, 3, 29, 12, tzinfo=zone))
    assert decision.runs == (datetime(2026, 3, 29, 3, tzinfo=zone),)
    assert decision.next_run_at == datetime(2026, 3, 30, 2, 30, tzinfo=zone)
    assert decision.next_run_at - decision.runs[0] == timedelta(days=1, minutes=-30)
