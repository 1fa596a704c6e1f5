"""What lists say of each task and result: its arguments, how long it waited and ran, how often it was tried."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tasks import serialization, shared_task, states
from django_tasks.redaction import HIDDEN
from django_tasks.task_admin.columns import tries, waited
from tests.admin.conftest import Browser
from tests.admin.pages import list_url, read
from tests.databases import TestDatabase
from tests.rows import UNKNOWN, ago, failure, finished, saved, waiting


@shared_task(name="tests.admin.send_bill", sensitive=("card",), max_retries=4)
def send_bill(order: int, card: str = "", **others: Any) -> None:
    """A task with a secret, which may be tried five times."""


@shared_task(name="tests.admin.try_for_ever", max_retries=None)
def try_for_ever() -> None:
    """A task that is retried for ever."""


def column(page: str, name: str) -> list[str]:
    """Return what a column says, from the first row on."""
    found = re.findall(rf'<td class="field-{name}[^"]*" data-label="[^"]*">(.*?)</td>', page, re.DOTALL)
    return [unescape(re.sub(r"<[^>]*>", "", one)) for one in found]


def test_arguments_are_shown_in_a_line_as_python_has_them(database: TestDatabase, root: Client) -> None:
    packed = serialization.dumps([[1.5], {}], "msgpack")
    squeezed = serialization.dumps([["x" * 400], {}], "json", "zlib")
    given = [
        ("", '[[1543,"welcome"],{"urgent":true,"to":null}]', "(1543, 'welcome', urgent=True, to=None)"),
        ("", "[[],{}]", "()"),
        ("", '[[{"a":[1,"<b>ö"]}],{}]', "({'a': [1, '<b>ö']})"),
        ("", '[[{"password":"canary"}],{"api_key":"canary"}]', f"({{'password': '{HIDDEN}'}}, api_key={HIDDEN})"),
        (*packed, "(1.5)"),
        ("", json.dumps([["x" * 200], {}]), f"('{'x' * 157}…"),
        ("", json.dumps([["x" * 14_000], {}]), "13.7\xa0KB"),
        (*squeezed, f"{len(squeezed[1])}\xa0bytes"),
        ("pickle", "gASVAAAA", "8\xa0bytes"),
        ("", '"neither list nor dict"', "'neither list nor dict'"),
        ("", "no JSON", "7 characters that cannot be decoded"),
    ]
    for model, make in (("task", waiting), ("taskresult", finished)):
        saved(make(body=body, encoding=how, queue=f"q{at:02}") for at, (how, body, _text) in enumerate(given))
        page = read(root, list_url(model))
        lines = dict(zip(column(page, "queue"), column(page, "arguments"), strict=True))
        for at, (_how, body, text) in enumerate(given):
            assert lines[f"q{at:02}"].startswith(text), (model, body)
            assert len(lines[f"q{at:02}"]) <= 160


@pytest.mark.databases("sqlite")
def test_what_is_hidden_on_the_page_of_a_task_is_hidden_in_the_list(database: TestDatabase, root: Client) -> None:
    body = '[[7, "canary"], {"note": "open"}]'
    for options, name, line in (
        (None, send_bill.name, f"(7, {HIDDEN}, note='open')"),
        ('{"sensitive": ["card"]}', UNKNOWN, f"({HIDDEN}, {HIDDEN}, note='open')"),
        ('{"argsrepr": "(7, …)"}', UNKNOWN, "((7, …), note='open')"),
        ('{"argsrepr": "…", "kwargsrepr": "{…}"}', UNKNOWN, "(…, {…})"),
        (json.dumps({"sensitive": ["card"], "headers": {"x": "y" * 5_000}}), UNKNOWN, f"{len(body)}\xa0bytes"),
    ):
        saved([waiting(name=name, body=body, options=options)])
        assert column(read(root, list_url("task")), "arguments")[0] == line


@pytest.mark.databases("sqlite")
def test_arguments_are_read_only_for_who_may_see_them_and_has_the_column(root: Client, browser: Browser) -> None:
    saved([failure(body='[["canary"],{}]')])
    for client, query in ((browser("view_taskresult"), ""), (root, "?columns=queue")):
        with CaptureQueriesContext(connection) as captured:
            page = read(client, list_url("taskresult") + query)
        assert "canary" not in page
        assert not [one for one in captured.captured_queries if '"body"' in one["sql"]]
    with CaptureQueriesContext(connection) as captured:
        assert "canary" in read(root, list_url("taskresult"))
    [read_bodies] = [one["sql"] for one in captured.captured_queries if '"body"' in one["sql"]]
    assert "result" not in re.sub(r"django_tasks_taskresult|result_encoding", "", read_bodies), "only the arguments"


@pytest.mark.databases("sqlite")
def test_lists_tell_how_long_was_waited_and_run_and_how_often_tried(database: TestDatabase, root: Client) -> None:
    times: Any = {"created_at": ago(900), "due_at": ago(100), "started_at": ago(90), "finished_at": ago(88)}
    saved([finished(**times, runtime=1.5, name=send_bill.name, attempt=2, retries=1)])
    page = read(root, list_url("taskresult"))
    assert [column(page, name) for name in ("wait", "run_time", "tries")] == [["10 s"], ["1.5 s"], ["2 of 5"]]
    saved([waiting(state=states.STARTED, worker_id=1, due_at=ago(7_000), started_at=ago(6_000), attempt=1)])
    page = read(root, list_url("task"))
    assert column(page, "wait") == ["1,000 s"]
    assert re.fullmatch(r"6,0\d\d s", column(page, "run")[0])


def test_a_wait_begins_when_a_task_is_due_and_is_never_negative() -> None:
    now = ago(0)
    early: Any = {"due_at": ago(50), "started_at": ago(60)}
    for call, seconds in (
        (finished(created_at=ago(500), due_at=ago(50), started_at=ago(20)), 30.0),
        (finished(**early), 0.0),
        (finished(states.REVOKED, started_at=None), None),
        (waiting(created_at=ago(500), due_at=ago(50)), 50.0),
        (waiting(due_at=ago(-500)), 0.0),
        (waiting(state=states.RETRY, due_at=ago(5), started_at=ago(100)), 5.0),
        (waiting(state=states.WAITING, due_at=ago(50)), None),
        (waiting(state=states.STARTED, due_at=ago(50)), None),
        (waiting(state=states.STARTED, **early), 0.0),
    ):
        assert waited(call, now) == (None if seconds is None else pytest.approx(seconds, abs=1))


def test_tries_are_told_of_how_many_if_that_is_known() -> None:
    for fields, text in (
        ({"name": send_bill.name, "attempt": 3, "retries": 2}, "3 of 5"),
        ({"name": send_bill.name, "attempt": 0}, "0 of 5"),
        ({"name": send_bill.name, "attempt": 2, "retries": 0}, "2 of 6"),  # a worker was lost: that was not its fault
        ({"name": send_bill.name, "attempt": 8, "retries": 7}, "8"),  # the body allowed more
        ({"name": try_for_ever.name, "attempt": 9, "retries": 8}, "9"),
        ({"name": UNKNOWN, "attempt": 1}, "1"),
    ):
        assert tries(waiting(**fields)) == text
