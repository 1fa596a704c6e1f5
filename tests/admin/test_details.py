"""The pages of a task, a result and a worker: what they tell, and to whom."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tasks import ids, operations, paging, shared_task, states
from django_tasks.models import IntervalSchedule, PeriodicRun, PeriodicTask, Task, TaskResult, TaskTag, Worker
from django_tasks.redaction import HIDDEN
from django_tasks.serialization import dumps
from django_tasks.task_admin import frames, relations, tree
from tests.admin.conftest import Browser
from tests.admin.pages import list_url, page_url, read, text_of
from tests.rows import UNKNOWN, ago, failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

TASKS, RESULTS = "task", "taskresult"


@shared_task(name="tests.admin.send_letter", bind=True)
def send_letter(self: Any, /, to: str, *copies: str, password: str = "", **fields: Any) -> None:
    """A task with every kind of parameter."""


def shown(client: Client, row: Any) -> str:
    """Return what the page of a row says, blanks joined."""
    return " ".join(text_of(read(client, page_url(row._meta.model_name, row.pk))).split())


def test_arguments_have_the_names_of_the_signature(root: Client) -> None:
    body = json.dumps([["anna", "ben", "cem"], {"password": "canary-1", "color": {"rgb": [1, 2]}}])
    [row] = saved([finished(name=send_letter.name, body=body)])
    page = shown(root, row)
    assert 'to "anna"' in page
    assert '*copies 0 "ben" 1 "cem" As text [ "ben", "cem" ]' in page
    assert '"color": { "rgb": [ 1, 2 ] }' in page
    assert "self" not in page.partition("Arguments")[2].partition("Call")[0]


def test_arguments_of_a_task_that_is_not_known_or_was_changed_have_their_places(root: Client) -> None:
    saved([unknown := finished(name=UNKNOWN, body='[[7],{"key":8}]'), changed := finished(body='[[1],{"z":2}]')])
    assert "args[0] 7 key 8" in shown(root, unknown)
    assert "args[0] 1 z 2" in shown(root, changed)


def test_a_value_is_unfolded_step_by_step_from_its_first_level_on(root: Client) -> None:
    value: dict[str, Any] = {"order": {"lines": [{"sku": "<b>"}, 2.5]}, "empty": [], "paid": None, "<key>": "ä"}
    [row] = saved([finished(name=send_letter.name, body=json.dumps([["anna"], value]), result=json.dumps([value]))])
    page = read(root, page_url(RESULTS, row.pk))
    lines = (
        '<li><span class="djt-part">sku</span> <code>&quot;&lt;b&gt;&quot;</code></li>',
        '<summary><span class="djt-part">lines</span> <code>list, 2 items</code></summary>',
        '<li><details><summary><span class="djt-part">order</span> <code>dict, 1 keys</code></summary>',
        '<li><span class="djt-part">1</span> <code>2.5</code></li>',
        '<li><span class="djt-part">empty</span> <code>[]</code></li>',
        '<li><span class="djt-part">paid</span> <code>null</code></li>',
        '<li><span class="djt-part">&lt;key&gt;</span> <code>&quot;ä&quot;</code></li>',
    )
    for line in lines:
        assert page.count(line) == 2, line
    assert "<details open" not in page


def test_a_tree_is_drawn_in_part_however_large_or_deep_a_value_is(root: Client) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    drawn = tree.Trees().draw([[7] * 4_100, deep, {"a": "x" * 900_000}])
    assert f"… {4_100 - tree.MOST_OF_ONE:,} more" in drawn
    assert drawn.count("<ul") <= tree.DEEPEST + 2
    assert len(drawn) < 20_000
    wide = tree.Trees().draw({str(one): list(range(50)) for one in range(90)})
    assert wide.count("<li>") <= tree.MOST + 90 + 1
    assert all(f'<span class="djt-part">{one}</span> <code>list, 50 items' in wide for one in range(90))
    [row] = saved([finished(name=UNKNOWN, body=json.dumps([[deep, *range(2_000)], {"a": [8] * 4_100}]))])
    page = read(root, page_url(RESULTS, row.pk))
    assert page.count("djt-part") <= tree.MOST
    assert len(page) < 500_000


def test_what_leads_somewhere_and_what_is_not_to_be_read_has_no_tree(
    root: Client, browser: Browser, settings: Any
) -> None:
    [row] = saved([finished(body='[[{"a": 1}],{}]', result='{"b": 2}')])
    assert "djt-tree" not in read(browser("view_taskresult"), page_url(RESULTS, row.pk))
    assert read(root, page_url(RESULTS, row.pk)).count('<ul class="djt-tree">') == 2
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_OBJECT_LINK": "tests.admin.test_details.to_the_shop"}
    page = read(root, page_url(RESULTS, row.pk))
    assert page.count('<ul class="djt-tree">') == 1
    assert '<a href="/shop/">{' in page


def to_the_shop(task: str, argument: str, value: Any) -> str:
    return "/shop/"


def test_what_a_name_says_is_secret_is_hidden_from_everybody(root: Client) -> None:
    """S6: in arguments, in what lies within them, in headers and in results."""
    secrets = {"password": "canary-1", "deep": [{"api_key": "canary-2"}, {"Authorization": "canary-3"}]}
    [row] = saved(
        [
            finished(
                name=send_letter.name,
                body=json.dumps([["anna"], secrets]),
                options=json.dumps({"headers": {"auth_token": "canary-4"}}),
                result=json.dumps({"secret": "canary-5", "open": "told"}),
            )
        ]
    )
    page = shown(root, row)
    assert "canary" not in page
    assert "told" in page
    assert page.count("********") == 5 + 3, "and in the trees beside the texts"


def test_what_the_sender_gave_as_argsrepr_stands_for_the_arguments(root: Client) -> None:
    options = json.dumps({"argsrepr": "('****',)", "kwargsrepr": "{}"})
    [row] = saved([finished(body='[["canary-1"],{}]', options=options)])
    page = shown(root, row)
    assert "('****',)" in page
    assert "canary" not in page


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_arguments_are_read_in_every_safe_format(root: Client, serializer: str, compression: str | None) -> None:
    encoding, body = dumps([[1, "grüße 你好"], {}], serializer, compression)
    [row] = saved([waiting(body=body, encoding=encoding)])
    assert "grüße 你好" in shown(root, row)


def test_pickle_is_never_decoded_for_display(root: Client, settings: Any) -> None:
    """Not even where the settings let the worker do so."""
    settings.DJANGO_TASKS = {
        **settings.DJANGO_TASKS,
        "ALLOW_UNSAFE_PICKLE": True,
        "ACCEPT_CONTENT": ["json", "pickle"],
    }
    encoding, body = dumps([["canary-1"], {}], "pickle")
    [row] = saved([finished(body=body, encoding=encoding, result=body, result_encoding=encoding)])
    page = shown(root, row)
    assert page.count("not decoded for display") == 2
    assert "canary" not in page


@pytest.mark.parametrize(
    "broken",
    [
        {"body": "nonsense"},
        {"body": '{"a": 1}'},
        {"body": "[[1]]"},
        {"body": "[[1],[2]]"},
        {"body": '[["\\ud800 \\u0000"],{"\\udfff":1}]'},
        {"body": "[" * 5000},
        {"body": "eA==", "encoding": "json+gzip"},
        {"encoding": "nosuch+thing"},
        {"options": "nonsense"},
        {"options": '["no", "dict"]'},
        {"options": '{"headers": "no dict", "retry_of": "no id", "argsrepr": 3}'},
        {"history": "nonsense"},
        {"history": '{"no": "list"}'},
        {"history": '[3, {"at": "never", "runtime": "long", "error": 3, "attempt": null, "traceback": ["x"]}]'},
        {"history": '[{"at": 1e300, "error": {"causes": 3}}]'},
        {"result": "nonsense", "result_encoding": "yaml"},
        {"result": '{"exc_type": 3, "text": null, "causes": "no list"}', "exception": "a"},
    ],
)
def test_a_page_is_shown_whatever_is_stored(root: Client, broken: dict[str, Any]) -> None:
    """R15: malformed rows are kept aside for inspection, so they can be inspected."""
    [row] = saved([finished(**broken)])
    assert str(row.pk) in shown(root, row)


def test_progress_is_shown_while_a_task_runs(root: Client) -> None:
    meta = json.dumps({"current": 3, "total": 4, "file": "b.png"})
    [row] = saved([waiting(state=states.STARTED, custom_state="PROGRESS", meta=meta, attempt=1)])
    page = read(root, page_url(TASKS, row.pk))
    assert '<progress class="djt-progress" value="3.000000" max="4.000000"' in page
    assert "PROGRESS" in page
    assert "b.png" in page


def test_a_failure_tells_its_exception_its_causes_its_traceback_and_its_earlier_attempts(root: Client) -> None:
    error = {"exc_type": "OSError", "text": "disk full", "causes": ["RuntimeError: no room"]}
    history = [
        {"attempt": 1, "outcome": "RETRY", "worker": "w1@h", "runtime": 0.25, "error": error, "traceback": "T1"},
        {"attempt": 2, "outcome": "LOST", "worker": "w2@h", "at": 1.5, "error": "Worker w2@h lost its lease"},
    ]
    result = json.dumps(error)
    [row] = saved([failure(result=result, exception="OSError: disk full", traceback="T3", history=json.dumps(history))])
    page = shown(root, row)
    for text in (
        "OSError: disk full",
        "because of RuntimeError: no room",
        "T3",
        "T1",
        "w2@h lost its lease",
        "0.250 s",
    ):
        assert text in page


def test_big_payloads_are_cut(root: Client) -> None:
    [row] = saved([finished(body=json.dumps([["x" * 200_000], {}]), traceback="y" * 200_000)])
    page = read(root, page_url(RESULTS, row.pk))
    assert "134,466 more characters" in page
    assert len(page) < 200_000


def test_a_task_that_ended_meanwhile_is_found_in_the_ledger(root: Client) -> None:
    [row] = saved([finished()])
    [own] = saved([waiting(id=ids.key_of("my own/id"), custom_id="my own/id")])
    assert root.get(page_url(TASKS, row.pk)).headers["Location"] == page_url(RESULTS, row.pk)
    assert root.get(page_url(RESULTS, row.pk.hex)).headers["Location"] == page_url(RESULTS, row.pk)
    assert root.get(page_url(RESULTS, "my own_2Fid")).headers["Location"] == page_url(TASKS, own.pk)
    assert root.get(page_url(RESULTS, "nobody")).status_code == 302


def test_a_copy_and_its_original_lead_to_each_other(root: Client) -> None:
    saved([original := failure(), failure(body=f'[["{original.pk}"],{{}}]')])
    [copy] = operations.retry([str(original.pk)]).copies.values()
    assert page_url(TASKS, copy) in read(root, page_url(RESULTS, original.pk))
    assert page_url(RESULTS, original.pk) in read(root, page_url(TASKS, copy))
    saved([done := failure(seconds_ago=0, options=json.dumps({operations.RETRY_OF: str(original.pk)}))])
    TaskTag.objects.create(tag=f"{operations.RETRY_OF}:{original.pk}", task_id=done.pk)
    assert page_url(RESULTS, done.pk) in read(root, page_url(RESULTS, original.pk))


def test_relatives_and_the_worker_are_linked(root: Client) -> None:
    worker = Worker.objects.create(
        name="w1@h", hostname="h", pid=7, pool="prefork", concurrency=2, queues="a,b -c", version="1", lease=20.0,
        started_at=ago(9), beat_at=ago(1),
    )  # fmt: skip
    [parent] = saved([finished(name=UNKNOWN)])
    saved([row := waiting(state=states.STARTED, worker_id=worker.pk, slot=0, parent_id=parent.pk, root_id=parent.pk)])
    page = read(root, page_url(TASKS, row.pk))
    assert page.count(page_url(RESULTS, parent.pk)) == 1
    assert f"Sent by {parent.name} {parent.pk}" in shown(root, row)
    assert page_url("worker", worker.pk) in page
    about = read(root, page_url("worker", worker.pk))
    assert page_url(TASKS, row.pk) in about
    assert "a,b -c" in about


@pytest.mark.databases("sqlite", "postgresql")
def test_tasks_that_it_sent_are_listed_newest_first_wherever_they_are(root: Client) -> None:
    [parent] = saved([finished(name=UNKNOWN)])
    relation = {"parent_id": parent.pk, "root_id": parent.pk}
    [first] = saved([finished(name="a.first", **relation)])
    [second] = saved([waiting(name="b.second", **relation)])
    [third] = saved([failure(name="c.third", **relation)])
    page = shown(root, parent)
    assert "Tasks that it sent c.third FAILURE b.second PENDING a.first SUCCESS Show as a workflow" in page
    for row in (first, second, third):
        assert page_url(row._meta.model_name, row.pk) in read(root, page_url(RESULTS, parent.pk))


def test_a_task_that_a_schedule_sent_tells_which(root: Client, browser: Browser) -> None:
    every = IntervalSchedule.objects.create(every=1, period="hours")
    nightly = PeriodicTask.objects.create(name="Nightly <report>", task=send_letter.name, interval=every)
    saved([row := finished(), by_hand := finished(), other := finished()])
    for task, is_by_hand in ((row, False), (by_hand, True)):
        PeriodicRun.objects.create(
            periodic_task=nightly, task_id=task.pk, scheduled_for=ago(9), created_at=ago(9), by_hand=is_by_hand
        )
    assert "Sent by Nightly <report> (periodic task)" in shown(root, row)
    assert page_url("periodictask", nightly.pk) in read(root, page_url(RESULTS, row.pk))
    assert "Sent by Nightly <report> (periodic task, by hand)" in shown(root, by_hand)
    assert "Sent by" not in shown(root, other)
    reader = browser("view_taskresult")
    assert "Sent by Nightly <report> (periodic task)" in shown(reader, row)
    assert page_url("periodictask", nightly.pk) not in read(reader, page_url(RESULTS, row.pk))


def test_a_task_tells_which_process_sent_it_if_it_took_that_along(root: Client) -> None:
    saved(
        [row := finished(options='{"context": {"origin": "gen7@web1"}}'), odd := finished(options='{"context": [1]}')]
    )
    assert "Sent from gen7@web1" in shown(root, row)
    assert "Sent from" not in shown(root, odd)


def test_a_task_tells_who_sent_it_and_to_who_may_read_payloads_in_which_request(root: Client, browser: Browser) -> None:
    carried = {"user": {"id": "7_1", "name": "<anna>"}, "request": "POST /orders/1543"}
    rows = saved(
        [
            both := finished(queue="mail", priority=5, options=json.dumps({"context": carried})),
            asked := finished(options=json.dumps({"context": {"request": "GET /"}})),
            nobody := finished(),
            *(
                finished(options=json.dumps({"context": {"user": told, "request": [1]}}))
                for told in (7, {"id": 3, "name": None}, {"id": "", "name": ["x"]}, {"id": "1\n2"}, {})
            ),
        ]
    )
    assert "by <anna> (POST /orders/1543) → queue mail, priority 5" in shown(root, both)
    assert '<a href="/admin/auth/user/7_5F1/change/">&lt;anna&gt;</a>' in read(root, page_url(RESULTS, both.pk))
    assert "by GET / → queue default, priority 0" in shown(root, asked)
    assert re.search(r"Created \S+ \S+ \S+ \S+ → queue default, priority 0", shown(root, nobody))
    for row in rows:
        assert "Created" in shown(root, row)
    reader = browser("view_taskresult")
    assert "by <anna> → queue mail" in shown(reader, both)
    assert "/orders/1543" not in read(reader, page_url(RESULTS, both.pk))
    assert "/auth/user/" not in read(reader, page_url(RESULTS, both.pk))


def test_relatives_that_are_gone_or_hidden_have_their_ids_only(root: Client, settings: Any) -> None:
    saved([parent := finished(queue="theirs", name=UNKNOWN), row := finished(parent_id=UUID(int=7), root_id=parent.pk)])
    assert f"Sent by {UUID(int=7)} Root {UNKNOWN} {parent.pk}" in shown(root, row)
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": "tests.admin.test_details.not_theirs"}
    assert f"Root {parent.pk}" in shown(root, row)


def not_theirs(request: Any, rows: Any) -> Any:
    return rows.exclude(queue="theirs")


def test_frames_of_libraries_are_folded(root: Client) -> None:
    traceback = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 7, in send
    post(letter)
  File "/usr/lib/python3.13/smtplib.py", line 100, in post
    self.connect()
    ~~~~~~~~~~~~^^
  File "/srv/venv/lib/python3.13/site-packages/mails/<sock>.py", line 3, in connect
    raise OSError
  [Previous line repeated 3 more times]
OSError: down

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "C:\\Python313\\Lib\\json\\decoder.py", line 1, in decode
ValueError: no"""
    [row] = saved([failure(traceback=traceback)])
    page = read(root, page_url(RESULTS, row.pk))
    folds = re.findall(r'<details class="djt-frames"><summary>(.*?)</summary><pre>(.*?)</pre>', page, re.DOTALL)
    assert [said for said, _frames in folds] == ["2 frames of libraries", "1 frame of a library"]
    assert "[Previous line repeated 3 more times]" in folds[0][1]
    assert "/srv/shop/tasks.py" not in folds[0][1]
    assert "OSError: down" not in "".join(frames for _said, frames in folds)
    assert "\n".join(one.text for one in frames.parts(traceback)) == traceback, "no line is lost"


