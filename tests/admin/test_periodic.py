"""Periodic tasks in the admin: one page to make, check, preview and run them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import translation

from django_tasks import shared_task, task_names
from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues, WorkerInfo
from django_tasks.beat.engine import run_now
from django_tasks.beat.sync import sync
from django_tasks.dashboard import database_now
from django_tasks.models import Beat, CrontabSchedule, PeriodicRun, PeriodicTask, Task
from django_tasks.models import Worker as WorkerRow
from django_tasks.registry import tasks
from django_tasks.schedules import cron, crontab, schedule
from tests.admin.conftest import Browser
from tests.admin.pages import Tags, list_url, page_url, read, text_of
from tests.beat.test_sync import declared
from tests.databases import TestDatabase
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite")

ADD = "/admin/django_tasks/periodictask/add/"
FORM = {
    "name": "Sweep", "task": "tests.app.tasks.add", "enabled": "on", "args": "[1]", "kwargs": '{"y": 2}',
    "kind": "interval", "every": "10", "period": "minutes", "minute": "*", "hour": "*", "day_of_month": "*",
    "month_of_year": "*", "day_of_week": "*", "zone": "Europe/Berlin", "missed": "once", "missed_limit": "10",
    "overlap": "skip", "jitter": "0", "headers": "{}", "_save": "Save",
}  # fmt: skip


def row(given: Any = 60, **columns: Any) -> PeriodicTask:
    found = PeriodicTask(**{"name": "Sweep", "task": "tests.app.tasks.add", "args": "[1]", **columns})
    found.set_schedule(given)
    found.save()
    return found


def form_of(found: PeriodicTask, client: Client) -> dict[str, Any]:
    """Return what the page's form would send as it stands."""
    fields = client.get(page_url("periodictask", found.pk)).context["adminform"].form
    values: dict[str, Any] = {}
    for bound in fields:
        value = bound.value()
        widgets = bound.subwidgets if bound.name in ("clocked_time", "start_time", "end_time", "expires") else []
        if widgets:
            continue
        if value is not None and value is not False:
            values[bound.html_name] = "on" if value is True else value
    return {**values, "_save": "Save"}


def errors(response: Any) -> dict[str, str]:
    """Return what is wrong with which field."""
    assert response.status_code == 200
    return {name: " ".join(texts) for name, texts in response.context["adminform"].form.errors.items()}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, schedule(600)),
        ({"relative": "on"}, schedule(600, relative=True)),
        ({"kind": "crontab", "minute": "30", "hour": "2"}, crontab(30, 2, tz="Europe/Berlin")),
        ({"kind": "cron", "line": "0 0 L * *"}, cron("0 0 L * *", tz="Europe/Berlin")),
        ({"kind": "clocked", "clocked_time_0": "2040-01-01", "clocked_time_1": "12:00:00"}, None),
        ({"kind": "solar", "event": "sunset", "latitude": "52.52", "longitude": "13.405"}, None),
    ],
)
def test_a_row_is_made_on_one_page_with_each_kind_of_schedule(
    root: Client, fields: dict[str, str], wanted: Any
) -> None:
    response = root.post(ADD, {**FORM, **fields})
    assert response.status_code == 302, errors(response)
    found = PeriodicTask.objects.get()
    assert (found.name, found.arguments(), found.overlap, found.origin) == ("Sweep", ([1], {"y": 2}), "skip", "admin")
    assert found.next_run_at is not None
    if wanted is not None:
        moment = database_now()
        assert found.schedule.next_after(moment) == wanted.next_after(moment)


