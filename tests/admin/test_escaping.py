"""What tasks and senders store is hostile: no page may let it become markup."""

from __future__ import annotations

import html
import json
import re
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_tasks import actions, ids, states
from django_tasks.models import (
    Beat,
    BulkOperation,
    IntervalSchedule,
    Limit,
    PeriodicTask,
    SavedView,
    TaskLog,
    TaskNames,
    Worker,
)
from tests.admin.pages import Tags, list_url, page_url, read
from tests.cockpit.site_rows import rollup
from tests.rows import ago, failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

#: Breaks out of text, attributes, comments, scripts and style sheets wherever it is not escaped.
CANARY = """'"--></title></textarea></script></style><xss onerror="alert(1)" style="x">"""


def hostile() -> dict[str, Any]:
    """Return every field that comes from tasks and senders, hostile."""
    told = {"exc_type": CANARY, "exc_module": CANARY, "exc_args": [CANARY], "text": CANARY, "causes": [CANARY]}
    attempt = {"attempt": CANARY, "outcome": CANARY, "worker": CANARY, "error": told, "traceback": CANARY}
    return {
        "custom_id": CANARY,
        "name": CANARY,
        "queue": CANARY[:64],
        "body": json.dumps([[CANARY, {CANARY: CANARY}], {CANARY: CANARY}]),
        "options": json.dumps({"headers": {CANARY: CANARY}, "shadow": CANARY, "retry_of": CANARY, CANARY: CANARY}),
        "history": json.dumps([attempt, {"error": CANARY}]),
    }


@pytest.fixture
def rows(root: Client) -> list[Any]:
    error = {"result": json.dumps({"exc_type": CANARY, "text": CANARY, "causes": [CANARY]}), "worker": CANARY}
    worker = Worker.objects.create(
        name=CANARY, hostname=CANARY, pid=1, pool=CANARY[:16], concurrency=1, queues=CANARY, version=CANARY[:64],
        lease=20.0, started_at=ago(9), beat_at=ago(1),
    )  # fmt: skip
    progress = {"state": states.STARTED, "custom_state": CANARY[:64], "meta": json.dumps({CANARY: CANARY})}
    results = saved(
        [
            failure(**hostile(), **error, exception=CANARY, traceback=CANARY),
            finished(**hostile(), worker=CANARY, result=json.dumps({CANARY: CANARY})),
            finished(**{**hostile(), "encoding": CANARY[:64]}, result="x", result_encoding=CANARY[:64]),
            finished(**{**hostile(), "options": json.dumps({"argsrepr": CANARY, "kwargsrepr": CANARY})}),
        ]
    )
    return [worker, *saved([waiting(**hostile(), **progress, worker_id=worker.pk)]), *results]


