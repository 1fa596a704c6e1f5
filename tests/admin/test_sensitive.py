"""Sensitive arguments in the admin: what is shown, found, edited and run again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from django_tasks import operations, shared_task
from django_tasks.models import IntervalSchedule, PeriodicTask, Task, TaskResult
from django_tasks.redaction import HIDDEN, REDACTED
from django_tasks.search import Selection
from tests.admin.conftest import Browser
from tests.admin.pages import page_url, read, text_of
from tests.admin.test_actions import order
from tests.rows import failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")


@shared_task(name="tests.admin.charge", sensitive=("card", "pin"))
def charge(order: int, card: str = "", *, pin: int = 0, note: str = "") -> None:
    """A task with secrets that no name tells of."""


BODY = json.dumps([[7, "canary"], {"pin": 4711, "note": "open"}])


def shown(client: Client, row: Any) -> str:
    return " ".join(text_of(read(client, page_url(row._meta.model_name, row.pk))).split())


def found(text: str, model: Any = TaskResult) -> set[Any]:
    return set(Selection.of(model, text, {}, full=True).narrow(model.objects.all()).values_list("pk", flat=True))


def test_pages_hide_them(root: Client, browser: Browser) -> None:
    options = json.dumps({"sensitive": ["card"], "node": {"errbacks": [{"name": "x", "body": '[["canary"],{}]'}]}})
    rows = [*saved([waiting(name=charge.name, body=BODY)]), *saved([failure(name=charge.name, body=BODY)])]
    rows += saved([finished(name="gone.task", body=BODY, options=options)])
    for row in rows:
        for client in (root, browser("view_task", "view_taskresult", username=str(row.pk))):
            page = shown(client, row)
            assert "canary" not in page
            assert "4711" not in page or row.name == "gone.task"
    assert f'card {HIDDEN} pin {HIDDEN} note "open"' in shown(root, rows[0])


def test_no_search_finds_them(root: Client) -> None:
    body = json.dumps([["canary"], {}])
    saved([plain := finished(body=body, options='{"headers": {"token": "canary"}, "group": ["g", 0]}')])
    saved(
        [
            finished(name=charge.name, body=BODY),
            finished(name="gone.task", body=body, options='{"sensitive":["card"]}'),
            finished(body=body, options='{"argsrepr": "(…)"}'),
            finished(body='[[],{"deep": {"db-password": "canary"}}]', result='{"api_key": "canary"}'),
        ]
    )
    assert found("args:canary") == {plain.pk}
    assert found("kwargs.pin:4711") == found("kwargs.note:open") == set()
    assert found("result:canary") == found("group:canary") == set()
    assert found("group:g") == {plain.pk}
    assert "What has hidden values was left out" in read(root, "/admin/django_tasks/taskresult/?q=args:canary")


def test_words_of_names_are_the_sites_to_choose(root: Client, settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "SENSITIVE_NAMES": ["iban_no"]}
    [row] = saved([finished(body='[[],{"password": "told", "the IBAN-No.": "canary", "ibanno": "canary"}]')])
    page = shown(root, row)
    assert "told" in page
    assert "canary" not in page
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "SENSITIVE_NAMES": []}
    assert "canary" in shown(root, row)
    assert found("args:canary") == {row.pk}


def redacted(**fields: Any) -> TaskResult:
    body = json.dumps([[7, HIDDEN], {"pin": HIDDEN, "note": "open"}])
    [row] = saved([finished(name=charge.name, body=body, encoding=REDACTED, **fields)])
    assert isinstance(row, TaskResult)
    return row


def test_what_is_kept_no_more_is_not_run_again(root: Client) -> None:
    row = redacted()
    assert "kept no more since it succeeded" in shown(root, row)
    for action in ("retry", "duplicate"):
        said = order(root, row, action, post="yes")
        assert "because its sensitive arguments were removed when it succeeded: 1." in said
    assert operations.retry([str(row.pk)]).redacted == [str(row.pk)]
    assert Task.objects.count() == 0


def test_with_other_arguments_it_is_run_again(root: Client) -> None:
    row = redacted()
    url = page_url("taskresult", row.pk).replace("change", "edit")
    assert HIDDEN in read(root, url)
    left = {"args": json.dumps([8, HIDDEN]), "kwargs": json.dumps({"pin": 1})}
    assert "Positional argument 2 is kept no more" in root.post(url, left).content.decode()
    assert root.post(url, {**left, "args": '[8, "new"]'}).status_code == 302
    sent = Task.objects.get()
    assert (sent.encoding, json.loads(sent.body)) == ("", [[8, "new"], {"pin": 1}])


def test_what_is_left_hidden_in_the_form_is_sent_as_it_was(root: Client) -> None:
    [row] = saved([failure(name=charge.name, body=BODY)])
    url = page_url("taskresult", row.pk).replace("change", "edit")
    assert "canary" not in read(root, url)
    given = {"args": json.dumps([8, HIDDEN]), "kwargs": json.dumps({"pin": HIDDEN, "note": "edited"})}
    assert root.post(url, given).status_code == 302
    assert json.loads(Task.objects.get().body) == [[8, "canary"], {"pin": 4711, "note": "edited"}]


def test_a_schedule_shows_and_keeps_them(root: Client, browser: Browser) -> None:
    every = IntervalSchedule.objects.create(every=1, period="hours")
    args, kwargs = json.dumps([7, "canary"]), json.dumps({"pin": 4711, "note": "n"})
    row = PeriodicTask.objects.create(name="p", task=charge.name, interval=every, args=args, kwargs=kwargs)
    url = page_url("periodictask", row.pk)
    page = read(root, url)
    looks = read(browser("view_periodictask", "view_payload"), url)
    for text in (page, looks):
        assert "canary" not in text
        assert "4711" not in text
        assert HIDDEN in text
    form = {
        **{"name": "p", "task": charge.name, "kind": "interval", "every": "2", "period": "hours", "zone": "UTC"},
        **{"args": json.dumps([8, HIDDEN]), "kwargs": json.dumps({"pin": HIDDEN, "note": "n"}), "headers": "{}"},
        **{"missed": row.missed, "missed_limit": "3", "overlap": row.overlap, "enabled": "on", "jitter": "0"},
    }
    assert root.post(url, form).status_code == 302
    row.refresh_from_db()
    assert (json.loads(row.args), json.loads(row.kwargs)) == ([8, "canary"], {"pin": 4711, "note": "n"})


def test_the_form_that_sends_a_task_covers_them(root: Client) -> None:
    page = read(root, f"/admin/django_tasks/tasktype/{charge.name}/change/")
    assert 'type="password" name="arg-card"' in page
    assert 'name="arg-note"' in page
    assert 'type="password" name="arg-note"' not in page
