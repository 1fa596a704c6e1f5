"""What a beat sends, and when: each tick once, whatever happens to clocks, rows and other beats."""

from __future__ import annotations

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_tasks import shared_task
from django_tasks.beat.engine import Engine, run_now
from django_tasks.models import PeriodicRun, PeriodicTask, Task, TaskResult
from django_tasks.registry import tasks
from django_tasks.schedules import clocked, cron, crontab, schedule
from tests.beat.clock import NOON, OneBeat, crontab_row, interval, sent_for
from tests.inprocess import Worker


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_tick_is_sent_once_and_the_next_one_in_time(beat: OneBeat) -> None:
    row = beat.row(60)
    assert row.next_run_at == NOON + timedelta(seconds=60)
    assert [beat.turn(), beat.go(seconds=59.9), beat.go(seconds=0.1), beat.turn(), beat.go(seconds=60)] == [
        0,
        0,
        1,
        0,
        1,
    ]
    assert sent_for(row) == [NOON + timedelta(seconds=60), NOON + timedelta(seconds=120)]
    row.refresh_from_db()
    assert (row.total_run_count, row.last_run_at) == (2, NOON + timedelta(seconds=120))


def test_a_late_tick_does_not_shift_the_ones_after_it(beat: OneBeat) -> None:
    row = beat.row(60)
    beat.go(seconds=75)
    row.refresh_from_db()
    assert row.next_run_at == NOON + timedelta(seconds=120)


def test_the_task_is_told_for_which_moment_it_runs(beat: OneBeat) -> None:
    told: list[Any] = []

    @shared_task(bind=True, name="tests.beat.told")
    def tell(self: Any) -> None:
        told.append((self.request.scheduled_for, self.request.periodic_task_name, self.request.headers["colour"]))

    try:
        beat.row(60, task="tests.beat.told", name="Telling", headers='{"colour": "red"}')
        beat.go(seconds=70)
        assert Worker().drain() == 1
    finally:
        tasks.unregister("tests.beat.told")
    assert told == [(NOON + timedelta(seconds=60), "Telling", "red")]


def test_a_run_goes_where_its_row_says(beat: OneBeat) -> None:
    beat.row(
        60, task="tests.app.tasks.add", args="[1]", kwargs='{"y": 2}', queue="slow", priority=7, expire_seconds=30,
        time_limit=9.0, soft_time_limit=8.0,
    )  # fmt: skip
    beat.go(seconds=60)
    task = Task.objects.get()
    assert (task.queue, task.priority, json.loads(task.body)) == ("slow", 7, [[1], {"y": 2}])
    assert task.expires_at is not None
    assert 20 < (task.expires_at - task.created_at).total_seconds() <= 31
    assert (task.option_values["time_limit"], task.option_values["soft_time_limit"]) == (9.0, 8.0)


def test_two_beats_that_find_the_same_tick_send_it_once(beat: OneBeat) -> None:
    """R8."""
    row = beat.row(60)
    beat.clock.forward(seconds=60)
    stale = list(PeriodicTask.objects.with_key().select_related("interval"))
    other = Engine(beat.clock)
    assert other.fire() == 1
    assert beat.engine._fire_rows(stale, beat.clock()) == []
    assert beat.turn() == 0
    assert len(sent_for(row)) == 1


@pytest.mark.databases("postgresql", "mariadb")
def test_a_row_that_somebody_holds_does_not_keep_the_others_back(beat: OneBeat) -> None:
    """An edit in a long transaction, or another beat that stands still in the middle of one."""
    held, other = beat.row(60, name="held"), beat.row(60, name="other")
    holds, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            PeriodicTask.objects.filter(pk=held.pk).update(description="in the works")
            holds.set()
            let_go.wait(60)
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert holds.wait(60)
        assert beat.go(seconds=60) == 1
        let_go.set()
        holding.result()
    assert len(sent_for(other)) == 1
    assert beat.turn() == 1
    assert len(sent_for(held)) == 1


# Missed runs


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"missed": "once"}, [3600]),
        ({"missed": "once", "grace_seconds": 10}, [3600]),
        ({"missed": "skip"}, [3600]),
        ({"missed": "all", "missed_limit": 3}, [3480, 3540, 3600]),
        ({"missed": "all", "missed_limit": 1000, "grace_seconds": 130}, [3480, 3540, 3600]),
    ],
)
def test_after_an_hour_without_a_beat_its_policy_says_what_runs(
    beat: OneBeat, policy: dict[str, Any], expected: list[int]
) -> None:
    """R8: one tick to catch up unless the policy says otherwise, never a burst."""
    row = beat.row(60, **policy)
    beat.restart()
    beat.go(seconds=3605)
    assert sent_for(row) == [NOON + timedelta(seconds=seconds) for seconds in expected]
    row.refresh_from_db()
    assert row.next_run_at == NOON + timedelta(seconds=3660)