def test_a_row_is_changed_on_the_same_page(root: Client) -> None:
    found = row(crontab(0, 3, tz="Asia/Tokyo"), queue="slow", start_time=database_now())
    form = form_of(found, root)
    assert (form["kind"], form["hour"], form["zone"], form["queue"]) == ("crontab", "3", "Asia/Tokyo", "slow")
    response = root.post(page_url("periodictask", found.pk), {**form, "hour": "4"})
    assert response.status_code == 302, errors(response)
    found.refresh_from_db()
    assert str(found.schedule) == "0 4 * * * (Asia/Tokyo)"
    assert CrontabSchedule.objects.count() == 2  # others may share the first one


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"kind": "crontab", "day_of_month": "31", "month_of_year": "2"}, "day_of_month", "there is no such day"),
        ({"kind": "crontab", "minute": "*/0"}, "minute", "*/0"),
        ({"kind": "cron", "line": "every day"}, "line", "fields in it: 2"),
        ({"kind": "crontab", "zone": "Mars/Olympus"}, "zone", "Mars/Olympus"),
        ({"every": "-5"}, "every", "every is -5; allowed: a whole number from 1"),
        ({"every": ""}, "every", "required"),
        ({"task": ""}, "task", "required"),
        ({"task": "tests.app.tasks.nop"}, "task", "Did you mean tests.app.tasks.noop?"),
        ({"task": "", "other_task": "x" * 201}, "other_task", "at most 200 characters"),
        ({"task": "x" * 201, "keep_unknown": "x" * 201}, "task", "at most 200 characters"),
        ({"task": "x\0y", "keep_unknown": "x\0y"}, "task", "Null characters are not allowed"),
        ({"args": f'["{"x" * 1_100_000}"]'}, "kwargs", "DJANGO_TASKS['PAYLOAD_LIMIT'] allows"),
        ({"args": "[1,\n 2"}, "args", "args is no JSON, line 2, column 3"),
        ({"args": '{"x": 1}'}, "args", "allowed: a JSON list"),
        ({"args": "[1, 2, 3]", "kwargs": "{}"}, "args", "too many positional arguments"),
        ({"kwargs": '{"z": 1}'}, "kwargs", "unexpected keyword argument 'z'"),
        ({"headers": "[]"}, "headers", "allowed: a JSON object"),
        ({"queue": "no such"}, "queue", "no such"),
        ({"time_limit": "1", "soft_time_limit": "2"}, "soft_time_limit", "at most time_limit"),
        ({"kind": "clocked"}, "clocked_time", "required"),
        ({"priority": "1000"}, "priority", "100"),
        ({"expire_seconds": "5", "expires_0": "2040-01-01", "expires_1": "12:00"}, "__all__", "Only one can be set"),
    ],
)
def test_what_cannot_be_kept_is_told_in_one_sentence_and_stores_nothing(
    root: Client, fields: dict[str, str], field: str, words: str
) -> None:
    found = errors(root.post(ADD, {**FORM, **fields}))
    assert set(found) == {field}
    assert words in found[field]
    assert not PeriodicTask.objects.exists()


ELSEWHERE = "forecasts.tasks.train"


def started(*names: str, tells: bool = True) -> None:
    """Start the lease of a worker that knows these tasks, and those of this process."""
    told = task_names.declare([*tasks, *names]) if tells else None
    get_broker().register(WorkerInfo("gpu@h", "h", 1, "prefork", 2, Queues(), "1", 3600.0, told))


def test_what_only_workers_know_can_be_chosen(root: Client) -> None:
    started(ELSEWHERE)
    choices = dict(root.get(ADD).context["adminform"].form.fields["task"].widget.choices)
    assert choices["known to workers only: gpu@h"] == [(ELSEWHERE, ELSEWHERE)]
    assert ("tests.app.tasks.add", "tests.app.tasks.add") in choices["tests.app.tasks"]
    told = f"Only workers know {ELSEWHERE} (gpu@h): whether the arguments fit is not checked here."
    form = {**FORM, "task": ELSEWHERE, "args": '[{"epochs": 3}]', "queue": "gpu"}
    preview = root.post(ADD, {**form, "_preview": "1"}).context["preview"]
    assert preview.warnings == [told]
    text = text_of(root.post(ADD, form, follow=True).content.decode())
    assert told in text
    assert re.search(r"train\s+known to workers only", text)
    assert f"⚠ {ELSEWHERE}" not in text
    found = PeriodicTask.objects.get()
    assert (found.task, found.queue, found.arguments()) == (ELSEWHERE, "gpu", ([{"epochs": 3}], {"y": 2}))
    assert told in text_of(read(root, page_url("periodictask", found.pk)))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"args": "[1,"}, "args"),
        ({"kwargs": "[]"}, "kwargs"),
        ({"queue": "no such"}, "queue"),
        ({"args": f'["{"x" * 1_100_000}"]'}, "kwargs"),
    ],
)
def test_what_can_be_checked_of_what_only_workers_know_is(root: Client, fields: dict[str, str], field: str) -> None:
    started(ELSEWHERE)
    assert set(errors(root.post(ADD, {**FORM, "task": ELSEWHERE, **fields}))) == {field}


