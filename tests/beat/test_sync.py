"""What the code declares becomes rows, and stays what people made of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from io import StringIO
from typing import Any

import pytest
from dateutil import tz as dateutil_zones
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

from django_tasks import shared_task, task_names
from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues, WorkerInfo
from django_tasks.beat import DatabaseScheduler
from django_tasks.beat.sync import drift, sync
from django_tasks.checks import check_periodic
from django_tasks.dashboard import database_now
from django_tasks.models import PeriodicTask, Worker
from django_tasks.registry import tasks
from django_tasks.schedules import BaseSchedule, clocked, cron, crontab, schedule, solar
from tests.databases import TestDatabase

pytestmark = pytest.mark.databases("sqlite")

NOOP = "tests.app.tasks.noop"


@contextmanager
def declared(**entries: Any) -> Iterator[None]:
    """Let ``BEAT_SCHEDULE`` have these; the task is ``noop`` unless they name one."""
    full = {name: {"task": NOOP, **entry} for name, entry in entries.items()}
    with override_settings(DJANGO_TASKS={**django_settings.DJANGO_TASKS, "BEAT_SCHEDULE": full}):
        yield


def kinds(**options: Any) -> dict[str, str]:
    """Sync, and return what became of which row."""
    return {change.name: change.kind for change in sync(**options)}


@pytest.mark.parametrize(
    "given",
    [
        30.0,
        timedelta(hours=3),
        0.25,
        schedule(7200, relative=True),
        crontab("*/15", 9, tz="Asia/Tokyo"),
        crontab(minute=range(0, 60, 7), day_of_week={1, 3}),
        cron("0 0 L * *"),
        solar("sunset", 52.52, 13.405),
        clocked(datetime(2030, 1, 1, tzinfo=UTC)),
    ],
    ids=str,
)
def test_each_kind_of_schedule_comes_back_from_its_row_as_it_was(database: TestDatabase, given: Any) -> None:
    with declared(sweep={"schedule": given}):
        assert kinds() == {"sweep": "created"}
        found = PeriodicTask.objects.get().schedule
        moment = datetime(2026, 5, 1, 12, 3, 4, tzinfo=UTC)
        wanted = given if isinstance(given, BaseSchedule) else schedule(given)
        assert type(found) is type(wanted)
        assert found.next_after(moment) == wanted.next_after(moment)
        assert kinds() == {}  # and so nothing is to do the next time
        assert drift(PeriodicTask.objects.get()) == {}


def test_an_entry_says_everything_that_a_row_can(database: TestDatabase) -> None:
    entry = {
        "schedule": 60, "args": [1, datetime(2026, 1, 1, tzinfo=UTC)], "kwargs": {"a": "b"}, "relative": True,
        "options": {"queue": "slow", "priority": 9, "expires": 30, "headers": {"x": 1}, "time_limit": 5},
        "description": "Sweeps.", "overlap": "skip", "missed": "all", "missed_limit": 5, "grace_seconds": 60,
        "jitter": 3, "max_runs": 7, "start_time": datetime(2026, 1, 1, tzinfo=UTC), "enabled": False,
    }  # fmt: skip
    with declared(sweep=entry):
        sync()
        row = PeriodicTask.objects.get()
        assert (row.queue, row.priority, row.expire_seconds, row.time_limit, row.jitter) == ("slow", 9, 30, 5, 3)
        assert (row.overlap, row.missed, row.missed_limit, row.grace_seconds) == ("skip", "all", 5, 60)
        assert (row.enabled, row.relative, row.origin, row.max_runs) == (False, True, "code", 7)
        assert row.start_time == datetime(2026, 1, 1, tzinfo=UTC)
        assert kinds() == {}


def test_what_people_changed_stays_and_what_they_did_not_follows_the_code(database: TestDatabase) -> None:
    """PAINS: a restart does not overwrite the admin's edits."""
    with declared(sweep={"schedule": 60, "options": {"queue": "old"}, "description": "one"}):
        sync()
    row = PeriodicTask.objects.get()
    row.queue = "theirs"
    row.save()
    with declared(sweep={"schedule": 120, "options": {"queue": "new"}, "description": "two"}):
        assert {(change.kind, change.columns) for change in sync()} == {
            ("updated", ("description", "schedule")),
            ("drifted", ("queue",)),
        }
        row.refresh_from_db()
        assert (row.queue, row.description, row.schedule) == ("theirs", "two", schedule(120))
        assert drift(row) == {"queue": ("new", "theirs")}
        assert kinds() == {"sweep": "drifted"}
    with declared(sweep={"schedule": 240, "options": {"queue": "newer"}}):
        sync()
        row.refresh_from_db()
        assert (row.queue, row.schedule) == ("theirs", schedule(240))


