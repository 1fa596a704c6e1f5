"""Changing when and where waiting tasks run, and sending tasks once more, from the admin."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_tasks import shared_task, states
from django_tasks.models import Edge, Task, TaskResult
from tests.admin.pages import page_url, read, text_of
from tests.admin.test_actions import large_arguments, order
from tests.databases import TestDatabase
from tests.rows import ago, failure, finished, saved, waiting


@shared_task(name="tests.admin.pay", bind=True)
def pay(self: Any, amount: int, password: str = "", *, note: str = "") -> None:
    """A task with a secret."""


def test_what_is_due_later_runs_now(database: TestDatabase, root: Client) -> None:
    later, due, running = saved(
        [waiting(due_at=ago(-900)), waiting(), waiting(state=states.STARTED, worker_id=1, slot=0, due_at=ago(-5))]
    )
    said = order(root, later, "run_now", due, running, post="yes")
    assert "Made due now: 1." in said
    assert "because it is due already: 1." in said
    assert "because it runs: 1." in said
    assert Task.objects.get(pk=later.pk).due_at <= datetime.now(UTC)


def test_what_waits_is_put_off(database: TestDatabase, root: Client) -> None:
    todo, blocked = saved([waiting(), waiting(state=states.WAITING)])
    assert "Not before" in order(root, todo, "postpone")
    assert "This field is required" in order(root, todo, "postpone", post="yes")
    said = order(root, todo, "postpone", blocked, post="yes", eta_0="2099-03-01", eta_1="04:05:06")
    assert "depends on other tasks of its workflow: 1." in said
    assert Task.objects.get(pk=todo.pk).due_at == datetime(2099, 3, 1, 4, 5, 6, tzinfo=UTC)
    assert Task.objects.get(pk=blocked.pk).due_at == blocked.due_at


def test_what_waits_gets_another_queue_and_priority(database: TestDatabase, root: Client) -> None:
    todo, aside = saved([waiting(), waiting(state=states.UNROUTABLE)])
    order(root, todo, "move", aside, post="yes", queue="mail", priority="7")
    assert set(Task.objects.values_list("queue", "priority")) == {("mail", 7)}
    order(root, todo, "move", post="yes", priority="0")
    assert set(Task.objects.values_list("queue", "priority")) == {("mail", 0), ("mail", 7)}
    assert LogEntry.objects.filter(object_id=str(todo.pk)).latest("pk").change_message == "Given the priority 0"


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Name a queue, a priority, or both."),
        ({"queue": "a b"}, "queue"),
        ({"priority": "101"}, "less than or equal to 100"),
        ({"priority": "x"}, "whole number"),
    ],
)
def test_a_queue_or_priority_that_cannot_be_is_refused(root: Client, fields: dict[str, str], said: str) -> None:
    [todo] = saved([waiting()])
    assert said in order(root, todo, "move", post="yes", **fields)
    assert (Task.objects.get().queue, Task.objects.get().priority) == (todo.queue, todo.priority)


@pytest.mark.databases("sqlite")
def test_a_running_task_is_ended_by_the_chosen_signal(root: Client) -> None:
    [running] = saved([waiting(state=states.STARTED, worker_id=1, slot=0, attempt=1)])
    assert "Select a valid choice" in order(root, running, "terminate", post="yes", signal="SIGNAL")
    assert "To be ended by SIGKILL: 1." in order(root, running, "terminate", post="yes", signal="SIGKILL")
    assert Task.objects.get().terminate == "SIGKILL"


@pytest.mark.databases("sqlite")
def test_a_duplicate_has_the_same_call_and_no_past(root: Client) -> None:
    about = {"root_id": "01930000-0000-7000-8000-000000000001", "parent_id": "01930000-0000-7000-8000-000000000002"}
    options = json.dumps({"headers": {"a": 1}, "retry_of": str(ago(0)), "group": ["g", 0], "tags": ["t"]})
    [row] = saved([failure(queue="mail", priority=3, body='[[1.50],{"b": 2}]', options=options, **about)])
    order(root, row, "duplicate", post="yes")
    order(root, row, "duplicate", post="yes")
    assert Task.objects.count() == 2
    copy = Task.objects.order_by("pk")[0]
    assert (copy.body, copy.queue, copy.priority) == (row.body, "mail", 3)
    assert (copy.root_id, copy.parent_id) == (None, None)
    assert json.loads(copy.options or "") == {"headers": {"a": 1}, "tags": ["t"]}
    order(root, copy, "duplicate_task", post="yes")
    assert Task.objects.count() == 3


@pytest.mark.databases("sqlite")
def test_a_result_that_another_task_takes_in_is_not_deleted(root: Client) -> None:
    needed, free = saved([finished(), finished()])
    [after] = saved([waiting(state=states.WAITING)])
    Edge.objects.create(before_id=needed.pk, after_id=after.pk, kind="after", outcome="ok")
    assert "another task still needs its result: 1." in order(root, needed, "delete", free, post="yes")
    assert [row.pk for row in TaskResult.objects.all()] == [needed.pk]


@pytest.mark.databases("sqlite")
def test_a_button_of_a_page_leads_back_to_it(root: Client) -> None:
    [todo] = saved([waiting(due_at=ago(-900))])
    url = "/admin/django_tasks/task/"
    ask = {"action": "run_now", "_selected_action": str(todo.pk), "from": "page"}
    assert 'name="from" value="page"' in root.post(url, ask).content.decode()
    answer = root.post(url, {**ask, "post": "yes"})
    assert answer.headers["Location"] == page_url("task", todo.pk)
    assert "Made due now" in text_of(read(root, page_url("task", todo.pk))), "its history"


# With other arguments -------------------------------------------------------------------------------------------------


def edit_url(row: Any) -> str:
    return page_url(row._meta.model_name, row.pk).replace("change", "edit")


def shown_form(client: Client, row: Any) -> dict[str, str]:
    """Return what the form of a row shows, as a browser would send it back."""
    form = client.get(edit_url(row)).context["form"]
    return {name: form[name].value().replace("\n", "\r\n") for name in ("args", "kwargs")}


@pytest.mark.databases("sqlite")
def test_a_failed_task_runs_again_with_other_arguments(root: Client) -> None:
    [row] = saved([failure(name=pay.name, body='[[1],{"note":"x"}]', queue="mail")])
    answer = root.post(edit_url(row), {"args": "[2]", "kwargs": '{"note": "y"}'})
    assert answer.headers["Location"] == page_url("taskresult", row.pk)
    copy = Task.objects.get()
    assert (json.loads(copy.body), copy.queue) == ([[2], {"note": "y"}], "mail")
    assert json.loads(copy.options or "")["retry_of"] == str(row.pk)
    assert LogEntry.objects.get().change_message == f"Sent with edited arguments as {copy.pk}"
    root.post(edit_url(row), {"args": "[3]", "kwargs": "{}"})
    assert Task.objects.count() == 1, "a copy is not done yet"


@pytest.mark.databases("sqlite")
def test_what_is_not_edited_is_sent_to_the_byte(root: Client) -> None:
    """E2: a megabyte of JSON, spelled as no encoder of ours would."""
    body = large_arguments()
    [row] = saved([failure(body=body, name="tests.unknown")])
    root.post(edit_url(row), shown_form(root, row))
    assert Task.objects.get().body == body


@pytest.mark.databases("sqlite")
def test_hidden_values_are_sent_as_they_were_stored(root: Client) -> None:
    body = '[[1,"canary-1"],{"note":{"api_key":"canary-2","deep":[{"token":"canary-3"}]}}]'
    [row] = saved([failure(name=pay.name, body=body)])
    form = shown_form(root, row)
    assert "canary" not in str(form)
    form["args"] = form["args"].replace("1", "9", 1)
    root.post(edit_url(row), form)
    assert json.loads(Task.objects.get().body) == json.loads(body.replace("[[1", "[[9"))


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ("[1,", "{}", "line 1 column 4"),
        ("{}", "{}", "This has to be a list"),
        ("[1]", "[]", "This has to be an object"),
        ("[]", "{}", "missing a required argument"),
        ("[1]", '{"colour": 1}', "unexpected keyword argument"),
        ('[{"__type__": "moon", "__value__": 1}]', "{}", "unknown type"),
        ("[" * 5_000 + "]" * 5_000, "{}", ""),
    ],
)
def test_arguments_that_the_task_would_not_take_are_refused(root: Client, args: str, kwargs: str, said: str) -> None:
    [row] = saved([failure(name=pay.name)])
    answer = root.post(edit_url(row), {"args": args, "kwargs": kwargs})
    assert answer.status_code == 200
    assert said in text_of(answer.content.decode())
    assert not Task.objects.exists()


@pytest.mark.databases("sqlite")
def test_arguments_that_their_sender_hides_are_not_edited(root: Client) -> None:
    [row] = saved([failure(body='[["canary-1"],{}]', options=json.dumps({"argsrepr": "(…)"}))])
    page = read(root, edit_url(row))
    assert "does not want its arguments to be shown" in page
    assert "canary" not in page
    root.post(edit_url(row), {"args": "[1, 2]", "kwargs": "{}"})
    assert not Task.objects.exists()