def check(page: str) -> None:
    """Raise ``AssertionError`` for markup that is not ours, or that a strict Content-Security-Policy forbids."""
    assert "<xss" not in page.lower()
    for tag, attributes in Tags(page).seen:
        assert tag not in ("xss", "style"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        if tag == "script":
            assert attributes.get("src") or attributes.get("type") == "application/json", attributes
        for link in (attributes.get("href"), attributes.get("action"), attributes.get("src")):
            assert not (link or "").lower().startswith("javascript:")


def test_no_list_lets_what_is_stored_become_markup(root: Client, rows: list[Any]) -> None:
    """S10."""
    for model, queries in (("task", ["", "?state=STARTED"]), ("taskresult", ["", "?state=FAILURE"]), ("worker", [""])):
        for query in queries:
            page = read(root, list_url(model) + query)
            assert "&lt;xss" in page
            check(page)


def test_no_page_of_a_row_lets_what_is_stored_become_markup(root: Client, rows: list[Any]) -> None:
    """S10."""
    for row in rows:
        page = read(root, page_url(row._meta.model_name, row.pk))
        assert "&lt;xss" in page
        check(page)


def test_no_question_and_no_history_lets_what_is_stored_become_markup(root: Client, rows: list[Any]) -> None:
    """S10."""
    for row in rows[1:]:
        model = row._meta.model_name
        check(read(root, page_url(model, row.pk).replace("change", "edit")))
        # What ends the row comes last.
        names = [one.name for one in actions.ACTIONS if one.model is type(row)]
        for name in sorted(names, key=lambda one: one in ("cancel", "terminate", "delete")):
            order = {"action": name, "_selected_action": str(row.pk), "from": CANARY}
            check(root.post(list_url(model), order).content.decode())
            answer = {**order, "post": "yes", "signal": "SIGTERM", "queue": CANARY[:64], "eta_0": CANARY}
            check(root.post(list_url(model), answer, follow=True).content.decode())
            if name == "retry":
                check(read(root, page_url(model, row.pk).replace("change", "history")))
                check(read(root, page_url(model, row.pk)))
    check(read(root, "/admin/"))  # with its list of what was done last


def test_no_address_lets_its_own_text_become_markup(root: Client, rows: list[Any]) -> None:
    """S10."""
    for parameter in ("q", "name", "queue", "state", "older", "e", "_changelist_filters"):
        for model in ("task", "taskresult"):
            response = root.get(list_url(model), {parameter: CANARY}, follow=True)
            check(response.content.decode())


def test_nothing_is_read_from_another_server(root: Client, rows: list[Any]) -> None:
    """The pages work under ``default-src 'self'``."""
    for row in rows:
        for _tag, attributes in Tags(read(root, page_url(row._meta.model_name, row.pk))).seen:
            for link in (attributes.get("src"), attributes.get("href")):
                assert not (link or "").startswith(("http:", "https:", "//", "data:"))


@pytest.fixture
def others(root: Client, rows: list[Any]) -> dict[str, Any]:
    """Return what people and beats say of themselves, and what stands beside tasks, hostile: rows by their model."""
    person = str(User.objects.get().pk)
    told = json.dumps({CANARY: CANARY})
    schedule = IntervalSchedule.objects.create(every=10, period="minutes")
    periodic = PeriodicTask.objects.create(
        name=CANARY, task=CANARY, interval=schedule, args=json.dumps([CANARY]), kwargs=told, headers=told,
        description=CANARY, last_error=CANARY, next_run_at=ago(300),
    )  # fmt: skip
    pause = {"paused_at": ago(5), "paused_by": CANARY, "pause_reason": CANARY}
    Limit.objects.create(kind="queue", name="mail", **pause)
    limit = Limit.objects.create(kind="task", name=CANARY, declared=CANARY, **pause)
    operation = BulkOperation.objects.create(
        action=CANARY[:32], user_id=person, user_name=CANARY, search=CANARY, filters=told, parameters=told,
        reasons=json.dumps({CANARY: 3}), error=CANARY, aborted_by=CANARY, created_at=ago(1),
    )  # fmt: skip
    for page in ("task", "taskresult"):
        SavedView.objects.create(user_id=person, page=page, name=CANARY[:64], query=f"q={CANARY}")
    for seen in (2, 2_000):
        Beat.objects.create(
            name=CANARY, hostname=CANARY, pid=1, version=CANARY[:64], started_at=ago(9_999), seen_at=ago(seen)
        )
    for row in rows[1:]:
        TaskLog.objects.create(task_id=row.pk, attempt=1, count=1, records=json.dumps([[0, 20, CANARY, CANARY]]))
    root_id = ids.new_id()
    options = json.dumps({"tags": [CANARY], "group": [CANARY, 0], "headers": {CANARY: CANARY}})
    saved([failure(id=UUID(root_id), name=CANARY, root_id=root_id, options=options)])
    saved([rollup("mail", CANARY, moment=int(ago(60).timestamp()), succeeded=3)])
    saved([waiting(name=CANARY, root_id=root_id, queue="mail", options=options)])
    return {"periodictask": periodic.pk, "limit": limit.pk, "bulkoperation": operation.pk, "workflow": root_id}


def test_no_other_page_lets_what_is_stored_become_markup(root: Client, rows: list[Any], others: dict[str, Any]) -> None:
    """S10: operations, saved views, logs, pauses, beats, periodic tasks and workflows."""
    pages = [page_url(model, key) for model, key in others.items()]
    pages += [page_url("queue", "mail"), f"{list_url('task')}views/", f"{list_url('taskresult')}views/"]
    pages += [page_url(row._meta.model_name, row.pk) for row in rows]
    for model in ("periodictask", "limit", "bulkoperation", "workflow", "task", "taskresult", "tasktype"):
        pages.append(list_url(model))
    for url in pages:
        page = read(root, url)
        assert "&lt;xss" in page, url
        check(page)
    for url in (
        list_url("overview"),
        list_url("queue"),
        list_url("health"),
        f"{page_url('bulkoperation', others['bulkoperation'])}?fragment=1",
    ):
        check(read(root, url))
    links = [link for link in re.findall(r'href="([^"]*)"', read(root, list_url("tasktype"))) if "xss" in link]
    for link in links:
        check(read(root, html.unescape(link)))


def test_no_name_that_workers_tell_or_people_write_becomes_markup(
    root: Client, rows: list[Any], others: dict[str, Any]
) -> None:
    """S10: what workers know is offered, and what nobody knows is asked about, and told of."""
    names = TaskNames.objects.create(id="1", names=json.dumps([CANARY]), told_at=ago(1))
    Worker.objects.update(task_names=names.pk)
    form = {"name": "a", "other_task": f"{CANARY}!", "kind": "interval", "every": 1, "period": "hours", "_preview": "1"}
    asked = root.post(list_url("periodictask") + "add/", form).content.decode()
    assert "Did you mean" in asked
    assert 'name="keep_unknown"' in asked
    known = read(root, page_url("periodictask", others["periodictask"]))
    assert "known to workers only" in known
    TaskNames.objects.update(names="[]")
    missed = read(root, list_url("health"))
    assert "which neither this site nor a running worker knows" in missed
    for page in (asked, known, missed, read(root, list_url("periodictask"))):
        assert "&lt;xss" in page
        check(page)