@pytest.mark.parametrize(("policy", "runs"), [("once", 1), ("skip", 0), ("all", 2)])
def test_a_daily_run_that_was_missed_by_hours_follows_its_policy(beat: OneBeat, policy: str, runs: int) -> None:
    row = beat.row(crontab(0, 3, tz="Europe/Berlin"), missed=policy)
    beat.go(days=2)
    assert sent_for(row) == [at("2026-03-05T02:00"), at("2026-03-06T02:00")][2 - runs :]


def test_a_year_without_a_beat_is_caught_up_in_no_time(beat: OneBeat) -> None:
    rows = [
        beat.row(timedelta(microseconds=10), name="quick", missed="all", missed_limit=5),
        beat.row(crontab(), name="minutely", missed="all", missed_limit=1000),
        beat.row(cron("*/7 * * * * *"), name="by the second", missed="once"),
        beat.row(schedule(1, relative=True), name="relative"),
    ]
    began = time.process_time()
    assert beat.go(days=365) == 5 + 1000 + 1 + 1
    assert time.process_time() - began < 10
    for row in rows:
        row.refresh_from_db()
        assert beat.clock() < row.next_run_at <= beat.clock() + timedelta(minutes=1)


def test_a_weekly_interval_runs_in_time_although_its_beat_restarts_every_hour(beat: OneBeat) -> None:
    row = beat.row(timedelta(weeks=1))
    for _ in range(2 * 7 * 24 + 1):
        beat.restart()
        beat.go(hours=1)
    assert sent_for(row) == [NOON + timedelta(weeks=1), NOON + timedelta(weeks=2)]


# Edits


def _by_save(row: PeriodicTask) -> None:
    row.crontab = None
    row.interval = interval(5)
    row.save()


def _by_update(row: PeriodicTask) -> None:
    PeriodicTask.objects.filter(pk=row.pk).update(crontab=None, interval=interval(5))


def _by_sql(row: PeriodicTask) -> None:
    key = interval(5).pk
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE django_tasks_periodictask SET crontab_id = NULL, interval_id = %s WHERE id = %s", [key, row.pk]
        )


def _by_bulk_update(row: PeriodicTask) -> None:
    row.crontab, row.interval = None, interval(5)
    PeriodicTask.objects.bulk_update([row], ["crontab", "interval"])


@pytest.mark.parametrize("edit", [_by_save, _by_update, _by_sql, _by_bulk_update])
def test_an_edit_by_any_path_takes_effect_at_the_next_look(beat: OneBeat, edit: Any) -> None:
    row = beat.row(crontab(0, 0))
    edit(row)
    beat.turn()
    row.refresh_from_db()
    assert row.next_run_at is not None
    if edit is not _by_save:  # which plans by the real clock
        assert row.next_run_at == NOON + timedelta(seconds=5)
    assert isinstance(row.schedule, schedule)


def test_an_edit_of_the_schedule_s_own_row_takes_effect_for_all_that_share_it(beat: OneBeat) -> None:
    shared = crontab_row(0, 0, tz="UTC")
    rows = [beat.row(crontab(0, 0, tz="UTC"), name=name) for name in "ab"]
    assert {row.crontab for row in rows} == {shared}
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_tasks_crontabschedule SET hour = '18'")
    beat.turn()
    for row in rows:
        row.refresh_from_db()
        assert row.next_run_at == at("2026-03-04T18:00")


def test_what_is_due_by_the_old_schedule_is_not_run_after_an_edit(beat: OneBeat) -> None:
    row = beat.row(60)
    beat.clock.forward(seconds=61)
    PeriodicTask.objects.filter(pk=row.pk).update(interval=interval(1, "days"))
    assert beat.engine.fire() == 0
    row.refresh_from_db()
    assert row.next_run_at == beat.clock() + timedelta(days=1)


def test_to_save_a_row_that_was_read_before_a_run_does_not_take_the_run_back(beat: OneBeat) -> None:
    old = beat.row(60)
    beat.go(seconds=60)
    old.description = "sweeps"
    old.save()
    assert beat.turn() == 0
    row = PeriodicTask.objects.get()
    assert (row.total_run_count, row.description) == (1, "sweeps")


def test_what_the_beat_wrote_can_be_assigned_all_the_same(beat: OneBeat) -> None:
    row = beat.row(60)
    beat.go(seconds=60)
    row.refresh_from_db()
    row.total_run_count = 0
    row.save()
    assert PeriodicTask.objects.get().total_run_count == 0


