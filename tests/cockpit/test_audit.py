"""Whatever people change leaves a line in the history of the row, and one in the log; and who only looks is told so."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from django_tasks import chain
from django_tasks.display import moment
from django_tasks.models import IntervalSchedule, Limit, PeriodicTask, Task, TaskResult, Worker
from tests.admin.conftest import Browser
from tests.admin.pages import list_url, page_url, read
from tests.cockpit.site_rows import a_worker
from tests.inprocess import Worker as Runner
from tests.rows import KNOWN, ago, failure, saved, waiting

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="django_tasks.admin")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log of the admin says since it was asked last."""
    found = [record.getMessage() for record in log.records if record.name == "django_tasks.admin"]
    log.clear()
    return found


def said() -> list[str]:
    """Return what the history says since it was asked last."""
    found = [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]
    LogEntry.objects.all().delete()
    return found


def act(client: Client, model: str, action: str, pk: Any, **fields: Any) -> None:
    url = list_url(model)
    answer = client.post(url, {"action": action, "_selected_action": [pk], "post": "yes", **fields})
    assert answer.status_code == 302, answer.content.decode()


def a_periodic_task(**fields: Any) -> PeriodicTask:
    schedule, _ = IntervalSchedule.objects.get_or_create(every=10, period="minutes")
    row: PeriodicTask = PeriodicTask.objects.create(name="Sync", task=KNOWN, interval=schedule, args="[1, 2]", **fields)
    return row


def test_periodic_tasks(root: Client, log: pytest.LogCaptureFixture) -> None:
    row = a_periodic_task()
    for action, words in (("disable", "Disabled"), ("enable", "Enabled")):
        act(root, "periodictask", f"{action}_selected", row.pk)
        assert (said(), lines(log)) == ([words], [f"{row}: {words} by nobody"])
    act(root, "periodictask", "run_selected", row.pk)
    sent = Task.objects.get()
    assert (said(), lines(log)) == ([f"Run now as {sent.pk}"], [f"{row}: Run now as {sent.pk} by nobody"])
    act(root, "periodictask", "duplicate_selected", row.pk)
    assert (said(), lines(log)) == (["Copied from Sync"], ["Sync (2): every 10 minutes: Copied from Sync by nobody"])
    root.post(page_url("periodictask", row.pk).replace("change", "delete"), {"post": "yes"})
    assert lines(log) == [f"{row}: Deleted by nobody"]
    assert len(said()) == 1


def test_limits(root: Client, log: pytest.LogCaptureFixture) -> None:
    add = f"{list_url('limit')}add/"
    root.post(add, {"kind": "queue", "name": "mail", "rate": "5/m"})
    limit = Limit.objects.get()
    assert lines(log) == ["queue mail: Added. by nobody"]
    root.post(page_url("limit", limit.pk), {"rate": "9/m"})
    assert lines(log) == ["queue mail: Changed Rate. by nobody"]
    said()
    act(root, "limit", "pause_selected", limit.pk, reason="Why not")
    assert (said(), lines(log)) == (["Paused. Why not"], ["queue mail: Paused. Why not by nobody"])
    act(root, "limit", "resume_selected", limit.pk)
    assert (said(), lines(log)) == (["Resumed."], ["queue mail: Resumed. by nobody"])


def test_workers(root: Client, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tasks.cockpit.workers.PATIENCE", 0.1)
    worker = a_worker("w1")
    act(root, "worker", "quiet_selected", worker.pk)
    assert (said(), lines(log)) == (["Take nothing new"], ["w1: Take nothing new by nobody"])
    Worker.objects.update(beat_at=ago(900))
    act(root, "worker", "forget_selected", worker.pk)
    assert lines(log) == ["w1: Deleted by nobody"]
    assert LogEntry.objects.get().object_id == str(worker.pk)


def test_task_types(root: Client, log: pytest.LogCaptureFixture) -> None:
    root.post(page_url("tasktype", KNOWN), {"action": "pause", "reason": "Why not"})
    assert (said(), lines(log)) == (["Paused. Why not"], [f"{KNOWN}: Paused. Why not by nobody"])


def test_what_is_done_to_a_workflow_is_in_the_history_of_its_tasks(root: Client, log: pytest.LogCaptureFixture) -> None:
    from tests.canvas.jobs import add, boom

    result = chain(boom.s(), add.s(1)).apply_async()
    Runner("default").drain()
    [failed] = TaskResult.objects.filter(name=boom.name)
    root.post(page_url("workflow", failed.root_id), {"action": "retry", "post": "yes"})
    [copy] = Task.objects.exclude(state="WAITING")
    assert f"{failed.pk} Run again as {copy.pk} by nobody" in lines(log)
    assert f"Run again as {copy.pk}" in read(root, page_url("taskresult", failed.pk))
    root.post(page_url("workflow", copy.root_id), {"action": "cancel", "post": "yes"})
    assert f"{copy.pk} Cancelled by nobody" in lines(log)
    assert "Cancelled" in read(root, page_url("taskresult", copy.pk))
    assert result


def test_a_name_with_a_line_break_makes_no_line_of_its_own(root: Client, log: pytest.LogCaptureFixture) -> None:
    row = a_periodic_task()
    PeriodicTask.objects.update(name="Sync\nroot: all deleted by root")
    act(root, "periodictask", "disable_selected", row.pk)
    [line] = lines(log)
    assert "\n" not in line


PAGES = (
    *("overview", "queue", "workflow", "tasktype", "health", "task", "taskresult", "worker", "limit", "periodictask"),
    "bulkoperation",
)


def test_every_page_says_that_it_is_only_to_be_read(root: Client, settings: Any) -> None:
    worker, periodic = a_worker("w1"), a_periodic_task()
    limit = Limit.objects.create(kind="queue", name="mail")
    [done] = saved([failure()])
    [to_do] = saved([waiting(root_id=done.pk)])
    rows = {"queue": "mail", "tasktype": KNOWN, "workflow": done.pk, "taskresult": done.pk, "task": to_do.pk}
    rows |= {"worker": worker.pk, "limit": limit.pk, "periodictask": periodic.pk}
    urls = [list_url(model) for model in PAGES] + [page_url(model, pk) for model, pk in rows.items()]
    urls.append(f"{list_url('taskresult')}failures/")
    for read_only in (False, True):
        settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": read_only}
        for url in urls:
            assert read(root, url).count("These pages are read-only at present.") == read_only, url


def test_a_paused_task_type_says_why_and_until_when(browser: Browser) -> None:
    url = page_url("tasktype", KNOWN)
    looks, sends = browser("view_tasktype"), browser("view_tasktype", "enqueue_task")
    pauses = browser("view_tasktype", "pause_limit")
    for client in (looks, sends):
        assert 'value="pause"' not in read(client, url)
        assert client.post(url, {"action": "pause"}).status_code == 403
    assert pauses.post(url, {"action": "send", "arg-x": "1", "arg-y": "1"}).status_code == 403
    assert "errorlist" in pauses.post(url, {"action": "pause", "minutes": "soon"}).content.decode()
    assert not Limit.objects.exists()
    pauses.post(url, {"action": "pause", "minutes": "10", "reason": "The server is down"})
    limit = Limit.objects.get()
    assert (limit.kind, limit.name, limit.paused_by) == ("task", KNOWN, "view_tasktype-pause_limit")
    page = read(looks, url)
    assert "The server is down" in page
    assert str(moment(limit.paused_until)) in page
    assert 'value="resume"' in read(pauses, url)
    pauses.post(url, {"action": "resume"})
    assert "The server is down" not in read(looks, url).partition("History")[0]
    assert not Limit.objects.exists()
