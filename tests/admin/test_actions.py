"""Running again, cancelling and deleting from the admin."""

from __future__ import annotations

import html
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.test import Client, override_settings

from django_tasks import operations, states
from django_tasks.backends import close_all
from django_tasks.models import Task, TaskResult
from django_tasks.serialization import dumps
from django_tasks.task_admin import acting
from tests.admin.pages import ids_in, list_url, page_url, read, text_of
from tests.databases import DatabaseMaker, TestDatabase, attached
from tests.rows import UNKNOWN, ago, failure, finished, saved, waiting


def order(client: Client, row: Any, action: str, *more: Any, **fields: str) -> str:
    """Post an action for some rows of one kind, and return what the page says then."""
    chosen = {"action": action, "_selected_action": [str(one.pk) for one in (row, *more)], **fields}
    response = client.post(list_url(row._meta.model_name), chosen, follow=True)
    assert response.status_code == 200
    return " ".join(text_of(response.content.decode()).split())


def large_arguments() -> str:
    """Return a megabyte of nested arguments, spelled as no encoder of ours would."""
    draw = random.Random(7)
    word = "".join(chr(draw.choice([34, 92, 233, 8364, 128512, *range(97, 120)])) for _ in range(2_000))
    data = {f"key {number}": [word, {"n": 1.10, "big": 10**40, "none": None}] for number in range(270)}
    return json.dumps([[data, 1e5], {"é": "\u20ac"}], ensure_ascii=True, indent=1)


def test_a_copy_has_the_very_same_arguments_and_headers(database: TestDatabase, root: Client) -> None:
    """E2: what is run again is what was stored, to the byte; the original stays as it was."""
    body = large_arguments()
    assert len(body) > 1_000_000
    options = '{"headers": {"x": 1.10, "k": "\\u00e9"}, "shadow": "s", "eta": true}'
    [row] = saved(
        [
            failure(
                body=body,
                options=options,
                queue="mail",
                priority=7,
                name=UNKNOWN,
                root_id="01930000-0000-7000-8000-000000000001",
                parent_id="01930000-0000-7000-8000-000000000002",
                expires_at=ago(-60),
                created_at=ago(60),
            )
        ]
    )
    before = TaskResult.objects.values().get()
    assert "Run selected tasks again" in order(root, row, "retry")
    assert Task.objects.count() == 0, "asking does nothing"
    said = order(root, row, "retry", post="yes")
    assert "Run again as: 1." in said
    copy = Task.objects.get()
    assert copy.pk != row.pk
    assert copy.pk.version == 7
    assert (copy.body, copy.encoding) == (body, "")
    assert (copy.name, copy.queue, copy.priority, copy.state) == (UNKNOWN, "mail", 7, states.PENDING)
    assert (copy.attempt, copy.retries, copy.history) == (0, 0, None)
    assert (str(copy.root_id)[-1], str(copy.parent_id)[-1]) == ("1", "2")
    assert json.loads(copy.options or "") == {
        "retry_of": str(row.pk), "headers": {"x": 1.1, "k": "é"}, "shadow": "s",
    }  # fmt: skip
    assert copy.due_at <= ago(-1)
    assert copy.expires_at is not None
    assert abs((copy.expires_at - copy.created_at).total_seconds() - 120) < 1, "its life is counted anew"
    assert TaskResult.objects.values().get() == before


@pytest.mark.databases("sqlite")
def test_stored_arguments_are_copied_without_being_read(root: Client) -> None:
    """What this process could not even decode is sent again as it is."""
    encoding, body = dumps([[1], {}], "msgpack", "gzip")
    rows = saved([failure(encoding=encoding, body=body), failure(encoding="foreign+thing", body="\u20ac not ours")])
    order(root, rows[0], "retry", rows[1], post="yes")
    assert set(Task.objects.values_list("encoding", "body")) == {(row.encoding, row.body) for row in rows}


@pytest.mark.databases("sqlite")
def test_the_question_names_what_is_chosen_and_how_many(root: Client) -> None:
    rows = saved(failure(name=f"tests.app.tasks.t{number}") for number in range(3))
    said = order(root, rows[0], "retry", rows[2])
    assert "2 rows." in said
    assert "tests.app.tasks.t2" in said
    assert "tests.app.tasks.t1" not in said