def test_a_name_that_nobody_knows_is_kept_only_after_a_yes(root: Client) -> None:
    started(ELSEWHERE)
    form = {**FORM, "task": "", "other_task": "forecasts.tasks.trian"}
    response = root.post(ADD, form)
    assert errors(response)["other_task"] == (
        "Neither this site nor a running worker says that it knows forecasts.tasks.trian. "
        "Did you mean forecasts.tasks.train?"
    )
    assert not PeriodicTask.objects.exists()
    page = response.content.decode()
    assert "Keep forecasts.tasks.trian although nothing that runs knows it" in text_of(page)
    boxes = [one for tag, one in Tags(page).seen if one.get("name") == "keep_unknown"]
    assert [(one["value"], "checked" in one) for one in boxes] == [("forecasts.tasks.trian", False)]
    # The yes is to that name, and to no other.
    assert "other_task" in errors(root.post(ADD, {**form, "other_task": "x.y", "keep_unknown": boxes[0]["value"]}))
    response = root.post(ADD, {**form, "args": "[1", "keep_unknown": boxes[0]["value"]})
    assert set(errors(response)) == {"args"}
    [box] = [one for tag, one in Tags(response.content.decode()).seen if one.get("name") == "keep_unknown"]
    assert "checked" in box
    response = root.post(ADD, {**form, "keep_unknown": boxes[0]["value"]}, follow=True)
    text = text_of(response.content.decode())
    assert "No running worker says that it knows forecasts.tasks.trian, nor does this site" in text
    assert re.search(r"⚠ forecasts\.tasks\.trian\s+unknown to this site and its workers", text)
    found = PeriodicTask.objects.get()
    assert found.task == "forecasts.tasks.trian"
    # It was said once; a change of something else does not ask again.
    page_of_row = form_of(found, root)
    assert page_of_row["task"] == "forecasts.tasks.trian"
    assert root.post(page_url("periodictask", found.pk), {**page_of_row, "jitter": "5"}).status_code == 302
    # Another name may take its place, whatever is chosen in the list.
    assert root.post(page_url("periodictask", found.pk), {**page_of_row, "other_task": ELSEWHERE}).status_code == 302
    found.refresh_from_db()
    assert found.task == ELSEWHERE


def test_what_was_chosen_while_a_worker_knew_it_is_not_lost_when_that_stops(root: Client) -> None:
    started(ELSEWHERE)
    WorkerRow.objects.update(stopped_at=database_now())
    response = root.post(ADD, {**FORM, "task": ELSEWHERE})
    assert "Neither this site nor a running worker" in errors(response)["task"]
    assert f'<option value="{ELSEWHERE}" selected>' in response.content.decode()
    assert root.post(ADD, {**FORM, "task": ELSEWHERE, "keep_unknown": ELSEWHERE}).status_code == 302


def test_another_name_that_this_site_knows_is_checked_like_any(root: Client) -> None:
    form = {**FORM, "task": "", "other_task": " tests.app.tasks.add "}
    assert "kwargs" in errors(root.post(ADD, {**form, "kwargs": '{"z": 1}'}))
    assert root.post(ADD, form).status_code == 302
    assert PeriodicTask.objects.get().task == "tests.app.tasks.add"


def test_what_is_hidden_is_not_brought_to_light_by_another_name(root: Client) -> None:
    @shared_task(name="tests.periodic.charge", sensitive=["card"])
    def charge(card: str, y: int = 0) -> None: ...

    try:
        found = row(60, name="Nightly", task=charge.name, args='["4111"]')
        shown = form_of(found, root)
        assert "4111" not in shown["args"]
        url = page_url("periodictask", found.pk)
        other = {**shown, "other_task": "x.y", "keep_unknown": "x.y"}
        assert errors(root.post(url, other)) == {
            "args": "What is hidden stays with its task: write it anew for another one."
        }
        assert "args" in errors(root.post(url, {**other, "other_task": "tests.app.tasks.add", "kwargs": '{"y": 1}'}))
        assert root.post(url, {**other, "args": '["5500"]'}).status_code == 302
        found.refresh_from_db()
        assert (found.task, found.args) == ("x.y", '["5500"]')
    finally:
        del tasks[charge.name]


def test_the_history_says_that_the_task_was_changed_whichever_field_names_it(root: Client) -> None:
    found = row(60, name="Nightly")
    change = {**form_of(found, root), "other_task": "tests.app.tasks.add", "args": "[1, 2]"}
    assert root.post(page_url("periodictask", found.pk), change).status_code == 302
    assert LogEntry.objects.get().get_change_message() == "Changed Task and Positional arguments."


