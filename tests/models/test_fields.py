"""Moments mean the same on every database and under every ``USE_TZ``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.core import serializers
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasks.backends import get_broker
from django_tasks.backends.database.mysql import MySQL
from django_tasks.backends.database.postgresql import PostgreSQL
from django_tasks.backends.database.sqlite import SQLite
from django_tasks.fields import UTCDateTimeField
from django_tasks.ids import new_id
from django_tasks.models import Task
from tests.backends.calls import a_message
from tests.databases import TestDatabase

BERLIN = ZoneInfo("Europe/Berlin")
#: Both are half past two in Berlin, an hour apart.
FIRST_FOLD, SECOND_FOLD = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
MOMENTS = {
    "utc": datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC),
    "another zone": datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
    "before the clocks go back": FIRST_FOLD,
    "after the clocks went back": SECOND_FOLD,
    "the same by name": SECOND_FOLD.astimezone(BERLIN),
    "whole milliseconds": datetime(2026, 7, 1, 12, 0, 0, 5_000, tzinfo=UTC),
}


@pytest.fixture(params=[(True, "UTC"), (True, "Europe/Berlin"), (False, "Europe/Berlin"), (False, "America/St_Johns")])
def zone(database: TestDatabase, request: pytest.FixtureRequest) -> Iterator[ZoneInfo]:
    """Set ``USE_TZ`` and ``TIME_ZONE``; give the latter."""
    use_tz, name = request.param
    with override_settings(USE_TZ=use_tz, TIME_ZONE=name):
        yield ZoneInfo(name)


def a_task(due_at: datetime) -> Task:
    """Store a task with this due time."""
    return Task.objects.create(id=UUID(new_id()), name="n", queue="q", body="[[],{}]", created_at=due_at, due_at=due_at)


def stored(task: Task) -> datetime:
    """Return its due time as the database has it."""
    found = Task.objects.values_list("due_at", flat=True).get(pk=task.pk)
    assert isinstance(found, datetime)
    return found


def test_a_moment_comes_back_as_the_same_moment_in_utc(zone: ZoneInfo) -> None:
    for name, moment in MOMENTS.items():
        task = a_task(moment)
        found = stored(task)
        # Compared in UTC: in its own zone, a moment that the clocks repeat equals no other.
        assert (found, found.utcoffset()) == (moment.astimezone(UTC), timedelta(0)), name
        task.refresh_from_db()
        assert task.due_at == moment.astimezone(UTC), name
        assert list(Task.objects.filter(due_at=moment)) == [task], name
        assert not Task.objects.filter(due_at__lt=moment).exists(), name
        assert Task.objects.filter(due_at__lt=moment.astimezone(UTC) + timedelta(milliseconds=1)).exists(), name
        task.delete()


def test_a_naive_moment_is_local_time(zone: ZoneInfo) -> None:
    naive = datetime(2026, 1, 2, 3, 4, 5)
    assert stored(a_task(naive)) == naive.replace(tzinfo=zone)


def test_the_brokers_clock_and_the_column_agree(zone: ZoneInfo) -> None:
    now = get_broker().now()
    past, future = a_task(now - timedelta(minutes=1)), a_task(now + timedelta(minutes=1))
    assert [list(Task.objects.due()), list(Task.objects.scheduled())] == [[past], [future]]
    assert abs(stored(past) - now) == timedelta(minutes=1)


def test_a_fixture_file_keeps_the_moment(zone: ZoneInfo) -> None:
    task = a_task(SECOND_FOLD)
    text = serializers.serialize("json", [task])
    Task.objects.all().delete()
    for one in serializers.deserialize("json", text):
        one.save()
    assert stored(task) == SECOND_FOLD


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments=st.lists(st.datetimes(datetime(1980, 1, 1), datetime(2036, 1, 1), timezones=st.timezones()), max_size=4))
def test_moments_sort_in_the_database_as_in_python(database: TestDatabase, moments: list[datetime]) -> None:
    Task.objects.all().delete()
    for moment in moments:
        a_task(moment)
    found = list(Task.objects.order_by("due_at").values_list("due_at", flat=True))
    assert found == sorted(moment.astimezone(UTC) for moment in moments)


@given(moment=st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)), whole=st.booleans())
def test_the_engine_spells_a_moment_as_the_field_does(moment: datetime, whole: bool) -> None:
    """SQLite compares texts, and what it writes by its own clock has three digits."""
    if whole:
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    for dialect, vendor in ((SQLite(), "sqlite"), (MySQL(), "mysql"), (PostgreSQL(), "postgresql")):
        connection = SimpleNamespace(vendor=vendor)
        assert dialect.moment(moment) == UTCDateTimeField().get_db_prep_value(moment, connection)
    if whole:
        assert len(SQLite().moment(moment)) == len("2026-01-02 03:04:05.678")


@pytest.mark.databases("sqlite")
def test_a_message_is_stored_with_the_same_text_as_a_row(database: TestDatabase) -> None:
    moment = MOMENTS["whole milliseconds"]
    kinds: list[dict[str, Any]] = [{}, {"limit_key": ""}]
    for limits in kinds:
        message = a_message(eta=moment, expires_at=moment, **limits)
        get_broker().publish([message])
        row = Task.objects.get(pk=message.id)
        assert Task.objects.filter(pk=message.id, due_at=moment, expires_at=moment, due_at__gte=moment).exists()
        assert (row.due_at, row.expires_at) == (moment, moment)


def test_a_field_may_be_empty() -> None:
    assert UTCDateTimeField().get_prep_value(None) is None