def test_an_unrelated_edit_does_not_move_the_next_run(beat: OneBeat) -> None:
    row = beat.row(60)
    beat.clock.forward(seconds=30)
    PeriodicTask.objects.filter(pk=row.pk).update(description="x", queue="slow", args="[1]")
    beat.turn()
    row.refresh_from_db()
    assert row.next_run_at == NOON + timedelta(seconds=60)


@pytest.mark.parametrize("look_between", [True, False])
def test_to_disable_and_enable_runs_nothing_by_itself(beat: OneBeat, look_between: bool) -> None:
    row = beat.row(crontab(0, 3))
    beat.go(hours=15)
    assert len(sent_for(row)) == 1
    PeriodicTask.objects.update(enabled=False)
    if look_between:
        beat.turn()
    beat.clock.forward(days=3)
    PeriodicTask.objects.update(enabled=True)
    assert beat.turn() == 0
    row.refresh_from_db()
    assert row.next_run_at == at("2026-03-09T03:00")
    assert (row.last_run_at, row.total_run_count) == (at("2026-03-05T03:00"), 1)


def test_to_disable_by_sql_stops_a_row_at_once(beat: OneBeat) -> None:
    beat.row(60)
    beat.clock.forward(seconds=60)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_tasks_periodictask SET enabled = %s", [False])
    assert beat.engine.fire() == 0


# Overlap


@pytest.mark.parametrize(("overlap", "open_"), [("allow", 4), ("skip", 1), ("queue", 1)])
def test_while_a_run_waits_its_policy_says_whether_another_is_sent(beat: OneBeat, overlap: str, open_: int) -> None:
    row = beat.row(60, overlap=overlap)
    for _ in range(4):
        beat.go(seconds=60)
    assert Task.objects.count() == len(sent_for(row)) == open_
    skipped = PeriodicRun.objects.filter(periodic_task=row, skipped="overlap").count()
    assert skipped == 4 - open_


@pytest.mark.parametrize(("overlap", "count"), [("allow", 4), ("skip", 1), ("queue", 2)])
def test_while_a_run_is_at_work_its_policy_says_how_many_may_wait(beat: OneBeat, overlap: str, count: int) -> None:
    row = beat.row(60, overlap=overlap)
    beat.go(seconds=60)
    worker = Worker()
    claimed = worker.claim()
    for _ in range(3):
        beat.go(seconds=60)
    assert len(sent_for_all(row)) == count
    assert claimed is not None
    worker.run(claimed)
    worker.drain()
    beat.go(seconds=60)
    assert len(sent_for_all(row)) == count + 1


def test_a_run_whose_worker_died_does_not_stand_in_the_way_for_ever(beat: OneBeat) -> None:
    """The policy asks the to-do list, not a mark that the dead could leave behind."""
    row = beat.row(60, overlap="skip")
    beat.go(seconds=60)
    worker = Worker()
    assert worker.claim() is not None
    worker._broker.unregister(worker.holder.worker)  # what rescue does with the dead, in order
    assert beat.go(seconds=60) == 0
    assert Worker().drain() == 1
    assert beat.go(seconds=60) == 1
    assert len(sent_for_all(row)) == 2


def sent_for_all(row: PeriodicTask) -> list[Any]:
    return list(PeriodicRun.objects.filter(periodic_task=row, task_id__isnull=False))


# Limits


def test_a_one_off_runs_once_and_is_switched_off(beat: OneBeat) -> None:
    row = beat.row(60, one_off=True)
    assert [beat.go(seconds=60), beat.go(seconds=60), beat.go(seconds=60)] == [1, 0, 0]
    row.refresh_from_db()
    assert (row.enabled, row.next_run_at, row.total_run_count) == (False, None, 1)


def test_a_clocked_row_runs_once_at_its_moment(beat: OneBeat) -> None:
    row = beat.row(clocked(NOON + timedelta(hours=1)))
    assert [beat.go(minutes=59), beat.go(minutes=1), beat.go(days=1)] == [0, 1, 0]
    row.refresh_from_db()
    assert not row.enabled
    assert sent_for(row) == [NOON + timedelta(hours=1)]


def test_a_clocked_moment_that_passed_while_nobody_looked_is_still_run(beat: OneBeat) -> None:
    row = beat.row(clocked(NOON - timedelta(seconds=3)))
    assert beat.turn() == 1
    assert sent_for(row) == [NOON - timedelta(seconds=3)]
    PeriodicTask.objects.update(enabled=True)
    assert beat.turn() == 0  # switching it on again runs nothing


