"""Ten thousand schedules: a thousand of them due in one second, and what they cost while nothing is due."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from django_tasks.models import CrontabSchedule, PeriodicRun, PeriodicTask, Task
from tests.beat.clock import NOON, OneBeat, crontab_row, interval

#: Schedules, and those of them that are due at the same time.
ALL, DUE = 10_000, 1_000


@pytest.fixture
def many(beat: OneBeat) -> OneBeat:
    """Give a beat with ten thousand rows, planned."""
    hourly, soon = crontab_row("*/59"), interval(60)
    rows = [
        PeriodicTask(name=f"soon {i}", task="tests.app.tasks.noop", interval=soon, args=f"[{i}]") for i in range(DUE)
    ]
    rows += [PeriodicTask(name=f"later {i}", task="tests.app.tasks.noop", crontab=hourly) for i in range(ALL - DUE)]
    PeriodicTask.objects.bulk_create(rows, batch_size=500)
    assert beat.engine.plan() == ALL
    return beat


@pytest.mark.timeout(300)
@pytest.mark.databases("sqlite", "postgresql")
def test_a_thousand_due_in_one_second_are_sent_within_two_and_a_look_costs_next_to_nothing(many: OneBeat) -> None:
    looks = 5
    wall, cpu = time.monotonic(), time.process_time()
    for _ in range(looks):
        assert many.engine.plan() == 0
        assert many.engine.fire() == 0
        many.engine.next_due()
    wall, cpu = (time.monotonic() - wall) / looks, (time.process_time() - cpu) / looks
    print(f"a look at {ALL} schedules: {wall * 1000:.1f} ms, {cpu * 1000:.1f} ms of this process's CPU")
    # A look every four seconds: on SQLite, whose work is ours, this is what 10,000 rows take; elsewhere the server's.
    assert cpu < 0.06

    CrontabSchedule.objects.update(minute="*/58")
    wall, cpu = time.monotonic(), time.process_time()
    assert many.engine.plan() == ALL - DUE
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{ALL - DUE} planned anew in {wall:.2f} s, {cpu:.2f} s of this process's CPU")
    assert cpu < 4

    many.clock.forward(seconds=60)
    wall, cpu = time.monotonic(), time.process_time()
    assert many.engine.fire() == DUE
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{DUE} of {ALL} sent in {wall:.2f} s, {cpu:.2f} s of this process's CPU")
    assert cpu < 2  # the machine may be busy, which the time on the wall would blame on us
    assert Task.objects.count() == PeriodicRun.objects.count() == DUE
    assert PeriodicTask.objects.filter(next_run_at=NOON + timedelta(seconds=120)).count() == DUE
    assert many.engine.fire() == 0
