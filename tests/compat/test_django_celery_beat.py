"""Code written for django-celery-beat runs on a changed import.

The examples are those of its documentation, https://django-celery-beat.readthedocs.io/en/latest/.
"""

from __future__ import annotations

import json
import zoneinfo
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core import serializers
from django.core.exceptions import ValidationError
from django.utils import timezone

from django_tasks.models import (
    ClockedSchedule,
    CronSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)
from django_tasks.schedules import clocked, cron, crontab, schedule, solar
from tests.databases import TestDatabase

#: django-celery-beat's columns.
COLUMNS = [
    "name",
    "task",
    "interval",
    "crontab",
    "solar",
    "clocked",
    "args",
    "kwargs",
    "queue",
    "exchange",
    "routing_key",
    "headers",
    "priority",
    "expires",
    "expire_seconds",
    "one_off",
    "start_time",
    "enabled",
    "last_run_at",
    "total_run_count",
    "date_changed",
    "description",
]

SQLITE = pytest.mark.databases("sqlite")


def test_the_columns_and_choices_are_there(database: TestDatabase) -> None:
    assert not set(COLUMNS) - {field.name for field in PeriodicTask._meta.get_fields()}
    periods = ["days", "hours", "minutes", "seconds", "microseconds"]
    assert [value for value, _ in IntervalSchedule.PERIOD_CHOICES] == periods
    choices = [
        IntervalSchedule.DAYS, IntervalSchedule.HOURS, IntervalSchedule.MINUTES, IntervalSchedule.SECONDS,
        IntervalSchedule.MICROSECONDS,
    ]  # fmt: skip
    assert choices == periods


def test_an_interval_based_periodic_task_with_arguments(database: TestDatabase) -> None:
    schedule, created = IntervalSchedule.objects.get_or_create(every=10, period=IntervalSchedule.SECONDS)
    assert created
    PeriodicTask.objects.create(interval=schedule, name="Importing contacts", task="proj.tasks.import_contacts")
    task = PeriodicTask.objects.create(
        interval=schedule,
        name="Importing contacts with arguments",
        task="proj.tasks.import_contacts",
        args=json.dumps(["arg1", "arg2"]),
        kwargs=json.dumps({"be_careful": True}),
        expires=timezone.now() + timedelta(seconds=30),
    )
    assert task.arguments() == (["arg1", "arg2"], {"be_careful": True})
    assert IntervalSchedule.objects.get_or_create(every=10, period=IntervalSchedule.SECONDS)[1] is False
    assert str(task) == "Importing contacts with arguments: every 10 seconds"
    assert task.next_run_at is not None


def test_a_crontab_based_periodic_task(database: TestDatabase) -> None:
    schedule, _ = CrontabSchedule.objects.get_or_create(
        minute="30",
        hour="*",
        day_of_week="*",
        day_of_month="*",
        month_of_year="*",
        timezone=zoneinfo.ZoneInfo("Canada/Pacific"),
    )
    again, created = CrontabSchedule.objects.get_or_create(
        minute="30", hour="*", day_of_week="*", day_of_month="*", month_of_year="*",
        timezone=zoneinfo.ZoneInfo("Canada/Pacific"),
    )  # fmt: skip
    assert (again, created) == (schedule, False)
    PeriodicTask.objects.create(crontab=schedule, name="Importing contacts", task="proj.tasks.import_contacts")
    assert str(schedule) == "30 * * * * (m/h/dM/MY/d) Canada/Pacific"
    assert again.timezone == zoneinfo.ZoneInfo("Canada/Pacific")
    assert schedule.human_readable == "At minute 30 past the hour (Canada/Pacific)"


def test_to_disable_and_enable_a_periodic_task(database: TestDatabase) -> None:
    interval = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.DAYS)
    periodic_task = PeriodicTask.objects.create(interval=interval, name="x", task="proj.tasks.x")
    periodic_task.enabled = False
    periodic_task.save()
    assert PeriodicTask.objects.get().next_run_at is None
    periodic_task.enabled = True
    periodic_task.save()
    assert PeriodicTask.objects.get().next_run_at is not None
    assert list(PeriodicTask.objects.enabled()) == [periodic_task]