def test_most_runs_end_a_schedule_and_missed_ones_count(beat: OneBeat) -> None:
    row = beat.row(60, max_runs=3, missed="all")
    beat.go(seconds=60)
    beat.go(seconds=600)
    row.refresh_from_db()
    assert len(sent_for(row)) == row.total_run_count == 3
    assert not row.enabled


def test_start_and_end_bound_the_runs(beat: OneBeat) -> None:
    start, end = NOON + timedelta(minutes=10), NOON + timedelta(minutes=12)
    row = beat.row(60, start_time=start, end_time=end)
    for _ in range(20):
        beat.go(minutes=1)
    assert sent_for(row) == [start, start + timedelta(minutes=1), end]
    row.refresh_from_db()
    assert not row.enabled


def test_no_run_is_sent_after_it_expires(beat: OneBeat) -> None:
    """django-celery-beat's ``expires``."""
    row = beat.row(60, expires=NOON + timedelta(seconds=150))
    for _ in range(5):
        beat.go(minutes=1)
    assert len(sent_for(row)) == 2


def test_jitter_delays_a_run_and_not_the_schedule(beat: OneBeat) -> None:
    row = beat.row(60, jitter=30)
    for _ in range(12):
        beat.go(seconds=60)
    delays = {round((task.due_at - task.created_at).total_seconds(), 3) for task in Task.objects.all()}
    assert len(delays) > 1
    assert all(0 <= delay <= 30.1 for delay in delays)
    assert sent_for(row) == [NOON + timedelta(minutes=i) for i in range(1, 13)]


# What is broken


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"args": "[1,"}, "args is no JSON, line 1, column 4"),
        ({"args": '{"a": 1}'}, "allowed: a JSON list"),
        ({"kwargs": "[]"}, "allowed: a JSON object"),
        ({"args": "[1, 2, 3]", "task": "tests.app.tasks.add"}, "too many positional arguments"),
        ({"queue": "no such name!"}, "no such name!"),
        ({"headers": "7"}, "headers is 7"),
    ],
)
def test_a_row_that_cannot_be_sent_says_why_and_the_others_go_on(
    beat: OneBeat, columns: dict[str, Any], word: str
) -> None:
    """PAINS: one broken row never stops the others."""
    good = beat.row(60, name="good")
    bad = beat.row(60, name="bad")
    PeriodicTask.objects.filter(pk=bad.pk).update(**columns)
    assert beat.go(seconds=60) == 1
    bad.refresh_from_db()
    assert word in bad.last_error
    assert bad.failed_at == beat.clock()
    assert (bad.total_run_count, bad.last_run_at, bad.enabled) == (0, None, True)
    assert len(sent_for(good)) == 1
    assert PeriodicRun.objects.get(periodic_task=bad).skipped == "error"
    PeriodicTask.objects.filter(pk=bad.pk).update(
        args="[]", kwargs="{}", queue=None, headers="{}", task="tests.app.tasks.noop"
    )
    assert beat.go(seconds=60) == 2
    bad.refresh_from_db()
    assert (bad.last_error, bad.failed_at) == ("", None)


@pytest.mark.parametrize(
    ("table", "column", "value", "word"),
    [
        ("intervalschedule", "every", "-5", "allowed: a whole number from 1"),
        ("intervalschedule", "period", "'fortnights'", "allowed: days, hours"),
        ("crontabschedule", "minute", "'*/0'", "minute"),
        ("crontabschedule", "timezone", "'Mars/Olympus'", "Mars/Olympus"),
        ("crontabschedule", "day_of_month", "'31'", "there is no such day"),
    ],
)
def test_a_schedule_broken_by_sql_says_why_and_the_others_go_on(
    beat: OneBeat, table: str, column: str, value: str, word: str
) -> None:
    good = beat.row(30, name="good")
    bad = beat.row(crontab(0, 0, month_of_year=2) if "crontab" in table else 60, name="bad")
    where = bad.crontab_id or bad.interval_id
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE django_tasks_{table} SET {column} = {value} WHERE id = {where}")
    assert beat.go(seconds=60) == 1
    bad.refresh_from_db()
    assert word in bad.last_error
    assert bad.next_run_at is None
    assert len(sent_for(good)) == 1
    bad.set_schedule(60)
    bad.save()
    assert PeriodicTask.objects.get(pk=bad.pk).last_error == ""