@pytest.mark.parametrize(
    "traceback", ["", "no traceback", 'File "x"', '  File "/usr/lib/python3.13/a.py", line 1, in a\n    b()\nE: x']
)
def test_a_traceback_of_nothing_but_libraries_is_not_folded(traceback: str) -> None:
    assert [(one.text, one.library_frames) for one in frames.parts(traceback)] == (
        [(traceback, 0)] if traceback else []
    )


def test_frames_within_a_group_of_exceptions_are_folded() -> None:
    traceback = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/shop/tasks.py", line 3, in all
  |     gather()
  | ExceptionGroup: many (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/usr/lib/python3.13/asyncio/tasks.py", line 3, in gather
    |     await one
    | ValueError: no
    +------------------------------------"""
    assert [one.library_frames for one in frames.parts(traceback)] == [0, 1, 0]
    assert frames.parts(traceback)[1].text.count("\n") == 1


def test_arguments_and_results_can_be_had_whole_as_files(root: Client) -> None:
    body = json.dumps([["x" * 200_000, {"api_key": "canary"}], {"password": "canary"}])
    [row] = saved([finished(body=body, result=json.dumps({"secret": "canary", "open": ["ä"] * 9}))])
    page = read(root, page_url(RESULTS, row.pk))
    addresses = re.findall(r'<a href="([^"]*)" download>', page)
    arguments, result = (root.get(address) for address in addresses)
    for answer, name in ((arguments, "arguments"), (result, "result")):
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{row.pk}-{name}.json"'
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    told = json.loads(arguments.content)
    assert told == {"args": ["x" * 200_000, {"api_key": HIDDEN}], "kwargs": {"password": HIDDEN}}
    assert json.loads(result.content) == {"secret": HIDDEN, "open": ["ä"] * 9}


def test_what_is_not_to_be_read_is_not_to_be_had_as_a_file(root: Client, browser: Browser, settings: Any) -> None:
    allowed = {"ALLOW_UNSAFE_PICKLE": True, "ACCEPT_CONTENT": ["json", "pickle"]}
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, **allowed}
    encoding, pickled = dumps([["canary"], {}], "pickle")
    options = json.dumps({"argsrepr": "('****',)", "kwargsrepr": "{}"})
    saved([row := finished(body='[["canary"],{}]', options=options), odd := finished(body=pickled, encoding=encoding)])
    saved([broken := finished(body="nonsense", result="nonsense")])
    address = page_url(RESULTS, row.pk).replace("change", "download/arguments")
    assert json.loads(root.get(address).content) == {"args": "('****',)", "kwargs": "{}"}
    reader = browser("view_taskresult")
    assert reader.get(address).status_code == 403
    assert "download" not in read(reader, page_url(RESULTS, row.pk))
    assert browser("view_payload", username="blind").get(address).status_code == 403
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": "tests.admin.test_details.nothing"}
    assert root.get(address).status_code == 404
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": None}
    for key, what in ((row.pk, "result"), (row.pk, "traceback"), (odd.pk, "arguments"), (broken.pk, "arguments")):
        assert root.get(page_url(RESULTS, key).replace("change", f"download/{what}")).status_code == 404
    assert "download/" not in read(root, page_url(RESULTS, odd.pk))


def nothing(request: Any, rows: Any) -> Any:
    return rows.none()


def test_without_the_permission_only_types_and_sizes_are_shown(browser: Browser) -> None:
    """S8: arguments, results, and whatever may quote them, are for those who may see payloads."""
    canary = "canary-word"
    told = {"exc_type": "ValueError", "text": canary, "causes": [canary]}
    history = json.dumps([{"attempt": 1, "outcome": "RETRY", "error": told, "traceback": canary}])
    payload: dict[str, Any] = {
        "body": json.dumps([["x" * 12, 7, canary], {"password": canary, canary: {"a": canary}}]),
        "options": json.dumps({"headers": {"h": canary}, "argsrepr": canary, "shadow": canary}),
        "history": history,
        "name": send_letter.name,
    }
    rows = saved(
        [
            failure(canary, **payload),
            finished(**payload, result=json.dumps([canary, 2])),
            finished(name=UNKNOWN, body=payload["body"], result=json.dumps(canary)),
            finished(body=json.dumps({canary: 1})),
        ]
    )
    rows += saved([waiting(**payload, state=states.STARTED, custom_state="PROGRESS", meta=json.dumps({"m": canary}))])
    client = browser("view_task", "view_taskresult")
    for row in rows:
        page = shown(client, row)
        assert canary not in page, page
        assert "types and sizes only" in page
    assert "to str, 12 characters *copies tuple, 2 items password str, 11 characters **fields dict, 1 keys" in shown(
        client, rows[0]
    )
    assert "list, 2 items" in shown(client, rows[1])
    assert "args list, 3 items kwargs dict, 2 keys" in shown(client, rows[2])
    listed = text_of(read(client, "/admin/django_tasks/taskresult/"))
    assert "ValueError" in listed
    assert canary not in listed
    full = shown(browser("view_task", "view_taskresult", "view_payload"), rows[1])
    assert canary in full


def test_a_page_costs_few_queries(root: Client) -> None:
    saved(finished(options='{"retry_of": "x"}', seconds_ago=0) for _ in range(50))
    saved([original := failure(seconds_ago=60)])
    [todo] = saved([waiting(state=states.STARTED, worker_id=1)])
    [child] = saved([finished(parent_id=original.pk, root_id=todo.pk, options='{"group": ["g", 0]}')])
    rows: list[Any] = [original, todo, child]
    ContentType.objects.get_for_models(Task, TaskResult)  # which a process knows after its first page
    for row in rows:
        with CaptureQueriesContext(connection) as captured:
            read(root, page_url(row._meta.model_name, row.pk))
        assert len(captured) <= 10


def test_moments_are_shown_in_the_readers_zone_and_exactly_for_programs(root: Client, settings: Any) -> None:

    [row] = saved([finished(finished_at=datetime(2026, 1, 2, 12, 0, 0, 123000, UTC))])
    for use_tz in (True, False):
        settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Tokyo"
        page = read(root, page_url(RESULTS, row.pk))
        assert '<time datetime="2026-01-02T12:00:00.123+00:00"' in page
        assert "Jan. 2, 2026 21:00:00" in page


def test_another_admin_site_leads_to_its_own_pages(root: Client, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.admin.two_sites"
    [parent, row] = saved([finished(), finished()])
    [todo] = saved([waiting(parent_id=parent.pk)])
    base = "/operations/django_tasks"
    for url in (f"{base}/taskresult/", f"{base}/task/{todo.pk}/change/", f"{base}/taskresult/{row.pk}/change/"):
        assert '"/admin/' not in read(root, url)
    moved = f"{base}/taskresult/{row.pk}/change/"
    assert root.get(f"{base}/task/{row.pk}/change/").headers["Location"] == moved
    order = {"action": "retry", "_selected_action": str(row.pk)}
    assert '"/admin/' not in root.post(f"{base}/taskresult/", order).content.decode()
    done = root.post(f"{base}/taskresult/", {**order, "post": "yes"})
    assert done.headers["Location"] == f"{base}/taskresult/"


def test_the_end_of_the_calendar_is_shown_in_every_zone(root: Client, settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    [row] = saved([waiting(due_at=datetime(9999, 12, 31, 23, tzinfo=UTC))])
    assert "9999" in read(root, list_url(TASKS))
    assert "9999-12-31T23:00:00" in read(root, page_url(TASKS, row.pk))


def test_progress_beyond_all_numbers_is_shown_as_text(root: Client) -> None:
    meta = json.dumps({"current": 1, "total": 10**400})
    [row] = saved([waiting(state=states.STARTED, custom_state="PROGRESS", meta=meta, attempt=1)])
    assert "<progress" not in read(root, page_url(TASKS, row.pk))


def test_a_page_does_without_its_history_where_that_is_slow_and_says_so(
    root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relations, "PATIENCE", -1.0)
    monkeypatch.setattr(paging, "_SQLITE_STEPS", 1)
    [row] = saved([finished()])
    text = text_of(read(root, page_url(RESULTS, row.pk)))
    assert str(row.pk) in text
    assert "They took too long to find." in text
    assert "It took too long to find: the history of the admin is large" in text


def test_ids_are_sent_back_as_they_are_however_numbers_are_written(root: Client, settings: Any) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    worker = Worker.objects.create(
        pk=1234567, name="w1", hostname="h", pid=1, pool="prefork", concurrency=1, queues="*", version="1", lease=20.0,
        started_at=ago(9), beat_at=ago(1),
    )  # fmt: skip
    assert 'name="_selected_action" value="1234567"' in read(root, page_url("worker", worker.pk))
    asked = root.post(list_url("worker"), {"action": "shutdown_selected", "_selected_action": [worker.pk]})
    assert 'name="_selected_action" value="1234567"' in asked.content.decode()