def test_what_people_switched_off_stays_off(database: TestDatabase) -> None:
    with declared(sweep={"schedule": 60}):
        sync()
        PeriodicTask.objects.update(enabled=False)
        sync()
    with declared(sweep={"schedule": 90}):
        sync()
        assert not PeriodicTask.objects.get().enabled


def test_what_is_gone_from_the_code_is_switched_off_and_labelled_and_comes_back(database: TestDatabase) -> None:
    with declared(sweep={"schedule": 60}, mop={"schedule": 60}):
        sync()
    with declared(mop={"schedule": 60}):
        assert kinds() == {"sweep": "gone"}
        assert kinds() == {}
        row = PeriodicTask.objects.get(name="sweep")
        assert (row.enabled, row.gone_at is None, row.next_run_at) == (False, False, None)
    with declared(sweep={"schedule": 60}, mop={"schedule": 60}):
        assert kinds() == {"sweep": "back"}
        row.refresh_from_db()
        assert (row.enabled, row.gone_at) == (True, None)
        assert row.next_run_at is not None


def test_a_row_that_people_made_is_not_taken_over(database: TestDatabase) -> None:
    row = PeriodicTask(name="sweep", task=NOOP)
    row.set_schedule(5)
    row.save()
    with declared(sweep={"schedule": 60}):
        assert kinds() == {"sweep": "taken"}
    assert PeriodicTask.objects.get().schedule == schedule(5)


def test_a_dry_run_tells_and_does_nothing(database: TestDatabase, capsys: pytest.CaptureFixture[str]) -> None:
    with declared(sweep={"schedule": 60}):
        call_command("tasks", "sync-schedules", "--dry-run")
        assert "sweep: would be created" in capsys.readouterr().out
        assert not PeriodicTask.objects.exists()
        call_command("tasks", "sync-schedules")
        assert "sweep: created" in capsys.readouterr().out
        assert PeriodicTask.objects.count() == 1
        call_command("tasks", "sync-schedules")
        assert "as declared" in capsys.readouterr().out


def test_a_task_declares_its_own_schedule(database: TestDatabase) -> None:
    @shared_task(name="tests.beat.nightly", periodic=crontab(30, 2, tz="Europe/Berlin"))
    def nightly() -> None: ...

    @shared_task(
        name="tests.beat.both",
        periodic=[{"name": "small", "schedule": 60, "args": [1]}, {"name": "large", "schedule": 3600, "args": [2]}],
    )
    def both(size: int) -> None: ...

    try:
        assert kinds() == dict.fromkeys(["tests.beat.nightly", "small", "large"], "created")
        assert PeriodicTask.objects.get(name="large").arguments() == ([2], {})
        assert PeriodicTask.objects.get(name="small").task == "tests.beat.both"
    finally:
        tasks.unregister(nightly)
        tasks.unregister(both)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"schedule": -5}, "run_every is -5; allowed: seconds above 0"),
        ({"schedule": "often"}, "schedule is 'often'; allowed"),
        ({}, "schedule is missing"),
        ({"schedule": 5, "arg": []}, "there is no key 'arg'; did you mean 'args'?"),
        ({"schedule": 5, "options": {"queues": "x"}}, "options: there is no key 'queues'; did you mean 'queue'?"),
        ({"schedule": 5, "options": {"queue": "no such"}}, "queue is 'no such'; allowed: 1 to 64 of the characters"),
        ({"schedule": 5, "args": "x"}, "args is 'x'; allowed: a list or a tuple"),
        ({"schedule": 5, "overlap": "never"}, "overlap is 'never'; allowed: 'allow', 'skip', 'queue'"),
        ({"schedule": 5, "missed_limit": 0}, "missed_limit is 0; allowed: a whole number from 1 to 1000"),
        ({"schedule": 5, "args": [object()]}, "Cannot serialize value"),
        ({"schedule": 5, "task": "tests.app.tasks.nop"}, "worker knows. Did you mean 'tests.app.tasks.noop'? If only"),
        ({"schedule": 5, "by_name": 1}, "by_name is 1; allowed: True or False"),
        ({"schedule": 5, "task": "tests.app.tasks.add", "by_name": True}, "missing a required argument: 'x'"),
        ({"schedule": 5, "task": "tests.app.tasks.add"}, "missing a required argument: 'x'"),
    ],
)
def test_a_bad_entry_is_told_by_the_checks_and_changes_nothing(
    database: TestDatabase, entry: dict[str, Any], words: str
) -> None:
    with declared(sweep=entry, good={"schedule": 60}):
        [problem] = check_periodic(None)
        assert words in str(problem.msg)
        assert "sweep" in str(problem.msg)
        assert not str(problem.msg).endswith("?.")
        assert problem.id == "django_tasks.E004"
        with pytest.raises(CommandError, match="sweep"):
            call_command("tasks", "sync-schedules")
    assert not PeriodicTask.objects.exists()


