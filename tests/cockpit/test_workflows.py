"""The pages of workflows, of such as workers ran and of such as were written down."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from benchmarks.rows import copy, moved, settle
from django_tasks import AsyncResult, chain, chord, group, ids, operations, shared_task
from django_tasks.cockpit import dag, drawing, members
from django_tasks.models import BulkOperation, Edge, Task, TaskResult
from tests.admin.conftest import Browser
from tests.admin.pages import Tags, ids_in, list_url, page_url, read, text_of
from tests.canvas.jobs import add, boom, total
from tests.databases import TestDatabase
from tests.inprocess import Worker
from tests.rows import ago, failure, finished, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

#: Whether :func:`brittle` fails.
broken: set[int] = set()


@shared_task
def brittle(value: int) -> int:
    if value in broken:
        raise ValueError(f"{value} is broken")
    return value


@shared_task
def sender() -> list[str]:
    return [add.delay(1, 2).id for _ in range(3)]


@pytest.fixture
def worker(database: TestDatabase) -> Worker:
    broken.clear()
    return Worker()


def everything(rows: Any) -> Any:
    return rows


def root_of(result: Any) -> str:
    """Return the root of the workflow whose last task this is."""
    row = Task.objects.filter(pk=result.id).first() or TaskResult.objects.get(pk=result.id)
    return str(row.root_id)


def url_of(root: str) -> str:
    return page_url("workflow", root)


def nodes_in(page: str) -> list[str]:
    """Return what the drawing from left to right says of its nodes."""
    drawn = page[page.index('<svg class="djt-dag"') : page.index("djt-dag-narrow")]
    return re.findall(r'<a class="djt-node" href="[^"]*" aria-label="([^"]*)"', drawn)


def order(client: Client, root: str, action: str, *, sure: bool = True) -> Any:
    return client.post(url_of(root), {"action": action, **({"post": "yes"} if sure else {})}, follow=True)


# What is shown -------------------------------------------------------------------------------------------------------


def test_it_is_drawn_while_it_waits_and_when_it_is_done(root: Client, worker: Worker) -> None:
    result = chain(add.s(1, 1), group(brittle.s() for _ in range(3)), total.s(), add.s(5)).apply_async()
    first = root_of(result)
    worker.step()
    page = read(root, url_of(first))
    assert [one.split(": ")[0].rpartition(".")[2] for one in nodes_in(page)] == [
        "add",
        *["brittle"] * 3,
        "total",
        "add",
    ]
    assert "tests.canvas.jobs.total: waits for 3 of 3" in nodes_in(page)
    assert "1 of 6 done." in text_of(page)
    worker.step()
    assert "tests.canvas.jobs.total: waits for 2 of 3" in nodes_in(read(root, url_of(first)))
    worker.drain()
    page = read(root, url_of(first))
    assert len(nodes_in(page)) == 6  # the edges are gone, and the shape is not
    assert page.count('class="djt-line"') == 2 * 7
    assert "6 of 6 done." in text_of(page)
    assert 'class="djt-waterfall"' in page


def test_a_failure_and_what_was_not_run_because_of_it_are_told_apart(root: Client, worker: Worker) -> None:
    result = chain(boom.s(), add.s(1)).apply_async()
    worker.drain()
    page = read(root, url_of(root_of(result)))
    [failed, not_run] = nodes_in(page)
    assert failed.startswith("tests.canvas.jobs.boom: FAILURE")
    assert not_run == "tests.canvas.jobs.add: not run"
    assert "✖" in page


def test_more_than_twelve_alike_are_one_stack_that_leads_to_the_list(root: Client, worker: Worker) -> None:
    broken.add(7)
    result = chord([brittle.s(number) | add.s(1) for number in range(13)])(total.s())
    first = root_of(result)
    worker.drain()
    page = read(root, url_of(first))
    assert [one.partition(": ")[2] for one in nodes_in(page)] == ["✔12 ✖1", "✔12 ✖1", "not run"]
    assert "brittle ×13" in page
    link = re.search(r'<a class="djt-node" href="([^"]+)"', page)
    assert link is not None
    assert len(ids_in(read(root, link[1].replace("&amp;", "&")))) == 13
    assert len(nodes_in(read(root, url_of(first)))) == 3


def test_twelve_stand_side_by_side(root: Client, worker: Worker) -> None:
    result = chord([brittle.s(number) for number in range(12)])(total.s())
    assert len(nodes_in(read(root, url_of(root_of(result))))) == 13


def test_what_a_task_sent_hangs_on_it(root: Client, worker: Worker) -> None:
    sent = sender.delay()
    worker.drain()
    page = read(root, url_of(sent.id))
    assert len(nodes_in(page)) == 4
    assert page.count('class="djt-line"') == 2 * 3
    assert f'href="{url_of(sent.id)}"' in read(root, page_url("taskresult", sent.id))


def test_a_task_and_the_lists_lead_to_it(root: Client, worker: Worker) -> None:
    result = chain(add.s(1, 1), add.s(5)).apply_async()
    link = f'href="{url_of(root_of(result))}"'
    assert link in read(root, page_url("task", result.id))
    assert link in read(root, list_url("task") + "?columns=workflow")
    assert link in read(root, list_url("workflow"))
    worker.drain()
    assert link in read(root, list_url("taskresult") + "?columns=workflow")
    assert f'href="{list_url("workflow")}"' in read(root, "/admin/")


def test_the_list_has_the_newest_first_page_by_page(root: Client, worker: Worker) -> None:
    made = [root_of(chain(add.s(number, 1), add.s(5)).apply_async()) for number in range(members.PAGE + 2)]
    add.delay(1, 2)  # stands alone
    worker.step()
    page = read(root, list_url("workflow"))
    assert re.findall(r'<span class="djt-id">([^<]+)</span>', page) == made[::-1][: members.PAGE]
    older = re.search(r'<a href="(\?older=[^"]+)" rel="next">', page)
    assert older is not None
    rest = read(root, list_url("workflow") + older[1])
    assert re.findall(r'<span class="djt-id">([^<]+)</span>', rest) == made[:2][::-1]
    assert "✔ 1" in text_of(rest)
    assert 'rel="next"' not in rest


def test_it_is_fetched_again_only_when_it_changed(root: Client, worker: Worker) -> None:
    result = chain(add.s(1, 1), add.s(5)).apply_async()
    url = f"{url_of(root_of(result))}?fragment=1"
    worker.drain()
    answer = root.get(url)
    assert "<html" not in answer.content.decode()
    assert root.get(url, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    operations.retry([result.id])
    assert root.get(url, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 200


def test_nobody_else_sees_it_and_what_is_no_workflow_is_not_found(browser: Browser, worker: Worker) -> None:
    result = chain(add.s(1, 1), add.s(5)).apply_async()
    assert browser("view_task").get(url_of(root_of(result))).status_code == 403
    assert browser("view_task", username="b").get(list_url("workflow")).status_code == 403
    sees = browser("view_workflow")
    assert len(nodes_in(read(sees, url_of(root_of(result))))) == 2
    assert sees.get(url_of(ids.new_id())).status_code == 404
    assert sees.get(list_url("workflow") + "?older=" + "x" * 300).status_code == 404


def hides_total(request: Any, rows: Any) -> Any:
    return rows.exclude(name="tests.canvas.jobs.total")


def test_what_is_hidden_is_neither_shown_nor_acted_on(root: Client, worker: Worker) -> None:
    result = chord([add.s(1, 1), add.s(2, 2)])(total.s())
    filtered = {"ADMIN_TASK_FILTER": "tests.cockpit.test_workflows.hides_total"}
    from django.conf import settings

    with override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **filtered}):
        page = read(root, url_of(root_of(result)))
        assert "jobs.total" not in page
        assert len(nodes_in(page)) == 2
        assert order(root, root_of(result), "cancel").status_code == 403
    assert Task.objects.count() == 3


CANARY = '"><img src=x onerror="alert(1)">'


def test_nothing_stored_becomes_markup_and_nothing_odd_breaks_it(root: Client) -> None:
    key = UUID(ids.new_id())
    odd = ['{"node": 5}', "[]", '{"node": {"before": ["after"]}}', '{"node": {"in": 5, "before": ["chord"]}}', "{"]
    saved([finished(name=CANARY, root_id=key, options=one) for one in odd] + [finished("STRANGE", root_id=key)])
    circle = [UUID(ids.new_id()) for _ in range(2)]
    saved(
        finished(id=one, root_id=key, options=json.dumps({"node": {"in": str(other), "before": ["after"]}}))
        for one, other in (circle, circle[::-1])
    )
    saved([waiting(name=CANARY, root_id=key, custom_state=CANARY, state="STARTED")])
    page = read(root, url_of(str(key)))
    assert len(nodes_in(page)) == 9
    assert "<img" not in page
    assert not [name for _tag, attrs in Tags(page).seen for name in attrs if name.startswith("on") or name == "style"]


@override_settings(LANGUAGE_CODE="ar", USE_THOUSAND_SEPARATOR=True)
def test_it_runs_from_right_to_left_where_one_reads_so(root: Client, worker: Worker) -> None:
    result = chain(add.s(1, 1), brittle.s()).apply_async()
    worker.drain()
    page = read(root, url_of(root_of(result)))
    drawn = page[page.index('<svg class="djt-dag"') : page.index("djt-dag-narrow")]
    first, second = (float(x) for x in re.findall(r'<rect class="djt-box[^"]*" x="([\d.]+)"', drawn))
    assert first > second


def test_lines_cross_as_little_as_they_must() -> None:
    parts = [_member(name) for name in ("a", "b", "c", "d")]
    heads = [_member(f"after {one.name}", before=[one]) for one in reversed(parts)]
    shape = dag.shape([*parts, *heads])
    first, second = ([shape.nodes[str(key)].first.name for key in layer] for layer in shape.layers)
    assert [f"after {name}" for name in first] == second


def test_a_line_over_several_layers_has_its_own_place_in_each() -> None:
    first = _member("first")
    middle = _member("middle", before=[first])
    last = _member("last", before=[first, middle])
    shape = dag.shape([last, middle, first])
    assert [len(layer) for layer in shape.layers] == [1, 2, 1]
    assert sorted(map(len, shape.lines())) == [2, 2, 3]


def test_of_a_large_one_only_so_many_nodes_are_drawn() -> None:
    some = [_member(f"task {number}") for number in range(dag.MOST_NODES + 5)]
    shape = dag.shape(some)
    assert (len(shape.nodes), shape.hidden) == (dag.MOST_NODES, 5)
    found = members.Members("", {one.key: one for one in some}, False, {}, {})
    for down in (False, True):
        assert drawing.graph(shape, found, lambda node: node.key, down=down, title="").count("<a ") == dag.MOST_NODES


def _member(name: str, *, before: list[members.Member] | None = None) -> members.Member:
    waits = {one.key: "after" for one in before or ()}
    return members.Member(ids.new_id(), name, "PENDING", "PENDING", None, ago(1), ago(1), None, None, waits)


# What it costs -------------------------------------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql", "mariadb")
def test_it_costs_few_queries_however_large_it_is(root: Client) -> None:
    key = UUID(ids.new_id())
    header = [ids.new_id() for _ in range(500)]
    body = {"in": header, "before": ["chord"], "takes": True}
    last = UUID(ids.new_id())
    saved([waiting(id=last, root_id=key, parent_id=key, state="WAITING", options=json.dumps({"node": body}))])
    Edge.objects.bulk_create(Edge(before_id=one, after_id=last, kind="chord") for one in header)
    saved([finished(id=key, root_id=key), failure(root_id=key), waiting_result(key)])
    read(root, "/admin/django_tasks/health/")  # what is only asked once
    with CaptureQueriesContext(connection) as few:
        page = read(root, url_of(str(key)))
    assert "waits for 500 of 500" in page
    copy(TaskResult, 12_000, {"finished_at": moved("finished_at", "-n / 1000.0")})
    settle()
    with CaptureQueriesContext(connection) as many:
        page = read(root, url_of(str(key)))
    assert len(few) <= 11, [query["sql"][:100] for query in few]
    assert len(many) <= 13, [query["sql"][:100] for query in many]
    text = text_of(page)
    assert "There are more than were counted." in text
    assert "It is too large to be shown as a whole" in text
    assert re.search(r"×1,\d\d\d\+", text)
    assert "waits for 500 of 500" in text
    with CaptureQueriesContext(connection) as listed:
        assert re.search("✔ (299|300)", text_of(read(root, list_url("workflow"))))
    assert len(listed) <= 8


def waiting_result(key: UUID) -> TaskResult:
    """Return the newest row of the ledger, which is copied."""
    return finished(root_id=key, name="tests.canvas.jobs.add")


# What can be done ----------------------------------------------------------------------------------------------------


def test_nothing_is_done_before_somebody_said_yes(root: Client, worker: Worker) -> None:
    result = chain(add.s(1, 1), add.s(5)).apply_async()
    for action in ("retry", "cancel", "again"):
        assert "No, take me back" in order(root, root_of(result), action, sure=False).content.decode()
    assert Task.objects.count() == 2
    assert not TaskResult.objects.exists()


def test_what_failed_runs_again_and_what_waited_for_it_goes_on(root: Client, worker: Worker) -> None:
    broken.add(1)
    result = chord([brittle.s(number) for number in range(3)])(total.s())
    first = root_of(result)
    worker.drain()
    broken.clear()
    answer = order(root, first, "retry")
    assert "1 task runs again." in text_of(answer.content.decode())
    worker.drain()
    assert [AsyncResult(one).get(timeout=0) for one in operations.retried_as(result.id)] == [3]
    assert LogEntry.objects.get(object_id=first).get_change_message() == "1 task runs again."
    assert "1 task runs again." in text_of(read(root, url_of(first)))
    assert "Nothing of it failed" in text_of(order(root, first, "retry").content.decode())


def test_the_rest_is_cancelled(root: Client, worker: Worker) -> None:
    result = chain(add.s(1, 1), add.s(5), add.s(7)).apply_async()
    first = root_of(result)
    worker.step()
    answer = order(root, first, "cancel")
    assert "2 tasks cancelled." in text_of(answer.content.decode())
    assert not Task.objects.exists()
    assert "All of it is done." in text_of(order(root, first, "cancel").content.decode())


def test_more_than_a_browser_waits_for_is_done_in_the_background(root: Client, database: TestDatabase) -> None:
    key = ids.new_id()
    saved([waiting(root_id=UUID(key)) for _ in range(301)])
    saved([failure(root_id=UUID(key)) for _ in range(301)])
    for action in ("cancel", "retry"):
        answer = order(root, key, action)
        operation = BulkOperation.objects.get(action=action)
        assert answer.redirect_chain[-1][0] == page_url("bulkoperation", operation.pk)
        assert operation.total == 301


def test_the_whole_is_sent_again_with_new_ids(root: Client, worker: Worker) -> None:
    broken.add(2)
    result = (chord([brittle.s(number) | add.s(10) for number in range(3)], total.s()) | add.s(100)).apply_async()
    first = root_of(result)
    worker.drain()
    broken.clear()
    order(root, first, "retry")
    worker.drain()
    answer = order(root, first, "again")
    new = answer.redirect_chain[-1][0].split("/")[-3]
    assert new != first
    page = answer.content.decode()
    assert len(nodes_in(page)) == 8
    old = set(TaskResult.objects.values_list("pk", flat=True))
    worker.drain()
    rows = TaskResult.objects.filter(root_id=new)
    assert rows.count() == 8
    assert not old & set(rows.values_list("pk", flat=True))
    assert sorted(json.loads(row.result or "") for row in rows) == [0, 1, 2, 10, 11, 12, 33, 133]
    assert not Task.objects.exists()
    assert {str(row.option_values["group"][0]) for row in rows if "group" in row.option_values}.isdisjoint(
        row.option_values["group"][0]
        for row in TaskResult.objects.filter(root_id=first)
        if "group" in row.option_values
    )


def test_what_is_not_done_or_not_whole_is_not_sent_again(root: Client, worker: Worker) -> None:
    result = chain(add.s(1, 1), add.s(5), add.s(7)).apply_async()
    first = root_of(result)
    worker.step()
    assert "Not sent again: it is not done." in text_of(order(root, first, "again").content.decode())
    worker.drain()
    for gone in ({"pk": result.id}, {"pk": result.parent.id}, {"pk": first}):
        rows = TaskResult.objects.filter(**gone)
        kept = rows.get()
        rows.delete()
        said = text_of(order(root, first, "again").content.decode())
        assert "Not sent again:" in said
        assert "gone" in said
        kept.save(force_insert=True)
    with pytest.raises(ValueError, match="sent alone"):
        operations.rerun_workflow(sent_alone(worker))
    assert not Task.objects.exists()


def sent_alone(worker: Worker) -> str:
    sent: str = sender.delay().id
    worker.drain()
    return sent


@pytest.mark.parametrize(
    ("action", "permission"), [("retry", "retry_taskresult"), ("cancel", "cancel_task"), ("again", "retry_taskresult")]
)
def test_each_needs_its_permission(browser: Browser, worker: Worker, action: str, permission: str) -> None:
    result = chain(add.s(1, 1), add.s(5)).apply_async()
    first = root_of(result)
    may, may_not = browser("view_workflow", permission), browser("view_workflow")
    assert order(may_not, first, action).status_code == 403
    assert f'value="{action}"' not in read(may_not, url_of(first))
    assert f'value="{action}"' in read(may, url_of(first))
    assert order(may, first, action).status_code in (200, 404)
    assert order(may, first, "nonsense").status_code == 403


def test_whoever_only_looks_is_offered_nothing(root: Client, worker: Worker) -> None:
    from django.conf import settings

    result = chain(add.s(1, 1), add.s(5)).apply_async()
    with override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": True}):
        assert 'name="action"' not in read(root, url_of(root_of(result)))
        assert order(root, root_of(result), "cancel").status_code == 403