def test_beside_a_worker_of_a_release_that_does_not_tell_only_the_site_is_spoken_of(root: Client) -> None:
    started(tells=False)
    row(60, name="Lost", task="shop.gone")
    text = text_of(read(root, list_url("periodictask")))
    assert "unknown to this site" in text
    assert "and its workers" not in text


def test_a_preview_tells_what_would_run_and_stores_nothing(root: Client) -> None:
    form = {**FORM, "kind": "crontab", "minute": "30", "hour": "2", "_preview": "1"}
    del form["_save"]
    response = root.post(ADD, form)
    assert response.status_code == 200
    assert not PeriodicTask.objects.exists()
    preview = response.context["preview"]
    assert preview.words == "At 02:30 (Europe/Berlin)"
    assert len(preview.runs) == 10
    assert all(there.endswith(("02:30:00", "03:00:00")) for there, _, _ in preview.runs)
    assert preview.signature == "tests.app.tasks.add(x: int, y: int = 0) -> int"
    text = text_of(response.content.decode())
    assert "02:30 does not exist in Europe/Berlin, where clocks change: it runs at 03:00." in text
    assert "02:30 occurs twice in Europe/Berlin, where clocks change: it runs once, the first time." in text
    assert 'value="Sweep"' in response.content.decode()  # what was typed stays


def test_a_preview_of_what_is_wrong_tells_what_is_wrong(root: Client) -> None:
    assert "line" in errors(root.post(ADD, {**FORM, "kind": "cron", "line": "x", "_preview": "1"}))


def test_a_preview_warns_of_an_argument_of_another_type_than_the_function_says(root: Client) -> None:
    text = text_of(root.post(ADD, {**FORM, "args": '["one"]', "_preview": "1"}).content.decode())
    assert 'x is "one"; the function says int.' in text
    assert "the function says" not in text_of(root.post(ADD, {**FORM, "_preview": "1"}).content.decode())


def test_a_preview_is_in_the_language_of_its_reader(root: Client) -> None:
    form = {**FORM, "kind": "crontab", "minute": "30", "hour": "2", "day_of_week": "1-5", "_preview": "1"}
    with translation.override("de"):
        text = text_of(root.post(ADD, form).content.decode())
    assert "Montag" in text


def test_what_is_said_in_a_folded_part_of_the_page_is_not_folded_away(root: Client) -> None:
    def folded(found: PeriodicTask) -> list[bool]:
        fieldsets = root.get(page_url("periodictask", found.pk)).context["adminform"].fieldsets
        return [
            "collapse" in options.get("classes", ()) for name, options in fieldsets if name in ("Bounds", "Delivery")
        ]

    assert folded(row()) == [True, True]
    assert folded(row(name="Other", queue="slow")) == [True, False]


def test_a_schedule_that_is_over_is_a_warning(root: Client) -> None:
    form = {**FORM, "end_time_0": "2020-01-01", "end_time_1": "00:00", "_preview": "1"}
    assert "It never runs again as it stands." in root.post(ADD, form).context["preview"].warnings


def test_the_page_of_a_row_shows_its_next_runs_and_what_became_of_the_last(root: Client) -> None:
    found = row(crontab("*/5", tz="UTC"), task="tests.app.tasks.fail", args="[]")
    run_now(found)
    Worker().drain()
    PeriodicRun.objects.create(
        periodic_task=found, scheduled_for=database_now(), created_at=database_now(), skipped="overlap"
    )
    page = read(root, page_url("periodictask", found.pk))
    text = text_of(page)
    assert "Every 5 minutes (UTC)" in text
    assert "FAILURE" in text
    assert "(by hand)" in text
    assert "skipped: an earlier run was not done" in text
    result = PeriodicRun.objects.exclude(task_id=None).get().task_id
    assert page_url("taskresult", result) in page


def test_a_row_that_cannot_be_sent_says_so_in_list_and_page(root: Client) -> None:
    found = row()
    PeriodicTask.objects.update(last_error="ValueError: args is no JSON", next_run_at=None)
    assert "ValueError: args is no JSON" in read(root, list_url("periodictask"))
    assert "args is no JSON" in text_of(read(root, page_url("periodictask", found.pk)))