def test_a_task_that_only_workers_know_is_declared_by_its_name(database: TestDatabase) -> None:
    with declared(train={"task": "forecasts.train", "schedule": 60}):
        [problem] = check_periodic(None)
        assert "neither this process nor a running worker knows" in problem.msg
        told = task_names.declare(["forecasts.train"])
        get_broker().register(WorkerInfo("gpu@h", "h", 1, "prefork", 2, Queues(), "1", 20.0, told))
        assert check_periodic(None) == []
        call_command("tasks", "sync-schedules", stdout=StringIO())
        Worker.objects.update(stopped_at=database_now())
        assert len(check_periodic(None)) == 1
    with declared(train={"task": "forecasts.train", "schedule": 60, "by_name": True}):
        assert check_periodic(None) == []
        assert kinds() == {}, "it is nothing that a row keeps"
    assert PeriodicTask.objects.get().task == "forecasts.train"


def test_a_name_is_an_error_while_nobody_can_be_asked(database: TestDatabase) -> None:
    """As where code is built, and before the first migrate."""
    call_command("migrate", "django_tasks", "zero", verbosity=0, interactive=False)
    with declared(train={"task": "forecasts.train", "schedule": 60}):
        assert [one.id for one in check_periodic(None)] == ["django_tasks.E004"]


def test_a_name_is_an_error_where_no_database_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """That there is none is for another check to tell."""
    dummy = {**connections.settings["default"], "ENGINE": "django.db.backends.dummy"}
    monkeypatch.setitem(connections.settings, "none", dummy)
    with override_settings(
        DJANGO_TASKS={"DATABASE": "none", "BEAT_SCHEDULE": {"train": {"task": "forecasts.train", "schedule": 60}}}
    ):
        assert [one.id for one in check_periodic(None)] == ["django_tasks.E004"]


@pytest.mark.parametrize(
    ("periodic", "words"),
    [
        (lambda: 0, "run_every is 0"),
        (lambda: [60, 120], "each needs a name"),
        (lambda: {"task": "x", "schedule": 5}, "periodic says 'task'"),
        (lambda: {"by_name": True, "schedule": 5}, "periodic says 'by_name'"),
        (lambda: type("own", (schedule,), {})(5), "which no row can hold"),
    ],
)
def test_a_bad_declaration_of_a_task_is_an_error_at_once(periodic: Any, words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):

        @shared_task(name="tests.beat.bad", periodic=periodic())
        def bad() -> None: ...


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (dateutil_zones.gettz("Europe/Berlin"), "Europe/Berlin"),
        (dateutil_zones.gettz("America/Argentina/Ushuaia"), "America/Argentina/Ushuaia"),
        (dateutil_zones.UTC, "UTC"),
        (UTC, "UTC"),
        ("Asia/Tokyo", "Asia/Tokyo"),
    ],
)
def test_the_zone_of_a_schedule_is_stored_by_its_name_whoever_made_it(
    database: TestDatabase, zone: Any, name: str
) -> None:
    with declared(sweep={"schedule": crontab(30, 2, tz=zone)}):
        assert kinds() == {"sweep": "created"}
        assert str(PeriodicTask.objects.get().crontab.timezone) == name
        assert kinds() == {}


def test_a_zone_without_a_name_is_refused(database: TestDatabase) -> None:
    with (
        declared(sweep={"schedule": crontab(30, 2, tz=timezone(timedelta(hours=1)))}),
        pytest.raises(ValueError, match=r"has no name to store; allowed: a zone such as 'Europe/Berlin'"),
    ):
        sync()


def test_a_row_that_was_broken_by_hand_does_not_keep_the_others_from_the_code(database: TestDatabase) -> None:
    with declared(a={"schedule": 60}, b={"schedule": 60}):
        assert kinds() == {"a": "created", "b": "created"}
    PeriodicTask.objects.filter(name="a").update(interval=None)
    with declared(a={"schedule": 60, "description": "new"}, b={"schedule": 60, "description": "new"}):
        assert kinds() == {"a": "broken", "b": "updated"}
        scheduler = DatabaseScheduler()
        scheduler.tick()
    assert list(PeriodicTask.objects.order_by("name").values_list("description", flat=True)) == ["", "new"]
