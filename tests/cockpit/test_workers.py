"""Who may tell workers what to do, and what is said when nobody answers."""

from __future__ import annotations

import html
import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import override_settings

from django_tasks.cockpit.desk import CHANGES, QUESTIONS
from django_tasks.cockpit.workers import ORDERS
from django_tasks.dashboard import database_now, taken
from django_tasks.models import Command, Task, Worker
from tests.admin.conftest import Browser
from tests.admin.pages import page_url, read, text_of
from tests.cockpit.site_rows import a_worker
from tests.databases import TestDatabase
from tests.rows import ago, saved, waiting

pytestmark = pytest.mark.databases("sqlite")

LIST = "/admin/django_tasks/worker/"


def form(action: str, worker: Worker) -> dict[str, object]:
    return {"action": action, "_selected_action": [worker.pk], "post": "yes"}


@pytest.mark.parametrize("action", ORDERS)
def test_orders_are_for_who_may_control_workers(action: str, browser: Browser) -> None:
    worker = a_worker("w1", seen=400.0)
    looks, controls, blind = browser("view_worker"), browser("view_worker", "control_worker"), browser("control_worker")
    assert f'value="{action}"' not in read(looks, LIST)
    assert f'value="{action}"' in read(controls, LIST)
    assert blind.post(LIST, form(action, worker)).status_code == 403
    for client, obeyed in ((looks, False), (controls, True)):
        page = text_of(client.post(LIST, form(action, worker), follow=True).content.decode())
        assert ("None of them is running." in page) == obeyed
    assert not Command.objects.exists()


@override_settings(DJANGO_TASKS={"ADMIN_READ_ONLY": True})
def test_nobody_controls_workers_of_a_site_that_is_only_to_be_read(browser: Browser) -> None:
    a_worker("w1")
    assert "shutdown_selected" not in read(browser(is_superuser=True), LIST)