def test_what_the_database_cannot_store_does_not_take_its_neighbours_along(beat: OneBeat) -> None:
    good = [beat.row(60, name=f"good {number}") for number in range(3)]
    bad = beat.row(60, name="bad")
    PeriodicTask.objects.filter(pk=bad.pk).update(args=json.dumps(["x" * 3_000_000]))
    assert beat.go(seconds=60) == 3
    assert [len(sent_for(row)) for row in good] == [1, 1, 1]
    bad.refresh_from_db()
    assert "PayloadTooLarge" in bad.last_error
    assert beat.go(seconds=60) == 3


def test_a_task_that_nobody_knows_is_sent_and_waits_for_a_worker_that_does(beat: OneBeat) -> None:
    beat.row(60, task="shop.tasks.not_yet", args="[1]")
    assert beat.go(seconds=60) == 1
    assert Task.objects.get().name == "shop.tasks.not_yet"


# Clocks


def test_an_hour_forward_is_caught_up_once_and_an_hour_back_doubles_nothing(beat: OneBeat) -> None:
    """R25."""
    by_clock, by_time = beat.row(crontab("*/10"), name="by the clock"), beat.row(600, name="by time")
    for _ in range(6):
        beat.go(minutes=1)
    beat.go(hours=1)
    assert sent_for(by_clock) == [at("2026-03-04T13:00")]
    beat.clock.forward(hours=-1)  # it was wrong; now it is 12:06 again
    for _ in range(120):
        beat.go(minutes=1)
    moments = sent_for(by_clock)
    assert len(moments) == len(set(moments))
    assert moments == [at("2026-03-04T13:00") + timedelta(minutes=10 * i) for i in range(7)]
    # Time is counted from the moment at which it was noticed, not from one that lies ahead.
    after = sent_for(by_time)[1:]
    assert all(b - a == timedelta(minutes=10) for a, b in itertools.pairwise(after))
    assert len(after) == 11


def test_a_beat_that_stood_still_does_not_take_the_runs_of_others_for_the_future(beat: OneBeat) -> None:
    row = beat.row(1)
    before = beat.clock()
    beat.go(seconds=5)
    row.refresh_from_db()
    expected = (row.last_run_at, row.next_run_at)
    frozen = iter([before])  # it was stopped right after it had asked for the time
    Engine(lambda: next(frozen, beat.clock())).plan()
    row.refresh_from_db()
    assert (row.last_run_at, row.next_run_at) == expected


def test_a_local_time_that_does_not_exist_runs_once_after_the_gap(beat: OneBeat) -> None:
    row = beat.row(crontab(30, 2, tz="Europe/Berlin"))
    beat.clock.now = at("2026-03-28T12:00")
    PeriodicTask.objects.update(schedule_key="-")
    beat.turn()
    for _ in range(48):
        beat.go(hours=1)
    assert sent_for(row) == [at("2026-03-29T01:00"), at("2026-03-30T00:30")]


def test_a_local_time_that_occurs_twice_runs_once(beat: OneBeat) -> None:
    row = beat.row(crontab(30, 2, tz="Europe/Berlin"))
    beat.clock.now = at("2026-10-24T12:00")
    PeriodicTask.objects.update(schedule_key="-")
    beat.turn()
    for _ in range(48):
        beat.restart()
        beat.go(minutes=30)
    assert sent_for(row) == [at("2026-10-25T00:30")]


@pytest.mark.parametrize("use_tz", [True, False])
def test_with_and_without_use_tz_the_same_moments_are_run(beat: OneBeat, settings: Any, use_tz: bool) -> None:
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "America/New_York"
    rows = [
        beat.row(crontab(0, 8), name="crontab"),  # by TIME_ZONE
        beat.row(clocked(datetime(2026, 3, 4, 8, tzinfo=timezone.get_default_timezone())), name="clocked"),
        beat.row(60, name="interval", start_time=NOON + timedelta(hours=1), max_runs=1),
    ]
    beat.go(hours=1)
    assert [sent_for(row) for row in rows] == [[at("2026-03-04T13:00")]] * 3


# By hand


def test_to_run_a_row_now_does_not_shift_its_schedule(beat: OneBeat) -> None:
    row = beat.row(60)
    task_id = run_now(row)
    row.refresh_from_db()
    assert (row.next_run_at, row.total_run_count, row.last_run_at) == (NOON + timedelta(seconds=60), 0, None)
    assert PeriodicRun.objects.get(task_id=task_id).by_hand
    assert beat.go(seconds=60) == 1


def test_runs_lead_to_what_became_of_them(beat: OneBeat) -> None:
    row = beat.row(60, task="tests.app.tasks.fail")
    beat.go(seconds=60)
    Worker().drain()
    [run] = row.recent_runs()
    assert run.task_id is not None
    assert TaskResult.objects.get(pk=run.task_id).state == "FAILURE"