@pytest.mark.databases("sqlite")
def test_a_task_of_which_a_copy_is_not_done_is_left_alone(root: Client) -> None:
    """E2: pressing twice runs once."""
    rows = saved([failure(), failure()])
    order(root, rows[0], "retry", post="yes")
    said = order(root, rows[0], "retry", rows[1], post="yes")
    assert "Run again as: 1." in said
    assert "Left alone, because a copy of it is not done yet: 1." in said
    assert Task.objects.count() == 2


@pytest.mark.databases("sqlite")
def test_who_ran_again_and_cancelled_and_deleted_is_in_the_history(root: Client) -> None:
    """J3: every change leaves a line."""
    [bad], [todo] = saved([failure()]), saved([waiting()])
    order(root, bad, "retry", post="yes")
    [copy] = Task.objects.exclude(pk=todo.pk)
    order(root, todo, "cancel", post="yes")
    order(root, bad, "delete", post="yes")
    lines = list(LogEntry.objects.order_by("pk").values_list("object_id", "action_flag", "change_message"))
    assert lines[0] == (str(bad.pk), CHANGE, f"Run again as {copy.pk}")
    assert lines[1] == (str(todo.pk), CHANGE, "Cancelled")
    assert lines[2][:2] == (str(bad.pk), DELETION)
    [cancelled] = TaskResult.objects.all()
    assert "Cancelled" in read(root, page_url("taskresult", cancelled.pk)), "what was done to it before it was done"
    assert LogEntry.objects.count() == 3


def test_what_waits_is_cancelled_and_what_runs_is_asked_to_stop(database: TestDatabase, root: Client) -> None:
    """R12: a revoke is a fact in the row."""
    todo, later, running = saved(
        [waiting(), waiting(due_at=ago(-900)), waiting(state=states.STARTED, worker_id=1, slot=0, attempt=1)]
    )
    assert "asked to stop" in order(root, todo, "cancel")
    assert Task.objects.count() == 3
    said = order(root, todo, "cancel", later, running, post="yes")
    assert "Cancelled: 2." in said
    assert "Asked to stop: 1." in said
    assert set(TaskResult.objects.values_list("pk", "state")) == {(row.pk, "REVOKED") for row in (todo, later)}
    assert Task.objects.get().revoked_at is not None


@pytest.mark.databases("sqlite")
def test_only_the_chosen_results_are_deleted(root: Client) -> None:
    chosen, left = saved([finished(), finished()])
    assert "gone for good" in order(root, chosen, "delete")
    order(root, chosen, "delete", post="yes")
    assert list(TaskResult.objects.all()) == [left]
    order(root, left, "delete", post="yes")
    assert not TaskResult.objects.exists()