def test_a_task_that_runs_once_at_a_moment(database: TestDatabase) -> None:
    moment = timezone.now() + timedelta(hours=1)
    clocked_row = ClockedSchedule.objects.create(clocked_time=moment)
    task = PeriodicTask.objects.create(clocked=clocked_row, name="once", task="proj.tasks.x", one_off=True)
    assert task.next_run_at is not None
    assert abs(task.next_run_at - moment) < timedelta(milliseconds=1)
    with pytest.raises(ValidationError, match="one_off"):
        PeriodicTask.objects.create(clocked=clocked_row, name="often", task="proj.tasks.x")


def test_rows_changed_in_bulk_and_told_of_are_planned_at_once(database: TestDatabase) -> None:
    minutes = IntervalSchedule.objects.create(every=1, period="minutes")
    PeriodicTask.objects.bulk_create(PeriodicTask(name=f"{i}", task="x", interval=minutes) for i in range(3))
    PeriodicTasks.changed(PeriodicTask.objects.get(name="0"))
    assert PeriodicTask.objects.filter(next_run_at=None).count() == 2
    PeriodicTasks.update_changed()
    assert PeriodicTask.objects.filter(next_run_at=None).count() == 0
    last_change = PeriodicTasks.last_change()
    assert last_change is not None
    assert abs(last_change - timezone.now()) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (IntervalSchedule, schedule(90)),
        (IntervalSchedule, schedule(0.5)),
        (CrontabSchedule, crontab("*/5", 3, "mon-fri", tz="Asia/Tokyo")),
        (CronSchedule, cron("0 0 L * *", tz="Asia/Tokyo")),
        (ClockedSchedule, clocked(datetime(2030, 1, 1, tzinfo=UTC))),
        (SolarSchedule, solar("sunset", 52.52, 13.405)),
    ],
    ids=str,
)
def test_from_schedule_finds_the_row_or_makes_one(database: TestDatabase, model: Any, given: Any) -> None:
    row = model.from_schedule(given)
    assert row.pk is None
    row.save()
    found = model.from_schedule(given)
    assert found == row
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    assert found.schedule.next_after(moment) == given.next_after(moment)
    assert found.human_readable


@SQLITE
def test_exactly_one_schedule_must_be_set(database: TestDatabase) -> None:
    interval = IntervalSchedule.objects.create(every=1, period="days")
    line = CrontabSchedule.objects.create()
    with pytest.raises(ValidationError, match="One of"):
        PeriodicTask.objects.create(name="none", task="x")
    with pytest.raises(ValidationError, match="Only one of") as caught:
        PeriodicTask.objects.create(name="two", task="x", interval=interval, crontab=line)
    assert set(caught.value.message_dict) == {"interval", "crontab"}
    with pytest.raises(ValidationError, match="expires and expire_seconds"):
        PeriodicTask.objects.create(
            name="both", task="x", interval=interval, expires=timezone.now(), expire_seconds=3
        )  # fmt: skip
    assert not PeriodicTask.objects.exists()