def test_a_worker_that_does_not_answer_is_named(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tasks.cockpit.workers.PATIENCE", 0.1)
    worker = a_worker("w1")
    client = browser(is_superuser=True)
    page = text_of(client.post(LIST, form("ping_selected", worker), follow=True).content.decode())
    assert "0 of 1 did so" in page
    assert "No answer yet from w1" in page


def test_a_worker_tells_what_it_is_at_and_goes_on_telling(browser: Browser) -> None:
    worker = a_worker("w1", started_at=ago(7200))
    taken = {"state": "STARTED", "worker_id": worker.pk, "attempt": 1}
    meta = json.dumps({"current": 62, "total": 100, "note": "canary"})
    saved(
        [waiting(slot=0, started_at=ago(7515), meta=meta, **taken), waiting(slot=1, **taken), waiting(slot=1, **taken)]
    )
    client = browser("view_worker", "view_task")
    url = page_url("worker", worker.pk)
    page = read(client, url)
    text = " ".join(text_of(page).split())
    for words in ("Busy places 2 / 4, 1 claimed", "Up for 2 h", "2 h 5 min", "62 %"):
        assert words in text, words
    assert '<progress value="62.000000" max="100.000000"' in page
    assert "canary" not in page
    assert 'data-djt-live="?&amp;fragment=1"' in page
    answer = client.get(f"{url}?fragment=1")
    assert "62 %" in answer.content.decode()
    assert "<html" not in answer.content.decode()
    assert browser("view_task").get(f"{url}?fragment=1").status_code == 403
    Worker.objects.update(stopped_at=ago(0))
    Task.objects.all().delete()
    gone = client.get(f"{url}?fragment=1", headers={"If-None-Match": answer.headers["ETag"]}).content.decode()
    assert "stopped" in gone
    assert "Up for" not in gone
    assert "2 / 4" not in gone


def test_the_list_and_the_overview_tell_how_busy_workers_are(browser: Browser) -> None:
    worker = a_worker("w1", started_at=ago(7200))
    taken = {"state": "STARTED", "worker_id": worker.pk, "attempt": 1, "name": "shop.tasks.shrink"}
    saved([waiting(slot=0, started_at=ago(3_600), **taken), waiting(slot=0, **taken), waiting(slot=3, **taken)])
    client = browser("view_worker", "view_overview")
    listed = " ".join(text_of(read(client, LIST)).split())
    assert "online 2 / 4, 1 claimed 2 h" in listed
    overview = " ".join(text_of(read(client, "/admin/django_tasks/overview/")).split())
    assert "online 2 / 4, 1 claimed shop.tasks.shrink 1 h" in overview
    assert "Running 2 of 4 places, 1 claimed" in overview


def test_what_is_lost_or_stopped_and_holds_nothing_is_forgotten(browser: Browser) -> None:
    online, lost, stopped = a_worker("w1"), a_worker("w2", seen=400.0), a_worker("w3", stopped_at=ago(9))
    holds = a_worker("w4", seen=400.0)
    saved([waiting(state="STARTED", worker_id=holds.pk, attempt=1)])
    every = {"action": "forget_selected", "_selected_action": [online.pk, lost.pk, stopped.pk, holds.pk]}
    looks, controls = browser("view_worker"), browser("view_worker", "control_worker")
    assert "forget_selected" not in read(looks, page_url("worker", lost.pk))
    assert "forget_selected" in read(controls, page_url("worker", lost.pk))
    assert "forget_selected" not in read(controls, page_url("worker", online.pk))
    looks.post(LIST, {**every, "post": "yes"})
    question = text_of(controls.post(LIST, every).content.decode())
    assert "Nothing is told of them any more." in question
    assert Worker.objects.count() == 4
    said = text_of(controls.post(LIST, {**every, "post": "yes"}, follow=True).content.decode())
    assert "Forgotten: 2." in said
    assert "Left alone, because they still hold tasks: 1." in said
    assert set(Worker.objects.values_list("name", flat=True)) == {"w1", "w4"}
    every["_selected_action"] = [online.pk]
    assert "None of them is lost or stopped." in text_of(controls.post(LIST, every, follow=True).content.decode())


@pytest.mark.databases("sqlite", "postgresql", "mariadb")
def test_a_worker_that_is_heard_from_meanwhile_is_not_forgotten(database: TestDatabase) -> None:
    lost = a_worker("w1", seen=400.0)
    now = database_now()
    Worker.objects.update(beat_at=now)
    assert not lost.forget(now)
    Worker.objects.update(beat_at=ago(400))
    assert lost.forget(now)


def of_queue_mine(request: Any, rows: Any) -> Any:
    return rows.filter(queue="mine")


def test_a_worker_shows_what_it_has_taken_to_those_who_may_see_tasks(browser: Browser, settings: Any) -> None:
    worker = a_worker("w1")
    taken = {"state": "STARTED", "worker_id": worker.pk, "attempt": 1, "started_at": ago(5)}
    mine, other = saved([waiting(queue="mine", **taken), waiting(**taken)])
    page = page_url("worker", worker.pk)
    blind, sees = browser("view_worker"), browser("view_worker", "view_task")
    assert str(mine.pk) not in read(blind, page)
    assert str(other.pk) in read(sees, page)
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": f"{__name__}.of_queue_mine"}
    text = read(sees, page)
    assert str(mine.pk) in text
    assert str(other.pk) not in text
    overview = read(browser("view_overview", "view_worker"), "/admin/django_tasks/overview/")
    assert mine.name in overview
    for task in Task.objects.all():
        assert str(task.pk) not in overview


@pytest.mark.parametrize(
    ("pool", "by_process", "running", "claimed"),
    [
        ("prefork", [3, 1], 2, 2),
        ("prefork", [1] * 5, 4, 1),  # one that was taken away finishes what it runs
        ("solo", [2], 1, 1),
        ("threads", [3], 3, 0),
        ("asyncio", [9], 4, 5),
        ("prefork+threads", [], 0, 0),
    ],
)
def test_no_worker_runs_more_than_it_has_places(pool: str, by_process: list[int], running: int, claimed: int) -> None:
    """What is claimed behind what runs is told apart."""
    assert taken(Worker(pool=pool, concurrency=1 if pool == "solo" else 4), by_process) == (running, claimed)


# Questions and changes on the page of a worker -----------------------------------------------------------------------


def ask(client: Any, worker: Worker, action: str, **fields: object) -> str:
    """Press a button of the page; return what the page says that follows."""
    address = f"{LIST}{worker.pk}/desk/"
    return " ".join(text_of(client.post(address, {"action": action, **fields}, follow=True).content.decode()).split())


def answering(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    monkeypatch.setattr("django_tasks.cockpit.desk.answers_to", lambda order, names: {names[0]: answer})


def test_whoever_may_control_workers_has_questions_on_the_page_of_one_that_runs(browser: Browser) -> None:
    worker, threads, gone = a_worker("w1"), a_worker("w2", pool="threads"), a_worker("w3", stopped_at=ago(9))
    controls = browser("view_worker", "control_worker")
    page = read(controls, page_url("worker", worker.pk))
    assert all(f'name="action" value="{action}"' in page for action in (*QUESTIONS, *CHANGES))
    assert 'value="autoscale"' not in read(controls, page_url("worker", threads.pk)), "its pool has a fixed size"
    assert 'name="hard"' in read(controls, page_url("worker", threads.pk))
    assert 'name="hard"' not in read(controls, page_url("worker", a_worker("w4", pool="solo").pk)), (
        "nobody could end it"
    )
    assert 'value="stats"' not in read(controls, page_url("worker", gone.pk))
    assert 'value="stats"' not in read(browser("view_worker"), page_url("worker", worker.pk))
    assert "None of them is running." in ask(controls, gone, "stats")
    assert controls.get(f"{LIST}{worker.pk}/desk/").headers["Location"] == page_url("worker", worker.pk)
    assert controls.post(f"{LIST}{worker.pk}/desk/", {"action": "shutdown"}).status_code == 400
    assert not Command.objects.exists()


def test_a_silent_worker_is_said_to_be_silent(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tasks.cockpit.workers.PATIENCE", 0.1)
    worker, client = a_worker("w1"), browser(is_superuser=True)
    assert "It did not answer within 0.1 s" in ask(client, worker, "stats")
    assert "No answer yet from w1" in ask(client, worker, "add_consumer", queue="mail")
    assert "No answer yet from w1" in ask(client, worker, "time_limit", task_name="shop.mail", soft="1.5")
    assert json.loads(Command.objects.order_by("-pk")[0].arguments) == {
        "task_name": "shop.mail", "soft": 1.5, "hard": None,
    }  # fmt: skip
    said = list(LogEntry.objects.order_by("pk").values_list("change_message", flat=True))
    assert said == [
        "Memory, processor time, totals",
        "Consume it, too: Queue mail",
        "Set its time limits: Task shop.mail, Soft time limit, seconds 1.5, Hard time limit, seconds –",
    ]


@pytest.mark.parametrize(
    ("action", "given", "field", "why"),
    [
        ("add_consumer", {"queue": "a b"}, "queue", "queue is 'a b'; allowed"),
        ("autoscale", {"max": "3"}, "min", "This field is required."),
        ("autoscale", {"min": "3", "max": "2"}, "", "At least 3, but at most 2: that cannot be."),
        ("time_limit", {"soft": "2"}, "task_name", "This field is required."),
        ("time_limit", {"task_name": "a" * 256}, "task_name", "at most 255 characters"),
        ("time_limit", {"task_name": "a", "soft": "soon"}, "soft", "Enter a number."),
        ("time_limit", {"task_name": "a", "hard": "0"}, "hard", "greater than or equal to 0.001"),
        ("time_limit", {"task_name": "a", "hard": "1e300"}, "hard", "less than or equal to 31622400"),
        ("time_limit", {"task_name": "a", "hard": "nan"}, "hard", "Enter a number."),
        ("time_limit", {"task_name": "a", "soft": "3", "hard": "2"}, "soft", "At most as long as the hard one."),
    ],
)
def test_what_cannot_be_told_to_a_worker_is_refused_at_its_field_before_it_is_sent(
    action: str, given: dict[str, str], field: str, why: str, browser: Browser
) -> None:
    worker, client = a_worker("w1"), browser(is_superuser=True)
    page = client.post(f"{LIST}{worker.pk}/desk/", {"action": action, **given}).content.decode()
    assert "Nothing was sent to the worker." in page
    near = page.partition(f'name="{field}"')[2].partition("</div>")[0] if field else page
    assert why in html.unescape(near)
    for name, value in given.items():
        assert f'name="{name}" value="{value}"' in page, "it can be corrected"
    assert f'name="action" value="{action}"' in page
    assert not Command.objects.exists()
    assert not LogEntry.objects.exists()


def test_a_worker_of_one_process_is_told_no_hard_limit(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tasks.cockpit.workers.PATIENCE", 0.1)
    worker = a_worker("w1", pool="solo")
    ask(browser(is_superuser=True), worker, "time_limit", task_name="shop.mail", soft="2", hard="3")
    assert json.loads(Command.objects.get().arguments) == {"task_name": "shop.mail", "soft": 2.0}


def test_what_a_worker_tells_is_shown_in_words(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, client = a_worker("w1"), browser(is_superuser=True)
    told = {
        "pid": worker.pid, "uptime": 7200, "clock_skew": -2.5, "prefetch_count": 0, "version": "1.0",
        "total": {"shop.mail": 1200, "shop.pack": 7}, "broker": {"transport": "mysql", "hostname": "db", "port": 1},
        "processes": {"4711": {"memory_kib": 51_200, "cpu_seconds": 3.5}, "4712": None},
        "pool": {"timeouts": [0, 60.0], "max-tasks-per-child": "N/A"}, "autoscaler": {"max": 8, "min": 2},
    }  # fmt: skip
    answering(monkeypatch, told)
    page = ask(client, worker, "stats")
    for words in (
        "4711 50.0 MB 3.5 s", "4712 – –", "Up for 2 h", "Clock 2.5 s ahead of the database's", "Broker mysql db 1",
        "Autoscale 2 – 8", "Time limits, soft and hard –, 60.0 s", "shop.mail 1,200 shop.pack 7",
    ):  # fmt: skip
        assert words in page.replace("\xa0", " "), words
    answering(monkeypatch, {**told, "pid": 1})
    assert "Another process answered" in ask(client, worker, "stats")
    answering(monkeypatch, {"ok": "Process 4711 runs <b>.\n\nThread MainThread:"})
    assert "&lt;b&gt;" in client.post(f"{LIST}{worker.pk}/desk/", {"action": "stacks"}).content.decode()


@pytest.mark.parametrize("answer", [[], "no", {"error": "KeyError('stats')"}, {"total": [], "processes": {"1": "x"}}])
def test_what_a_worker_of_another_release_tells_breaks_no_page(
    answer: object, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, answer)
    worker, client = a_worker("w1"), browser(is_superuser=True)
    for action in QUESTIONS:
        assert "Ask again" in ask(client, worker, action)
