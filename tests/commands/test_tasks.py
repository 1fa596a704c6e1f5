"""``manage.py tasks``: every verb, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_tasks import operations, states
from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues, WorkerInfo
from django_tasks.models import Task, TaskResult
from tests.app import tasks as jobs
from tests.commands.conftest import Command, Said
from tests.databases import TestDatabase
from tests.rows import UNKNOWN, ago, failure, finished, saved, waiting

SQLITE = pytest.mark.databases("sqlite")


def online(queues: Queues = Queues()) -> int:  # noqa: B008 - immutable
    """Start the lease of a worker, as ``runworker`` does."""
    return get_broker().register(WorkerInfo("w1@h", "h", 1, "prefork", 2, queues, "1", 20.0))


def ids_of(said: Said) -> list[str]:
    return [task["id"] for task in said.data["tasks"]]


# list, show -----------------------------------------------------------------------------------------------------------


def test_list_shows_what_is_to_do_then_what_was_done_last(tasks: Command) -> None:
    done = saved(finished(seconds_ago=number) for number in (30, 10, 20))
    [todo] = saved([waiting()])
    said = tasks("list", "--json")
    assert ids_of(said) == [str(row.pk) for row in (todo, done[1], done[2], done[0])]
    assert said.data["more"] is False
    assert tasks("list", "--json", "--limit", 2).data["more"] is True
    assert list(said.data["tasks"][0]) == [
        "id", "state", "queue", "name", "priority", "attempt", "retries", "created_at", "due_at", "started_at",
        "finished_at", "runtime", "worker", "exception",
    ]  # fmt: skip


def test_list_is_narrowed_by_state_queue_and_name(tasks: Command) -> None:
    [bad] = saved([failure(queue="mail", name=UNKNOWN)])
    saved([finished(), finished(queue="mail")])
    [todo] = saved([waiting(queue="mail")])
    assert ids_of(tasks("list", "--json", "--state", "failure")) == [str(bad.pk)]
    assert ids_of(tasks("list", "--json", "--state", "PENDING")) == [str(todo.pk)]
    assert ids_of(tasks("list", "--json", "--name", UNKNOWN)) == [str(bad.pk)]
    assert len(ids_of(tasks("list", "--json", "--queue", "mail"))) == 3
    assert "gone.tasks.forgotten" in tasks("list", "--state", "failure").out


@SQLITE
def test_show_tells_everything_and_hides_secrets(tasks: Command) -> None:
    [row] = saved([failure(body='[[1],{"password":"canary"}]', name=UNKNOWN)])
    [copy] = operations.retry([str(row.pk)]).copies.values()
    data = tasks("show", row.pk, "--json").data
    assert data["arguments"] == [{"name": "args[0]", "text": "1"}, {"name": "password", "text": "********"}]
    assert data["retried_as"] == [{"id": copy, "state": "PENDING", "finished": False}]
    assert (data["state"], data["exception"]) == ("FAILURE", "ValueError: boom")
    assert "Traceback" in data["traceback"]
    text = tasks("show", row.pk).out
    assert "ValueError: boom" in text
    assert "canary" not in text
    assert tasks("show", copy, "--json").data["retry_of"] == str(row.pk)
    assert "retry_of" in tasks("show", copy).out


@SQLITE
def test_an_id_that_nobody_knows_is_a_problem(tasks: Command) -> None:
    said = tasks("show", "nothing")
    assert (said.code, "Nobody knows a task 'nothing'" in said.err) == (1, True)


@SQLITE
def test_what_is_stored_cannot_steer_the_terminal(tasks: Command) -> None:
    """S7: no escape sequence, no line of its own."""
    evil = "x\x1b[2Jy\r\n\u2028z\u202e"
    [row] = saved(
        [failure(name=evil, queue=evil, worker=evil, traceback=evil, exception=evil, body=json.dumps([[evil], {}]))]
    )
    for said in (tasks("list"), tasks("show", row.pk)):
        assert "\\x1b[2J" in said.out
        assert not {"\x1b", "\r", "\u2028", "\u202e"} & set(said.out)
    assert len(tasks("list").out.splitlines()) == 2


# enqueue --------------------------------------------------------------------------------------------------------------


@SQLITE
def test_enqueue_sends_a_task_with_its_options(tasks: Command) -> None:
    words = ["--args", "[1]", "--kwargs", '{"y": 2}', "--queue", "mail", "--countdown", "60", "--priority", "-5"]
    data = tasks("enqueue", jobs.add.name, *words, "--json").data
    row = Task.objects.get()
    assert data == {"id": str(row.pk), "name": jobs.add.name, "state": "PENDING"}
    assert (row.body, row.queue, row.priority) == ('[[1],{"y":2}]', "mail", -5)
    assert row.due_at - row.created_at == timedelta(seconds=60)
    assert tasks("enqueue", jobs.noop.name).out.strip() in {str(pk) for pk in Task.objects.values_list("pk", flat=True)}


@SQLITE
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["tests.app.tasks.ad"], "Did you mean 'tests.app.tasks.add'?"),
        ([jobs.add.name], "missing a required argument: 'x'"),
        ([jobs.add.name, "--args", "{}"], "allowed: a list"),
        ([jobs.add.name, "--args", "[1"], "is no JSON"),
        ([jobs.add.name, "--kwargs", "[]"], "allowed: an object"),
        ([jobs.add.name, "--args", "[1]", "--queue", "no queue"], "allowed: 1 to 64"),
        ([jobs.add.name, "--args", "[1]", "--priority", "101"], "from -100 to 100"),
        ([jobs.add.name, "--args", "[1]", "--countdown", "nan"], "countdown"),
    ],
)
def test_enqueue_says_what_is_wrong_with_a_call(tasks: Command, words: list[str], reason: str) -> None:
    said = tasks("enqueue", *words)
    assert said.code != 0
    assert reason in said.err
    assert not Task.objects.exists()


@SQLITE
def test_enqueue_sends_a_foreign_task_only_when_told_to(tasks: Command) -> None:
    assert tasks("enqueue", UNKNOWN).code == 2
    assert tasks("enqueue", UNKNOWN, "--unregistered").code == 0
    assert Task.objects.get().name == UNKNOWN


# retry ----------------------------------------------------------------------------------------------------------------


def test_retry_runs_all_failures_again_once(tasks: Command) -> None:
    """Pressed twice, nothing runs twice: neither what is queued nor what has been run again since."""
    rows = saved(failure(body=f"[[{number}],{{}}]", seconds_ago=100 + number) for number in range(3))
    saved([failure(name=UNKNOWN, seconds_ago=7200), finished()])
    assert tasks("retry", "--failed", "--dry-run", "--json").data == {"chosen": 4, "dry_run": True}
    assert not Task.objects.exists()
    assert "3 would be run again" in tasks("retry", "--failed", "--since", "1h", "--dry-run").out
    assert "1 would be run again" in tasks("retry", "--failed", "--name", UNKNOWN, "--dry-run").out
    data = tasks("retry", "--failed", "--since", "1h", "--json").data
    assert (data["chosen"], set(data["copies"])) == (3, {str(row.pk) for row in rows})
    assert set(Task.objects.values_list("body", flat=True)) == {row.body for row in rows}
    again = tasks("retry", "--failed", "--since", "1h", "--json").data
    assert (again["copies"], len(again["queued"])) == ({}, 3)
    for copy in Task.objects.all():  # all of them end well, but one
        state = states.FAILURE if copy.body == rows[0].body else states.SUCCESS
        saved([finished(state, id=copy.pk, options=copy.options, body=copy.body, seconds_ago=0)])
        copy.delete()
    left = tasks("retry", "--failed", "--since", "1h", "--json").data
    assert list(left["copies"]) == [str(TaskResult.objects.get(state="FAILURE", options__isnull=False).pk)]


@SQLITE
def test_retry_takes_any_finished_task_by_its_id(tasks: Command) -> None:
    [done], [todo] = saved([finished()]), saved([waiting()])
    said = tasks("retry", done.pk, todo.pk, "nothing", "--json")
    assert said.code == 1
    assert list(said.data["copies"]) == [str(done.pk)]
    assert (said.data["unfinished"], said.data["unknown"]) == ([str(todo.pk)], ["nothing"])
    assert "1 left alone: a copy is not done yet." in tasks("retry", done.pk).out


@SQLITE
@pytest.mark.parametrize(
    "words", [[], ["--failed", "x"], ["x", "--name", "y"], ["x", "--since", "1h"], ["--failed", "--since", "soon"]]
)
def test_retry_must_be_told_what(tasks: Command, words: list[str]) -> None:
    saved([failure()])
    assert tasks("retry", *words).code != 0
    assert not Task.objects.exists()


@SQLITE
def test_many_failures_are_run_again_in_batches(tasks: Command) -> None:
    saved(failure(seconds_ago=number / 100) for number in range(1_050))
    assert "1,050 run again" in tasks("retry", "--failed").out
    assert Task.objects.count() == 1_050


# revoke, purge, prune -------------------------------------------------------------------------------------------------


def test_revoke_cancels_by_id(tasks: Command) -> None:
    [todo, own, running] = saved(
        [waiting(), waiting(custom_id=None), waiting(state=states.STARTED, worker_id=1, slot=0, attempt=1)]
    )
    [done] = saved([finished()])
    said = tasks("revoke", todo.pk, own.pk.hex, running.pk, done.pk, "nothing", "--json")
    assert said.code == 1
    assert said.data == {
        "cancelled": [str(todo.pk), own.pk.hex],
        "asked": [str(running.pk)],
        "finished": [str(done.pk)],
        "unknown": ["nothing"],
    }
    assert TaskResult.objects.filter(state="REVOKED").count() == 2
    assert tasks("revoke").code == 2


@SQLITE
def test_revoke_cancels_all_that_no_worker_knows(tasks: Command) -> None:
    saved([waiting(name=UNKNOWN, state=states.UNROUTABLE) for _ in range(3)] + [waiting(name=UNKNOWN)])
    assert "3 cancelled" in tasks("revoke", "--unroutable", UNKNOWN).out
    assert Task.objects.count() == 1


def test_purge_counts_first_and_deletes_only_what_waits_there(tasks: Command) -> None:
    saved([waiting(queue="mail") for _ in range(3)] + [waiting(queue="mail", due_at=ago(-900), state=states.RETRY)])
    saved([waiting(queue="mail", name=UNKNOWN, state=states.UNROUTABLE)])
    saved([waiting(queue="mail", state=states.LIMITED, limit_key="")])
    saved([waiting(), waiting(queue="mail", state=states.STARTED, worker_id=1, slot=0)])
    saved([waiting(queue="mail", state=states.WAITING)])  # belongs to its workflow
    asked = tasks("purge", "-Q", "mail", "--json")
    assert (asked.code, asked.data) == (2, {"queues": ["mail"], "waiting": 6, "deleted": 0})
    assert "add --yes" in asked.err
    assert tasks("purge", "-Q", "mail", "--yes", "--json").data == {"queues": ["mail"], "waiting": 0, "deleted": 6}
    assert sorted(Task.objects.values_list("state", flat=True)) == ["PENDING", "STARTED", "WAITING"]
    assert tasks("purge", "--yes").code != 0, "no queue is not every queue"


def test_prune_deletes_by_state_and_age(tasks: Command) -> None:
    day = 86_400
    saved(finished(state, age * day) for state in ("SUCCESS", "FAILURE") for age in (1, 10, 40))
    assert "3 results deleted" in tasks("prune").out
    assert tasks("prune", "--state", "failure", "--older-than", "2d", "--json").data == {"deleted": 1}
    assert sorted(TaskResult.objects.values_list("state", flat=True)) == ["FAILURE", "SUCCESS"]
    assert tasks("prune", "--older-than", "3x").code != 0
    assert tasks("prune", "--state", "PENDING").code != 0


# stats ----------------------------------------------------------------------------------------------------------------


def test_stats_tells_queues_workers_and_what_finished(tasks: Command) -> None:
    saved([waiting(due_at=ago(120)), waiting(), waiting(queue="mail", due_at=ago(-900))])
    saved([waiting(state=states.STARTED, worker_id=1, slot=0), waiting(name=UNKNOWN, state=states.UNROUTABLE)])
    saved([finished(), finished(), failure(), failure(seconds_ago=5_000)])
    online(Queues(("default",)))
    data = tasks("stats", "--json").data
    default, mail = data["queues"]
    assert default.pop("oldest_wait") >= 119
    assert default == {
        "name": "default",
        "waiting": 2,
        "scheduled": 0,
        "running": 1,
        "unroutable": 1,
        "workers": 1,
        "limited": 0,
    }
    assert mail == {
        "name": "mail", "waiting": 0, "scheduled": 1, "running": 0, "unroutable": 0, "oldest_wait": None, "workers": 0,
        "limited": 0,
    }  # fmt: skip
    assert (data["finished"]["SUCCESS"], data["finished"]["FAILURE"], data["counted_to"]) == (2, 1, 10_000)
    [worker] = data["workers"]
    assert (worker["name"], worker["status"], worker["queues"]) == ("w1@h", "online", "default")
    text = tasks("stats").out
    assert "w1@h" in text
    assert "mail" in text


# As a command ---------------------------------------------------------------------------------------------------------


def test_a_failure_is_run_again_by_a_worker_with_its_own_arguments(
    database: TestDatabase, manage: Callable[..., Said], tasks: Command
) -> None:
    """E2: from the failure to the copy's end, through real processes."""
    result = jobs.fail.delay("größer")
    assert manage("runworker", "--burst", "-c", 1, "-l", "ERROR").code == 0
    [copy] = tasks("retry", "--failed", "--json").data["copies"].values()
    assert manage("runworker", "--burst", "-c", 1, "-l", "ERROR").code == 0
    original, again = TaskResult.objects.get(pk=result.id), TaskResult.objects.get(pk=copy)
    assert original.exception == again.exception == "ValueError: größer"
    assert (again.body, again.attempt) == (original.body, 1)


@SQLITE
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["tasks"], 2),
        (["tasks", "dance"], 2),
        (["tasks", "list"], 0),
        (["tasks", "list", "--state", "BOGUS"], 2),
        (["tasks", "list", "--limit", "0"], 2),
        (["tasks", "show", "nothing"], 1),
        (["tasks", "enqueue", "nothing"], 2),
        (["tasks", "doctor"], 1),
    ],
)
def test_the_exit_code_tells_a_problem_from_wrong_usage(
    manage: Callable[..., Any], words: list[str], code: int
) -> None:
    said = manage(*words)
    assert said.code == code, said
    assert "Traceback" not in said.err