@SQLITE
@pytest.mark.parametrize(
    ("model", "columns", "words"),
    [
        (IntervalSchedule, {"every": -1, "period": "days"}, "every is -1; allowed: a whole number from 1"),
        (IntervalSchedule, {"every": 0, "period": "days"}, "every is 0"),
        (IntervalSchedule, {"every": 1, "period": "weeks"}, "period is 'weeks'; allowed: days, hours"),
        (CrontabSchedule, {"day_of_month": "31", "month_of_year": "2"}, "there is no such day"),
        (CrontabSchedule, {"minute": "*/0"}, "minute"),
        (CrontabSchedule, {"minute": "61"}, "minute"),
        (CrontabSchedule, {"timezone": "Europe/Berlim"}, "Did you mean 'Europe/Berlin'"),
        (CronSchedule, {"line": "* * *"}, "fields in it: 3"),
        (SolarSchedule, {"event": "eclipse", "latitude": 1, "longitude": 1}, "event is 'eclipse'; allowed"),
        (SolarSchedule, {"event": "sunset", "latitude": 99, "longitude": 1}, "lat is 99"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused_in_one_sentence(
    database: TestDatabase, model: Any, columns: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValidationError, ValueError)) as caught:
        model.objects.create(**columns)
    assert words in str(caught.value)
    assert not model.objects.exists()


@SQLITE
@pytest.mark.parametrize(
    ("model", "columns", "words"),
    [
        (IntervalSchedule, {"every": "ten", "period": "days"}, "must be an integer"),
        (SolarSchedule, {"event": "sunset", "latitude": "north", "longitude": "1"}, "must be a decimal number"),
        (ClockedSchedule, {"clocked_time": "noon"}, "invalid format"),
    ],
)
def test_text_where_a_number_or_a_moment_belongs_is_read_as_django_does(
    database: TestDatabase, model: Any, columns: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        model.objects.create(**columns)
    assert not model.objects.exists()
    assert IntervalSchedule.objects.create(every="10", period="days").schedule.seconds == 864_000
    berlin = SolarSchedule.objects.create(event="sunset", latitude="52.5", longitude="13.4")
    assert berlin.schedule.lat == Decimal("52.5")
    moment = ClockedSchedule.objects.create(clocked_time="2030-01-01T00:00:00Z").clocked_time
    assert moment == datetime(2030, 1, 1, tzinfo=UTC)


@SQLITE
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"args": "[1,"}, "args is no JSON, line 1, column 4"),
        ({"args": "{}"}, "args is {}; allowed: a JSON list"),
        ({"kwargs": "[]"}, "kwargs is []; allowed: a JSON object"),
        ({"headers": "x"}, "headers is no JSON"),
        ({"queue": "two words"}, "queue is 'two words'; allowed: 1 to 64"),
        ({"priority": 255}, "less than or equal to 100"),
        ({"overlap": "perhaps"}, "not a valid choice"),
        ({"task": ""}, "cannot be blank"),
    ],
)
def test_a_row_that_could_never_be_sent_is_refused_unless_it_is_switched_off(
    database: TestDatabase, columns: dict[str, Any], words: str
) -> None:
    interval = IntervalSchedule.objects.create(every=1, period="days")
    fields: dict[str, Any] = {"name": "x", "task": "proj.x", "interval": interval}
    with pytest.raises(ValidationError) as caught:
        PeriodicTask.objects.create(**{**fields, **columns})
    assert list(caught.value.message_dict) == list(columns)
    assert words in str(caught.value)
    assert not PeriodicTask.objects.exists()
    row = PeriodicTask.objects.create(**fields)
    PeriodicTask.objects.update(**columns)  # by a path on which nobody asks
    row.refresh_from_db()
    with pytest.raises(ValidationError):
        row.save()
    row.save(update_fields=["description"])
    row.enabled = False
    row.save()
    assert not PeriodicTask.objects.get().enabled


def test_rows_are_written_to_fixtures_and_read_back(database: TestDatabase) -> None:
    line = CrontabSchedule.objects.create(hour="3", timezone="Asia/Tokyo")
    PeriodicTask.objects.create(name="x", task="proj.x", crontab=line, description="d")
    text = serializers.serialize("json", [line, *PeriodicTask.objects.all()])
    PeriodicTask.objects.all().delete()
    line.delete()
    for found in serializers.deserialize("json", text):
        found.save()
    row = PeriodicTask.objects.get()
    assert (row.name, str(row.crontab)) == ("x", "* 3 * * * (m/h/dM/MY/d) Asia/Tokyo")


def test_to_delete_a_schedule_deletes_what_runs_by_it(database: TestDatabase) -> None:
    interval = IntervalSchedule.objects.create(every=1, period="days")
    PeriodicTask.objects.create(name="x", task="proj.x", interval=interval)
    assert list(interval.periodictask_set.values_list("name", flat=True)) == ["x"]
    interval.delete()
    assert not PeriodicTask.objects.exists()