def test_the_list_tells_schedule_times_and_outcomes_at_a_fixed_cost(
    root: Client, django_assert_num_queries: Any
) -> None:
    for number in range(3):
        run_now(row(crontab(30, 2, tz="Europe/Berlin"), name=f"Row {number}"))
    Worker().drain()
    row(60, name="Lost", task="shop.gone")
    read(root, list_url("periodictask"))
    with django_assert_num_queries(12):
        text = text_of(read(root, list_url("periodictask")))
    for number in range(3, 30):
        run_now(row(crontab(30, 2, tz="Europe/Berlin"), name=f"Row {number}"))
    with django_assert_num_queries(12):
        read(root, list_url("periodictask"))
    assert "At 02:30 (Europe/Berlin)" in text
    assert "✔" in text
    assert "unknown to this site" in text


def test_the_list_tells_whether_a_beat_runs(root: Client) -> None:
    row()
    assert "No beat is online: 1 periodic task will not run." in text_of(read(root, list_url("periodictask")))
    now = database_now()
    about = {"name": "beat@h", "hostname": "h", "pid": 1, "version": "1", "started_at": now}
    Beat.objects.create(**about, seen_at=now - timedelta(seconds=3))
    text = text_of(read(root, list_url("periodictask")))
    assert "No beat is online" not in text
    assert re.search(r"beat@h\s+seen \d+ s ago", text)
    Beat.objects.create(**{**about, "name": "beat@i"}, seen_at=now - timedelta(seconds=90))
    assert re.search(r"beat@i\s+lost, last seen \d+ s ago", text_of(read(root, list_url("periodictask"))))
    PeriodicTask.objects.update(next_run_at=now - timedelta(hours=1))
    assert "1 periodic task is overdue." in text_of(read(root, list_url("periodictask")))


def test_drift_from_the_code_is_shown(root: Client) -> None:
    with declared(Sweep={"schedule": 60, "options": {"queue": "fast"}}):
        sync()
        PeriodicTask.objects.update(queue="slow")
    assert "code, changed" in text_of(read(root, list_url("periodictask")))
    text = text_of(read(root, page_url("periodictask", PeriodicTask.objects.get().pk)))
    assert re.search(r"queue\s+fast\s+slow", text)
    with declared():
        sync()
    assert "gone from the code" in text_of(read(root, list_url("periodictask")))


# Actions


def act(client: Client, action: str, *rows: PeriodicTask) -> None:
    client.post(list_url("periodictask"), {"action": action, "_selected_action": [one.pk for one in rows]})


def test_actions_do_what_they_say_and_are_written_down(root: Client) -> None:
    found = row()
    act(root, "disable_selected", found)
    found.refresh_from_db()
    assert (found.enabled, found.next_run_at) == (False, None)
    act(root, "enable_selected", found)
    found.refresh_from_db()
    assert found.enabled
    planned = found.next_run_at
    assert planned is not None
    act(root, "run_selected", found)
    assert Task.objects.get().name == "tests.app.tasks.add"
    found.refresh_from_db()
    assert found.next_run_at == planned
    act(root, "duplicate_selected", found)
    copy = PeriodicTask.objects.get(name="Sweep (2)")
    assert (copy.enabled, copy.args, copy.interval, copy.total_run_count) == (False, "[1]", found.interval, 0)
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")][:2] == ["Disabled", "Enabled"]


def test_save_and_run_now_does_both(root: Client) -> None:
    form = {key: value for key, value in FORM.items() if key != "_save"}
    assert root.post(ADD, {**form, "_run": "1"}).status_code == 302
    assert PeriodicTask.objects.count() == Task.objects.count() == 1


def test_a_row_that_cannot_be_run_says_why(root: Client) -> None:
    found = row()
    PeriodicTask.objects.update(args="[1, 2, 3]")
    response = root.post(
        list_url("periodictask"), {"action": "run_selected", "_selected_action": [found.pk]}, follow=True
    )
    assert "Sweep cannot be sent" in text_of(response.content.decode())
    assert not Task.objects.exists()


@pytest.mark.parametrize(
    ("permissions", "may"),
    [
        (("view_periodictask",), set()),
        (("view_periodictask", "run_periodictask"), {"run"}),
        (("view_periodictask", "change_periodictask"), {"change"}),
        (("view_periodictask", "add_periodictask"), {"add"}),
        (("view_task",), None),
    ],
)
def test_each_action_has_its_permission(
    database: TestDatabase, browser: Browser, permissions: tuple[str, ...], may: set[str] | None
) -> None:
    client, found = browser(*permissions), row()
    if may is None:
        assert client.get(list_url("periodictask")).status_code == 403
        return
    before = list(PeriodicTask.objects.values())
    act(client, "run_selected", found)
    assert Task.objects.exists() is ("run" in may)
    act(client, "disable_selected", found)
    act(client, "duplicate_selected", found)
    changed = PeriodicTask.objects.filter(pk=found.pk).values().get() != before[0]
    assert (changed, PeriodicTask.objects.count() == 2) == ("change" in may, "add" in may)
    response = client.post(page_url("periodictask", found.pk), {**FORM, "name": "Other", "_run": "1"})
    assert (response.status_code == 302) is ("change" in may)
    assert Task.objects.exists() is ("run" in may)
    text = text_of(read(client, page_url("periodictask", found.pk)))
    assert ("[1]" in text) is ("change" in may)  # arguments are for those who may see payloads, or change them


