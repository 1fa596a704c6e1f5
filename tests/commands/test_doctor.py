"""``manage.py tasks doctor``: each thing that can be wrong is found, and the cure cures it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connection
from django.test import override_settings
from django.utils import translation

from django_tasks import doctor, states, task_names
from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues, WorkerInfo
from django_tasks.models import Beat, PeriodicTask, Task, Worker
from tests.commands.conftest import Command, Said
from tests.databases import TestDatabase
from tests.rows import KNOWN, UNKNOWN, ago, saved, waiting

SQLITE = pytest.mark.databases("sqlite")


def online(queues: Queues = Queues()) -> int:  # noqa: B008 - immutable
    """Start the lease of a worker, as ``runworker`` does."""
    return get_broker().register(WorkerInfo("w1@h", "h", 1, "prefork", 2, queues, "1", 20.0))


def found(check: str) -> list[doctor.Problem]:
    """Return the problems of one kind."""
    return [problem for problem in doctor.examine() if problem.check == check]


def test_all_is_well_where_it_is(database: TestDatabase, tasks: Command) -> None:
    worker = online()
    saved([waiting(), waiting(state=states.STARTED, worker_id=worker, slot=0)])
    assert doctor.examine() == []
    said = tasks("doctor")
    assert (said.code, "All is well." in said.out) == (0, True)
    assert tasks("doctor", "--json").data == {"ok": True, "problems": []}


def test_no_worker_is_a_problem(database: TestDatabase, tasks: Command) -> None:
    Worker.objects.filter(pk=online()).update(beat_at=ago(100))
    said = tasks("doctor", "--json")
    assert said.code == 1
    assert said.data["problems"] == [
        {
            "check": "workers",
            "level": "error",
            "problem": "No worker is online: nothing runs.",
            "cure": "manage.py runworker",
            "about": "",
        }
    ]
    assert "ERROR workers: No worker is online" in tasks("doctor").out


def test_a_queue_that_no_worker_consumes_is_a_problem(database: TestDatabase) -> None:
    online(Queues(("default", "slow"), frozenset({"old"})))
    saved([waiting(queue="mail") for _ in range(2)] + [waiting(queue="slow"), waiting(queue="later", due_at=ago(-900))])
    [problem] = found("queues")
    assert problem.problem == "Queue mail has 2 tasks waiting, and no online worker consumes it."
    assert problem.cure == "manage.py runworker -Q mail"
    online(Queues((), frozenset({"mail"})))
    assert len(found("queues")) == 1
    online(Queues(("mail",)))
    assert found("queues") == []


@SQLITE
def test_workers_that_do_not_keep_up_are_a_problem(database: TestDatabase) -> None:
    online()
    saved([waiting(due_at=ago(900))])
    [problem] = found("queues")
    assert "the oldest for 15 min" in problem.problem


def test_a_name_that_no_worker_knows_is_a_problem(database: TestDatabase, tasks: Command) -> None:
    online()
    saved([waiting(name=UNKNOWN, state=states.UNROUTABLE) for _ in range(2)])
    [problem] = found("names")
    assert problem.problem.startswith(f"2 tasks named '{UNKNOWN}' are set aside: no running worker")
    cure = problem.cure.partition("manage.py tasks ")[2].split()
    assert tasks(*cure).code == 0
    assert found("names") == []


def test_a_periodic_task_of_a_name_that_nobody_knows_is_a_problem(database: TestDatabase) -> None:
    for name, columns in {"Known": {}, "Off": {"enabled": False}, "Lost": {}, "Elsewhere": {}}.items():
        task = {"Known": KNOWN, "Elsewhere": "forecasts.train"}.get(name, "forecasts.trian")
        row = PeriodicTask(name=name, task=task, **columns)
        row.set_schedule(3600)
        row.save()

    def told() -> list[doctor.Problem]:
        return [one for one in found("beats") if "neither this site" in one.problem]

    assert told() == [], "who knows what is not certain while no worker runs"
    worker = get_broker().register(
        WorkerInfo("gpu@h", "h", 1, "prefork", 2, Queues(), "1", 20.0, task_names.declare(["forecasts.train"]))
    )
    [problem] = told()
    assert (problem.level, problem.about) == ("warning", "Lost")
    assert problem.problem == (
        "Periodic task Lost names the task forecasts.trian, which neither this site nor a running worker knows: what "
        "it sends waits. Did you mean forecasts.train?"
    )
    assert problem.cure.endswith("start a worker of a release that declares it: manage.py runworker")
    Worker.objects.filter(pk=worker).update(task_names=task_names.declare(["forecasts.train", "forecasts.trian"]))
    assert told() == []
    Worker.objects.filter(pk=worker).update(task_names=None)
    assert told() == [], "a worker of an earlier release does not tell what it knows"


def test_what_waits_behind_a_name_that_no_worker_knows_is_counted(database: TestDatabase) -> None:
    """A worker leaves them where they are, once it has met one."""
    online()
    saved([waiting(name=UNKNOWN, state=states.UNROUTABLE), waiting(name=UNKNOWN), waiting()])
    [problem] = found("names")
    assert problem.problem.startswith(f"1 task named '{UNKNOWN}' is set aside, and 1 more wait: no running worker")


def test_tasks_that_a_dead_worker_keeps_are_a_problem_once_the_rescue_is_late(database: TestDatabase) -> None:
    dead = online()
    saved([waiting(state=states.STARTED, worker_id=dead, slot=0, attempt=1) for _ in range(2)])
    Worker.objects.filter(pk=dead).update(beat_at=ago(25))
    assert found("rescue") == [], "the rescue has its time"
    Worker.objects.filter(pk=dead).update(beat_at=ago(300))
    [problem] = found("rescue")
    assert problem.problem == "2 tasks held by worker w1@h, which is gone, and nobody takes them back."
    assert problem.cure == "manage.py runworker"
    online()
    [problem] = found("rescue")
    assert "although workers are online" in problem.problem
    assert get_broker().rescue(max_losses=3) == 2
    assert found("rescue") == []


@SQLITE
def test_large_arguments_are_a_problem(database: TestDatabase) -> None:
    online()
    saved([waiting(body=json.dumps([["x" * 600_000], {}])), waiting()])
    [problem] = found("payloads")
    assert "600,010 characters of arguments" in problem.problem
    assert str(Task.objects.order_by("pk").first().pk) in problem.cure  # type: ignore[union-attr]


@pytest.mark.databases("mariadb")
def test_clocks_that_differ_are_a_problem(database: TestDatabase) -> None:
    online()
    with connection.cursor() as cursor:
        cursor.execute("SET timestamp = UNIX_TIMESTAMP() + 90")
    [problem] = found("clock")
    assert "ahead of this machine's" in problem.problem
    with connection.cursor() as cursor:
        cursor.execute("SET timestamp = DEFAULT")
    assert found("clock") == []


@SQLITE
def test_a_journal_that_blocks_readers_is_a_problem(database: TestDatabase) -> None:
    online()
    get_broker().close()
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode = DELETE")
    [problem] = found("sqlite")
    assert "journal mode delete" in problem.problem
    get_broker().now()
    assert found("sqlite") == []


@SQLITE
def test_tables_that_are_not_up_to_date_are_a_problem(database: TestDatabase, tasks: Command) -> None:
    call_command("migrate", "django_tasks", "zero", verbosity=0)
    said = tasks("doctor", "--json")
    [problem] = said.data["problems"]
    assert (problem["check"], problem["cure"]) == ("migrations", "manage.py migrate django_tasks")
    for words in (["list"], ["stats"], ["show", "x"]):
        failed = tasks(*words)
        assert failed.code == 1
        assert "See: manage.py tasks doctor" in failed.err
    call_command("migrate", verbosity=0)
    assert found("migrations") == []


@pytest.mark.databases("postgresql", private=True)
def test_a_database_that_cannot_be_reached_is_a_problem(
    database: TestDatabase, tasks: Command, manage: Callable[..., Said]
) -> None:
    assert database.server is not None
    database.server.kill()
    connection.close()
    [problem] = doctor.examine()
    assert (problem.check, problem.level) == ("database", "error")
    said = manage("tasks", "doctor", "--json")
    assert said.code == 1
    assert [each["check"] for each in said.data["problems"]] == ["database"]
    listed = manage("tasks", "list")
    assert listed.code == 1
    assert "Traceback" not in listed.err
    connection.close()


@SQLITE
def test_wrong_settings_are_a_problem(database: TestDatabase, manage: Callable[..., Said], settings: Any) -> None:
    for wrong in ({"TASK_SERIALIZER": "nosuch"}, {"TASK_DEFAULT_QUEUE": "no such"}):
        said = manage("tasks", "doctor", "--json", **wrong)
        problems = [problem["problem"] for problem in said.data["problems"] if problem["check"] == "settings"]
        assert said.code == 1
        assert "such'" in problems[0]
    listed = manage("tasks", "list", TASK_DEFAULT_QUEUE="no such")
    assert (listed.code, "Traceback" in listed.err) == (1, False)
    settings.DJANGO_TASKS = {"TASK_DEFAULT_QUEUE": "no queue", "TASK_QUEUE": "x"}
    assert ["TASK_QUEUE" in problem.problem for problem in doctor.examine()] == [True, False]


# System checks that the doctor repeats --------------------------------------------------------------------------------


def ids(settings: Any, **given: Any) -> list[str]:
    """Return the ids of what ``check --deploy`` finds with these settings."""
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, **given}
    return [problem.problem.rpartition("(")[2].rstrip(")") for problem in doctor._settings()]


@SQLITE
def test_settings_that_harm_in_production_are_found(database: TestDatabase, settings: Any) -> None:
    assert ids(settings) == []
    assert ids(settings, TASK_ALWAYS_EAGER=True) == ["django_tasks.W003"]
    settings.DEBUG = True
    assert ids(settings) == []
    assert ids(settings, RESULT_EXPIRES={"SUCCESS": None}) == ["django_tasks.W004"]
    assert ids(settings, RESULT_EXPIRES=timedelta(days=1)) == []
    options = connection.settings_dict["OPTIONS"]
    connection.settings_dict["OPTIONS"] = {}
    assert ids(settings) == ["django_tasks.W005"]
    connection.settings_dict["OPTIONS"] = {**options, "timeout": 1}
    assert ids(settings) == ["django_tasks.W005"]
    connection.settings_dict["OPTIONS"] = options


@SQLITE
def test_a_shell_is_told_in_english_whatever_the_language(
    database: TestDatabase, tasks: Command, settings: Any
) -> None:
    """So that what people search for is found."""
    saved([waiting(body=json.dumps([["x" * 600_000], {}])), waiting(queue="mail")])
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "RESULT_EXPIRES": {"SUCCESS": None}}
    english = tasks("doctor", "--json").data, tasks("doctor").out
    assert "600,010 characters of arguments" in english[1]
    with override_settings(LANGUAGE_CODE="de"), translation.override("de"):
        assert (tasks("doctor", "--json").data, tasks("doctor").out) == english
        assert "600.010 Zeichen" in str(doctor.examine())
        [settled] = [one for one in checks.run_checks(include_deployment_checks=True) if one.id == "django_tasks.W004"]
        assert "keeps results for ever" in str(settled)


@SQLITE
def test_an_ordinary_check_does_not_trouble_developers(manage: Callable[..., Said]) -> None:
    said = manage("check", TASK_ALWAYS_EAGER=True)
    assert "W003" not in said.err + said.out
    assert "W003" in manage("check", "--deploy", TASK_ALWAYS_EAGER=True).err


@SQLITE
def test_periodic_tasks_without_a_beat_are_a_problem(database: TestDatabase) -> None:
    online()
    assert found("beats") == []
    row = PeriodicTask(name="sweep", task="tests.app.tasks.noop")
    row.set_schedule(3600)
    row.save()
    [problem] = found("beats")
    assert problem.problem == "No beat is online: 1 periodic task will not run."
    about = {"name": "beat@h", "hostname": "h", "pid": 1, "version": "1", "started_at": ago(9)}
    beat = Beat.objects.create(**about, seen_at=ago(300))
    [problem] = found("beats")
    assert re.search(r"will not run\. beat@h was last seen 3\d\d s ago: it stands still", problem.problem)
    Beat.objects.filter(pk=beat.pk).update(seen_at=ago(1))
    assert found("beats") == []
    PeriodicTask.objects.update(next_run_at=ago(120))
    [problem] = found("beats")
    assert problem.problem == "1 periodic task is overdue although a beat is online."
    PeriodicTask.objects.update(next_run_at=None, last_error="ValueError: args is no JSON")
    [shy] = [problem for problem in doctor.examine(full=False) if problem.check == "beats"]
    assert shy.problem == "Periodic task sweep cannot be sent: ValueError"
    [problem] = found("beats")
    assert "Periodic task sweep cannot be sent: ValueError: args is no JSON" in problem.problem
