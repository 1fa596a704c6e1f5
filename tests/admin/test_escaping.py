"""What tasks and senders store is hostile: no page may let it become markup."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from django_tasks import actions, states
from django_tasks.models import Worker
from tests.admin.pages import Tags, list_url, page_url, read
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