def test_the_pages_need_no_script_and_no_style_of_their_own(root: Client) -> None:
    found = row(crontab(30, 2))
    for url in (list_url("periodictask"), page_url("periodictask", found.pk), ADD):
        page = Tags(read(root, url))
        for tag, attributes in page.seen:
            assert "style" not in attributes, (url, tag)
            assert not [name for name in attributes if name.startswith("on")], (url, tag)
            assert tag != "script" or attributes.get("src") or attributes.get("type") == "application/json", url


def test_a_second_site_has_the_pages_too(root: Client) -> None:
    assert reverse("admin:django_tasks_periodictask_add") == ADD


def test_values_are_shown_to_those_only_who_may_see_payloads_or_change_them(browser: Browser) -> None:
    looks, reads = browser("view_periodictask"), browser("view_periodictask", "view_payload")
    task = {"task": "tests.app.tasks.add", "schedule": 60}
    with declared(Sweep={**task, "args": [1, 2]}):
        sync()
        error = "ValueError: x is unlit-canary"
        PeriodicTask.objects.update(args='["dark-canary", 2]', headers='{"h": "deep-canary"}', last_error=error)
        page = page_url("periodictask", PeriodicTask.objects.get().pk)
        for url in (page, list_url("periodictask")):
            text = read(looks, url)
            assert "canary" not in text
            assert ("ValueError" in text) == ("ValueError" in read(reads, url))
        assert "str, 11 characters" in read(looks, page)
        for canary in ("dark-canary", "deep-canary", "unlit-canary"):
            assert canary in read(reads, page), canary


def test_nothing_is_changed_while_it_is_read_only(root: Client, settings: Any) -> None:
    found = row()
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_ONLY": True}
    for action in ("enable_selected", "disable_selected", "run_selected", "duplicate_selected", "delete_selected"):
        assert action not in read(root, list_url("periodictask"))
        root.post(list_url("periodictask"), {"action": action, "_selected_action": [found.pk], "post": "yes"})
    page = page_url("periodictask", found.pk)
    assert "Save and run now" not in read(root, page)
    for url in (page, ADD, page.replace("change", "delete")):
        assert root.post(url, {**FORM, "post": "yes", "_run": "1"}).status_code == 403
    assert [one.enabled for one in PeriodicTask.objects.all()] == [True]
    assert not Task.objects.exists()


@pytest.mark.parametrize("args", ["[" * 200_000, "1" * 5_000])
def test_arguments_that_no_parser_reads_are_told(root: Client, args: str) -> None:
    assert "args" in errors(root.post(ADD, {**FORM, "args": args}))


def test_why_a_row_cannot_be_run_quotes_arguments_only_to_who_may_see_them(browser: Browser) -> None:
    declared = run_refusing()
    try:
        found = row(task=declared.name, args="[]", kwargs='{"order": {"id": "canary-1543"}}')
        order = {"action": "run_selected", "_selected_action": str(found.pk), "post": "yes"}
        people = {"anna": (), "ben": ("view_payload",)}
        said = {}
        for name, more in people.items():
            client = browser("view_periodictask", "run_periodictask", *more, username=name)
            said[name] = text_of(client.post(list_url("periodictask"), order, follow=True).content.decode())
            assert "cannot be sent" in said[name]
        assert "canary-1543" not in said["anna"]
        assert "canary-1543" in said["ben"]
    finally:
        tasks.pop(declared.name)
    assert not Task.objects.exists()


def run_refusing() -> Any:
    """Declare a task that says what it was given when it refuses that."""
    pydantic = pytest.importorskip("pydantic")
    order = pydantic.create_model("Order", id=(int, ...))

    def ship(order: Any) -> None:
        pass

    ship.__annotations__["order"] = order
    return shared_task(name="tests.ship", pydantic=True)(ship)
