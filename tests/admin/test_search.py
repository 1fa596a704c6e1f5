"""The search of the lists: what each word finds, what it refuses, and to whom."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from django_tasks import search, states
from django_tasks.models import IntervalSchedule, PeriodicRun, PeriodicTask, Task, TaskResult, TaskTag, Worker
from django_tasks.paging import Bookmark
from django_tasks.search import SearchError, Selection
from tests.admin.conftest import Browser
from tests.admin.pages import ids_in, list_url, read, text_of
from tests.databases import TestDatabase
from tests.rows import KNOWN, UNKNOWN, ago, failure, finished, saved, waiting

ROOT, PARENT = "01930000-0000-7000-8000-000000000001", "01930000-0000-7000-8000-000000000002"


def found(text: str, model: Any = TaskResult, *, full: bool = True, **filters: str) -> set[Any]:
    """Return the ids that a search finds."""
    return set(Selection.of(model, text, filters, full=full).narrow(model.objects.all()).values_list("pk", flat=True))


def test_each_word_finds_its_results(database: TestDatabase) -> None:
    [other] = saved([finished(runtime=0.1)])
    [row] = saved(
        [
            failure(
                name="shop.mail.send",
                queue="mail",
                worker="w1@web",
                priority=-5,
                attempt=4,
                runtime=90.0,
                body='[["welcome", 7],{"order_id":1543,"to":"anna \\"x\\""}]',
                result='{"frame":["shop/mail.py","send",31],"exc_type":"ValueError","text":"lost parcel"}',
                options=json.dumps({"group": ["g-1", 0]}),
                root_id=ROOT,
                parent_id=PARENT,
                due_at=ago(5_000),
                started_at=ago(4_000),
                finished_at=ago(3_900),
            )
        ]
    )
    TaskTag.objects.create(tag="vip", task_id=row.pk)
    schedule = IntervalSchedule.objects.create(every=1, period="days")
    periodic = PeriodicTask.objects.create(name="Nightly report", task=KNOWN, interval=schedule)
    PeriodicRun.objects.create(periodic_task=periodic, scheduled_for=ago(1), created_at=ago(1), task_id=row.pk)
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for text in (
        str(row.pk), f"id:{row.pk}", "shop.", "name:shop.mail.send", "name:shop.*", "name:x,shop.mail.send",
        "queue:mail", "queue:a,mail", "state:failure", "state:FAILURE,REVOKED", "worker:w1@web", "exc:ValueError",
        "exc:Value*", 'at:"shop/mail.py in send"',
        'exc:"ValueError: bo"', "tag:vip", f"root:{ROOT}", f"parent:{PARENT}", "group:g-1", 'periodic:"Nightly report"',
        "prio:-5", "prio:<0", "prio:<=-5", "prio:=-5",
        "prio:>-6 prio:<-4", "try:4", "try:>3", "run:>1m", "run:>=90s", "wait:>10m", "wait:<=1001s wait:>=999",
        f"before:{hour_ago}", "before:1h since:2h", 'args:"welcome"', "args:1543", "kwargs.order_id:1543",
        "result:parcel", 'state:failure queue:mail since:2h "shop.mail"',
    ):  # fmt: skip
        assert found(text) == {row.pk}, text
    for text in (
        "queue:ma",
        "kwargs.order_id:15",
        "kwargs.order_id:543",
        "state:revoked",
        "name:shop",
        "exc:Value",
        'at:"shop/mail.py in sen"',
        'exc:ValueError at:""',
        "try:>4",
    ):
        assert found(text) == set(), text
    assert found("") == {row.pk, other.pk}
    assert found("", state="FAILURE", queue="mail", finished="day") == {row.pk}
    assert found("", name="shop.*") == set(), "a name that is chosen has no wildcard"


def test_each_word_finds_its_tasks(database: TestDatabase) -> None:
    worker = Worker.objects.create(
        name="w1@web", hostname="h", pid=1, pool="solo", concurrency=1, queues="*", version="1", lease=20.0,
        started_at=ago(9), beat_at=ago(1),
    )  # fmt: skip
    saved([waiting()])
    [row] = saved(
        [
            waiting(
                name=UNKNOWN,
                queue="mail",
                state=states.STARTED,
                worker_id=worker.pk,
                created_at=ago(7_200),
                priority=3,
                attempt=2,
                body='[[],{"color":"red"}]',
            )
        ]
    )
    for text in (
        "gone.", "name:gone.*", "queue:mail", "state:started", "worker:w1@web", "prio:>2", "try:2", "before:1h",
        "kwargs.color:red", 'kwargs.color:"red"', "args:red",
    ):  # fmt: skip
        assert found(text, Task) == {row.pk}, text
    assert found("since:1h gone.", Task) == set()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("text", "model", "said"),
    [
        ("colour:red", TaskResult, "There is no colour: to search for; there are: args, at, before"),
        ("kwargs:1", TaskResult, "There is no kwargs:"),
        ("queue.x:1", TaskResult, "There is no queue.x:"),
        ("state:started", TaskResult, "in the list of the tasks"),
        ("state:success", Task, "in the list of the task results"),
        ("state:bogus", TaskResult, "is no state; there are: FAILURE"),
        ("name:a*b", TaskResult, "a * can only stand at the end"),
        ("try:many", TaskResult, "needs a number"),
        ("try:1.5", TaskResult, "needs a whole number"),
        ("since:soon", TaskResult, "needs an age (30m, 2h, 7d)"),
        ("since:999999w", TaskResult, "needs an age"),
        ("since:0001-01-01T00:00+14:00", TaskResult, "needs an age"),
        ("wait:>999999999d", TaskResult, "longer than 95 years"),
        ("run:>999999999d", Task, "longer than 95 years"),
        ("is:nothing", TaskResult, "is:nothing cannot be searched for; there are: is:root, is:child"),
        ("kwargs.db_password:hunter", Task, "is shown to nobody"),
        ("exc:ValueError", Task, "Only task results"),
        ("at:x", Task, "Only task results"),
        ('name:"a', TaskResult, "a quotation mark is missing"),
        ("x" * 300, TaskResult, "255 characters"),
    ],
)
def test_what_cannot_be_searched_for_is_told(database: TestDatabase, text: str, model: Any, said: str) -> None:
    with pytest.raises(SearchError) as error:
        found(text, model)
    assert said in str(error.value)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("language", ["en", "de", "es", "fr"])
def test_the_help_names_each_key_that_a_list_can_be_searched_by(root: Client, language: str) -> None:
    every = {"kwargs.NAME" if key == "kwargs" else key for key in search._CONDITIONS} - {"begins"}
    for model, rows in (("task", Task), ("taskresult", TaskResult)):
        with translation.override(language):
            page = read(root, list_url(model))
        told = keys_in(page.partition('id="searchbar_helptext">')[2])
        fit = {"state": "STARTED" if rows is Task else "SUCCESS", "is": "root", "since": "1h", "before": "1h"}
        for key in told:
            Selection.of(rows, f"{key}:{fit.get(key, '1')}", {}, full=True)
        for key in every - told:
            with pytest.raises(SearchError, match="Only task results"):
                Selection.of(rows, f"{key}:1", {}, full=True)
    assert told == every
    with translation.override(language):
        dialog = read(root, list_url("worker"))
    assert keys_in(dialog.partition('id="djt-keys"')[2]) == every


def keys_in(page: str) -> set[str]:
    """Return the keys that the sentence on the search names, in any language."""
    found = re.search(r":\s((?:[\w.]+ )+[\w.]+)\.\s", text_of(page))
    return set(found[1].split()) if found else set()


@pytest.mark.databases("sqlite")
def test_payloads_are_searched_only_by_those_who_may_see_them(browser: Browser) -> None:
    """Else what is found would tell what is in there."""
    [row] = saved([failure(text="canary")])
    blind = browser("view_taskresult")
    for text in ("args:1", "kwargs.a:1", "result:x", 'exc:"ValueError: c"'):
        page = read(blind, f"{list_url('taskresult')}?q={text}")
        assert "You may not see arguments" in text_of(page)
        assert ids_in(page) == []
    assert ids_in(read(blind, f"{list_url('taskresult')}?q=exc:ValueError")) == [str(row.pk)]


@pytest.mark.databases("sqlite")
def test_a_page_says_what_is_wrong_and_what_was_looked_through(root: Client) -> None:
    [row] = saved([finished(body='[["needle"],{}]')])
    assert "There is no hue:" in text_of(read(root, f"{list_url('taskresult')}?q=hue:1"))
    page = read(root, f"{list_url('taskresult')}?q=args:needle")
    assert "Looked through the newest 100,000 rows." in text_of(page)
    assert ids_in(page) == [str(row.pk)]


@pytest.mark.databases("sqlite")
def test_what_no_index_finds_is_looked_for_in_the_newest_rows(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SCANNED", 2)
    rows = saved(finished(body='[["needle"],{}]') for _ in range(5))
    assert found("args:needle") == {row.pk for row in sorted(rows, key=lambda row: str(row.pk))[-2:]}


@pytest.mark.databases("sqlite")
def test_tabs_say_how_many_there_are_in_each_state(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tasks.changelists.COUNTING", 10.0)
    saved([failure(), failure(), finished()])
    saved([waiting(), waiting(state=states.STARTED, worker_id=1)])
    results = " ".join(
        text_of(read(root, list_url("taskresult")).partition("djt-tabs")[2].partition("</nav>")[0]).split()
    )
    assert "All SUCCESS 1 FAILURE 2 REVOKED 0" in results
    tasks = " ".join(text_of(read(root, list_url("task")).partition("djt-tabs")[2].partition("</nav>")[0]).split())
    assert "PENDING 1 STARTED 1 RETRY 0" in tasks
    assert 'aria-current="page"' in read(root, f"{list_url('taskresult')}?state=FAILURE").partition("djt-tabs")[2]


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    try:
        words = search.parse(text)
    except SearchError:
        return
    assert bool(words) == bool(text.strip())


@given(st.lists(st.text(st.characters(exclude_characters='"\x00', exclude_categories=["Cs"]), min_size=1, max_size=20)))
def test_quoted_words_come_back_as_they_were(values: list[str]) -> None:
    text = " ".join(f'name:"{value}"' for value in values)
    assert [word.value for word in search.parse(text)] == values


def test_a_bookmark_beyond_the_calendar_is_none() -> None:
    with pytest.raises(ValueError, match="is no bookmark"):
        Bookmark.parse("0001-01-01T00:00:00+14:00~x", newer=False)