@pytest.mark.databases("sqlite")
def test_an_action_takes_so_many_chosen_rows_at_most(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """S9: one click cannot delete, or run again, millions at once."""
    monkeypatch.setattr(acting, "MOST", 2)
    rows = saved(finished() for _ in range(3))
    for action in ("retry", "delete"):
        assert "2 chosen rows at most" in order(root, *rows[:1], action, *rows[1:], post="yes")
    assert (TaskResult.objects.count(), Task.objects.count()) == (3, 0)


@pytest.mark.databases("sqlite")
def test_the_buttons_of_a_page_lead_to_the_same_question(root: Client) -> None:
    [row] = saved([failure()])
    page = read(root, page_url("taskresult", row.pk))
    form = page.partition(f'<form method="post" action="{list_url("taskresult")}" id="djt-orders">')[2]
    assert f'name="_selected_action" value="{row.pk}"' in form.partition("</form>")[0]
    assert '<button type="submit" form="djt-orders" name="action" value="retry"' in page


@pytest.mark.databases("sqlite")
def test_a_filter_of_the_list_does_not_hide_rows_from_an_action(root: Client) -> None:
    rows = saved(failure(seconds_ago=number) for number in range(120))
    url = f"{list_url('taskresult')}?older={rows[100].finished_at.isoformat()}~{rows[100].pk}&state=FAILURE"
    root.post(url.replace("+", "%2B"), {"action": "retry", "_selected_action": str(rows[110].pk), "post": "yes"})
    assert Task.objects.count() == 1


@pytest.mark.databases("sqlite")
def test_tasks_may_live_in_another_database_than_people(
    root: Client, tmp_path: Path, database_maker: DatabaseMaker, settings: Any
) -> None:
    (tmp_path / "tasks").mkdir()
    url = database_maker.of("sqlite").make(tmp_path / "tasks")
    with (
        attached("tasks", url) as connection,
        override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, "DATABASE": "tasks"}),
    ):
        bad, other = TaskResult.objects.using("tasks").bulk_create([failure(), finished()])
        [todo] = Task.objects.using("tasks").bulk_create([waiting()])
        assert str(bad.pk) in read(root, list_url("taskresult"))
        read(root, page_url("taskresult", bad.pk))
        order(root, bad, "retry", post="yes")
        order(root, todo, "cancel", post="yes")
        order(root, other, "delete", post="yes")
        order(root, TaskResult(pk=todo.pk), "delete", post="yes")
        assert [row.pk for row in TaskResult.objects.using("tasks").all()] == [bad.pk]
        assert operations.RETRY_OF in (Task.objects.using("tasks").get().options or "")
        assert LogEntry.objects.count() == 4
        close_all()
        connection.close()
    assert not Task.objects.exists()
    assert not TaskResult.objects.exists()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "odd",
    [{"select_across": "0"}, {"select_across": "yes"}, *({"select_across": "1", "index": i} for i in ("-1", "x"))],
    ids=str,
)
def test_only_what_is_chosen_is_touched_whatever_else_the_form_says(root: Client, odd: dict[str, str]) -> None:
    [chosen, other] = saved([waiting(), waiting()])
    order = {"action": "cancel", "post": "yes", "_selected_action": str(chosen.pk), **odd}
    root.post(list_url("task"), order)
    assert list(Task.objects.values_list("pk", flat=True)) == [other.pk]


@pytest.mark.databases("sqlite")
def test_an_action_on_an_odd_address_or_with_an_odd_place_is_no_error(root: Client) -> None:
    saved([waiting()])
    order = {"action": "cancel", "post": "yes", "select_across": "1"}
    assert root.post(list_url("task"), {**order, "index": "1" * 5_000}).status_code in (200, 302)
    answer = root.post(f"{list_url('task')}?state=bogus", order)
    assert (answer.status_code, answer.headers.get("Location")) == (302, f"{list_url('task')}?e=1")
    assert Task.objects.count() == 1


@pytest.mark.databases("sqlite")
def test_a_task_is_not_put_off_to_the_end_of_the_calendar(root: Client) -> None:
    [row] = saved([waiting(due_at=ago(-600))])
    order = {"action": "postpone", "post": "yes", "_selected_action": str(row.pk), "eta_0": "9999-12-31"}
    answer = root.post(list_url("task"), {**order, "eta_1": "23:00:00"})
    assert "before the year 9001" in text_of(answer.content.decode())
    assert Task.objects.get().due_at == row.due_at


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("model", ["task", "taskresult", "worker"])
@pytest.mark.parametrize("key", ["x", "\x00", "1; drop"])
def test_what_can_be_no_key_of_a_row_is_refused(root: Client, model: str, key: str) -> None:
    action = {"task": "cancel", "taskresult": "retry", "worker": "ping_selected"}[model]
    assert root.post(list_url(model), {"action": action, "_selected_action": key, "post": "yes"}).status_code == 400


@pytest.mark.databases("sqlite")
def test_a_group_of_any_name_leads_to_its_tasks(root: Client) -> None:
    group = "week 1&2 #7"
    [row] = saved([finished(options=json.dumps({"group": [group, 0]}))])
    page = read(root, page_url("taskresult", row.pk))
    [url] = [html.unescape(one) for one in re.findall(r'href="([^"]*q=group[^"]*)"', page)]
    assert ids_in(read(root, url)) == [str(row.pk)]
