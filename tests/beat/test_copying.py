"""The move from django-celery-beat: its tables, as version 2.8 makes them, and what becomes of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from django_tasks.beat.copying import copy_rows
from django_tasks.dashboard import database_now
from django_tasks.models import PeriodicTask
from django_tasks.schedules import clocked, crontab, schedule, solar
from tests.databases import TestDatabase

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mariadb")

MOMENT = {"sqlite": "datetime", "postgresql": "timestamp with time zone", "mysql": "datetime(6)"}
TABLES = {
    "intervalschedule": "every integer, period varchar(24)",
    "crontabschedule": "minute varchar(240), hour varchar(96), day_of_week varchar(64), day_of_month varchar(124),"
    " month_of_year varchar(64), timezone varchar(63)",
    "solarschedule": "event varchar(24), latitude decimal(9, 6), longitude decimal(9, 6)",
    "clockedschedule": "clocked_time {moment}",
    "periodictask": "name varchar(200), task varchar(200), args text, kwargs text, queue varchar(200),"
    " exchange varchar(200), routing_key varchar(200), expires {moment}, enabled {boolean}, last_run_at {moment},"
    " total_run_count integer, date_changed {moment}, description text, crontab_id integer, interval_id integer,"
    " solar_id integer, one_off {boolean}, start_time {moment}, priority integer, headers text, clocked_id integer,"
    " expire_seconds integer",
}
LAST = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def insert(table: str, **columns: Any) -> None:
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    values = [
        connection.ops.adapt_datetimefield_value(each) if isinstance(each, datetime) else each
        for each in columns.values()
    ]
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO django_celery_beat_{table} ({names}) VALUES ({marks})", values)


def theirs(number: int, name: str, **columns: Any) -> None:
    """Add a periodic task to django-celery-beat's."""
    defaults = {"task": "tests.app.tasks.noop", "args": "[]", "kwargs": "{}", "headers": "{}", "description": ""}
    given = {"enabled": True, "one_off": False, "total_run_count": 0, **columns}
    insert("periodictask", id=number, name=name, **{**defaults, **given})


@pytest.fixture
def celerys(database: TestDatabase) -> Iterator[None]:
    """Give the tables of django-celery-beat, with rows of each kind."""
    types = {"moment": MOMENT[connection.vendor], "boolean": "boolean"}
    with connection.cursor() as cursor:
        for name, columns in TABLES.items():
            cursor.execute(
                f"CREATE TABLE django_celery_beat_{name} (id integer PRIMARY KEY, {columns.format(**types)})"
            )
    insert("intervalschedule", id=1, every=10, period="minutes")
    insert("intervalschedule", id=2, every=-1, period="minutes")
    days = {"day_of_month": "*", "month_of_year": "*", "timezone": "Europe/Berlin"}
    insert("crontabschedule", id=1, minute="30", hour="2", day_of_week="mon-fri", **days)
    insert("solarschedule", id=1, event="sunset", latitude="52.520000", longitude="13.405000")
    insert("clockedschedule", id=1, clocked_time=datetime(2040, 1, 1, tzinfo=UTC))
    args = {"args": "[1]", "kwargs": '{"y": 2}', "task": "tests.app.tasks.add"}
    theirs(1, "sync", interval_id=1, priority=200, last_run_at=LAST, total_run_count=7, **args)
    theirs(2, "report", crontab_id=1, task="shop.report", enabled=False, queue="slow", description="By night.")
    theirs(3, "dusk", solar_id=1, expire_seconds=60)
    theirs(4, "once", clocked_id=1, one_off=True)
    theirs(5, "celery.backend_cleanup", crontab_id=1, task="celery.backend_cleanup")
    yield
    with connection.cursor() as cursor:
        for name in TABLES:
            cursor.execute(f"DROP TABLE django_celery_beat_{name}")


def test_each_kind_of_row_is_copied_and_goes_on_where_it_was(celerys: None) -> None:
    found = {name: (kind, why) for name, kind, why in copy_rows()}
    assert found == {
        "sync": ("copied", "its priority was 200 and is 100, the highest"),
        "report": ("copied", "its task shop.report is unknown here"),
        "dusk": ("copied", ""),
        "once": ("copied", ""),
        "celery.backend_cleanup": ("left", "workers delete old results themselves"),
    }
    rows = {row.name: row for row in PeriodicTask.objects.all()}
    sync, report = rows["sync"], rows["report"]
    assert (sync.schedule, sync.arguments(), sync.total_run_count) == (schedule(600), ([1], {"y": 2}), 7)
    assert sync.last_run_at == LAST
    assert sync.next_run_at is not None
    assert (sync.next_run_at - LAST) % timedelta(minutes=10) == timedelta(0)  # the steps that it always had
    assert timedelta(0) < sync.next_run_at - database_now() <= timedelta(minutes=10)
    assert report.schedule == crontab(30, 2, day_of_week="mon-fri", tz="Europe/Berlin")
    assert (report.enabled, report.next_run_at, report.queue, report.description) == (False, None, "slow", "By night.")
    at_dusk = solar("sunset", Decimal("52.52"), Decimal("13.405"))
    assert (rows["dusk"].schedule, rows["dusk"].expire_seconds) == (at_dusk, 60)
    assert (rows["once"].schedule, rows["once"].one_off) == (clocked(datetime(2040, 1, 1, tzinfo=UTC)), True)
    assert {kind for _, kind, _ in copy_rows()} == {"left"}


def test_what_cannot_be_kept_is_told_and_the_others_are_copied(
    celerys: None, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(6, "broken", interval_id=1, args="[1,")
    theirs(7, "backwards", interval_id=2)
    theirs(8, "nowhere", interval_id=1, queue="no such")
    theirs(9, "never")
    with pytest.raises(SystemExit) as ended:
        call_command("tasks", "copy-celery-beat")
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "broken: cannot be kept: args is no JSON, line 1, column 4" in said
    assert "backwards: cannot be kept: every is -1; allowed: a whole number from 1" in said
    assert "nowhere: cannot be kept" in said
    assert "never: cannot be kept: One of interval" in said
    assert set(PeriodicTask.objects.values_list("name", flat=True)) == {"sync", "report", "dusk", "once"}


def test_a_dry_run_stores_nothing_and_copies_may_be_switched_off(
    celerys: None, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("tasks", "copy-celery-beat", dry_run=True)
    assert "sync: would be copied" in capsys.readouterr().out
    assert not PeriodicTask.objects.exists()
    call_command("tasks", "copy-celery-beat", disabled=True)
    assert PeriodicTask.objects.count() == 4
    assert not PeriodicTask.objects.filter(enabled=True).exists()


@pytest.mark.databases("sqlite")
def test_without_its_tables_or_with_an_unknown_database_the_command_says_so(database: TestDatabase) -> None:
    with pytest.raises(CommandError, match="django-celery-beat was never migrated there"):
        call_command("tasks", "copy-celery-beat")
    with pytest.raises(CommandError, match="--from-database 'old': allowed are default"):
        call_command("tasks", "copy-celery-beat", from_database="old")
