"""The lists: their pages, filters and search, and what they cost."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tasks import changelists, ids, paging, states
from django_tasks.models import TaskResult, Worker
from tests.admin.pages import ids_in, link, list_url, page_url, read, text_of
from tests.databases import TestDatabase
from tests.rows import KNOWN, UNKNOWN, ago, failure, finished, saved, waiting

TASKS, RESULTS = "task", "taskresult"
FINAL = (states.SUCCESS, states.FAILURE, states.REVOKED)


def walk(client: Client, url: str, rel: str = "next") -> list[list[str]]:
    """Return the ids on each page from ``url`` on."""
    base, pages = url.partition("?")[0], []
    while True:
        page = read(client, url)
        pages.append(ids_in(page))
        onward = link(page, rel)
        if onward is None:
            return pages
        url = base + onward


def test_pages_of_the_ledger_hold_every_result_once_last_finished_first(database: TestDatabase, root: Client) -> None:
    same_moment = ago(50)
    rows = saved(
        finished(FINAL[number % 3], number, **({"finished_at": same_moment} if 40 <= number < 190 else {}))
        for number in range(230)
    )
    pages = walk(root, list_url(RESULTS))
    assert [len(page) for page in pages] == [100, 100, 30]
    seen = [one for page in pages for one in page]
    assert sorted(seen) == sorted(str(row.pk) for row in rows)
    moments = {str(row.pk): row.finished_at for row in rows}
    assert [moments[one] for one in seen] == sorted(moments.values(), reverse=True)


def test_the_way_back_shows_the_same_pages(database: TestDatabase, root: Client) -> None:
    saved(finished(seconds_ago=number) for number in range(250))
    there = walk(root, list_url(RESULTS))
    last = read(root, list_url(RESULTS))
    while onward := link(last, "next"):
        last = read(root, list_url(RESULTS) + onward)
    back = walk(root, list_url(RESULTS) + (link(last, "prev") or ""), "prev")
    assert back == there[-2::-1]


@pytest.mark.databases("sqlite")
def test_results_that_arrive_meanwhile_move_no_row_to_another_page(root: Client) -> None:
    saved(finished(seconds_ago=100 + number) for number in range(150))
    first = read(root, list_url(RESULTS))
    saved(finished() for _ in range(20))
    second = read(root, list_url(RESULTS) + (link(first, "next") or ""))
    assert len(ids_in(second)) == 50
    assert not set(ids_in(first)) & set(ids_in(second))


def test_pages_of_the_to_do_list_hold_every_task_once(database: TestDatabase, root: Client) -> None:
    rows = saved(waiting() for _ in range(130))
    pages = walk(root, list_url(TASKS))
    assert [one for page in pages for one in page] == sorted((str(row.pk) for row in rows), reverse=True)


def test_a_filter_narrows_the_ledger_by_state_queue_task_and_time(database: TestDatabase, root: Client) -> None:
    [mail] = saved([failure(queue="mail")])
    [old] = saved([failure(seconds_ago=5_000)])
    [other] = saved([finished(name="tests.app.tasks.noop")])

    def shown(query: str) -> set[str]:
        return set(ids_in(read(root, f"{list_url(RESULTS)}?{query}")))

    assert shown("state=FAILURE") == {str(mail.pk), str(old.pk)}
    assert shown("queue=mail") == {str(mail.pk)}
    assert shown("name=tests.app.tasks.noop") == {str(other.pk)}
    assert shown("finished=hour") == {str(mail.pk), str(other.pk)}
    assert shown(f"state=FAILURE&name={KNOWN}&finished=hour&queue=mail") == {str(mail.pk)}
    assert shown("state=REVOKED") == set()


@pytest.mark.databases("sqlite")
def test_a_filter_narrows_the_to_do_list_by_state_queue_and_task(root: Client) -> None:
    [mail] = saved([waiting(queue="mail")])
    [unknown] = saved([waiting(name=UNKNOWN, state=states.UNROUTABLE)])
    url = list_url(TASKS)
    assert ids_in(read(root, f"{url}?queue=mail")) == [str(mail.pk)]
    assert ids_in(read(root, f"{url}?state=UNROUTABLE")) == [str(unknown.pk)]
    assert ids_in(read(root, f"{url}?name={UNKNOWN}")) == [str(unknown.pk)]
    assert "mail" in text_of(read(root, url)), "a queue in which something waits can be chosen"


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "query",
    ["body__contains=1", "result__startswith=a", "options__icontains=x", "id__in=1", "traceback__regex=a", "pk__gt=0"],
)
def test_nothing_can_be_searched_through_the_address_that_has_no_filter(root: Client, query: str) -> None:
    """S9: a look-up of one's own would be a full scan, and an oracle for payloads that one may not see."""
    for model in (TASKS, RESULTS):
        assert root.get(f"{list_url(model)}?{query}").status_code == 400


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "query",
    [
        "older=x",
        "older=",
        "newer=2026-01-01~1",
        "older=2026-01-01T00:00:00~x",
        "older=a~b~c",
        "state=BOGUS",
        "queue=a%20b",
        "finished=9",
        "name=a%00b",
    ],
)
def test_an_address_that_was_tampered_with_leads_to_the_whole_list(root: Client, query: str) -> None:
    saved([finished()])
    response = root.get(f"{list_url(RESULTS)}?{query}")
    assert (response.status_code, response.headers.get("Location")) == (302, f"{list_url(RESULTS)}?e=1")


@pytest.mark.databases("sqlite")
def test_an_id_in_the_search_field_leads_to_its_task_wherever_it_is(root: Client) -> None:
    [todo], [done] = saved([waiting()]), saved([finished()])
    key = ids.key_of("invoice-7")
    saved([waiting(id=key, custom_id="invoice-7")])
    for start in (TASKS, RESULTS):
        for term, model, pk in ((todo.pk, TASKS, todo.pk), (done.pk, RESULTS, done.pk), ("invoice-7", TASKS, key)):
            response = root.get(list_url(start), {"q": f" {term} "})
            assert response.headers["Location"] == page_url(model, pk)


@pytest.mark.databases("sqlite", "postgresql")
def test_anything_else_in_the_search_field_is_the_beginning_of_a_name(database: TestDatabase, root: Client) -> None:
    saved([finished(), finished(name="tests.app.tasks.noop"), finished(name="tests_app.tasks.add"), failure()])
    [other] = saved([finished(name=UNKNOWN)])
    assert ids_in(read(root, f"{list_url(RESULTS)}?q=gone.")) == [str(other.pk)]
    assert len(ids_in(read(root, f"{list_url(RESULTS)}?q=tests.app."))) == 3
    assert len(ids_in(read(root, f"{list_url(RESULTS)}?q=tests.app.&state=FAILURE"))) == 1
    assert ids_in(read(root, f"{list_url(RESULTS)}?q=nothing%25")) == []
    [todo] = saved([waiting(name=UNKNOWN)])
    assert ids_in(read(root, f"{list_url(TASKS)}?q=gone")) == [str(todo.pk)]


@pytest.mark.databases("sqlite")
def test_a_beginning_that_many_names_share_is_found_too(root: Client) -> None:
    saved(finished(name=f"many.task_{number}", seconds_ago=number) for number in range(120))
    assert [len(page) for page in walk(root, f"{list_url(RESULTS)}?q=many.")] == [100, 20]


@pytest.mark.databases("sqlite")
def test_the_list_says_how_many_there_are_up_to_a_limit(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "COUNT_LIMIT", 150)
    saved(finished(seconds_ago=number) for number in range(120))
    assert "120 task results" in text_of(read(root, list_url(RESULTS)))
    saved(finished(states.FAILURE) for _ in range(60))
    assert "150+ task results" in text_of(read(root, list_url(RESULTS)))
    assert "60 task results" in text_of(read(root, f"{list_url(RESULTS)}?state=FAILURE"))
    assert "100+ task results" in text_of(read(root, f"{list_url(RESULTS)}?queue=default")), (
        "no index serves that count"
    )


@pytest.mark.databases("sqlite")
def test_workers_are_listed_with_their_status(root: Client) -> None:
    about = {"hostname": "h", "pool": "prefork", "concurrency": 2, "queues": "*", "version": "1", "lease": 20.0}
    moments = {"started_at": ago(100), "beat_at": ago(1)}
    Worker.objects.create(name="w1@h", pid=1, **about, **moments)
    Worker.objects.create(name="w2@h", pid=2, **about, **{**moments, "beat_at": ago(90)})
    Worker.objects.create(name="w3@h", pid=3, **about, **moments, stopped_at=ago(1))
    badges = re.findall(r'djt-state djt-\w+">(\w+)<', read(root, list_url("worker")))
    assert badges == ["stopped", "lost", "online"]
    assert "w3@h" not in text_of(read(root, f"{list_url('worker')}?status=running"))


# What it costs --------------------------------------------------------------------------------------------------------


def many_results(count: int = 20_000) -> None:
    """Fill the ledger: eight of ten succeed, one in a thousand was revoked."""
    saved(
        finished(
            states.REVOKED if number % 1000 == 0 else states.FAILURE if number % 5 == 0 else states.SUCCESS,
            number,
            name=f"tests.app.tasks.t{number % 40}",
            queue=("default", "mail", "rare")[(number % 7 == 0) + (number % 5000 == 0)],
        )
        for number in range(count)
    )


ADDRESSES = {
    RESULTS: ["", "?state=FAILURE", "?state=REVOKED", "?queue=mail", "?name=tests.app.tasks.t3", "?finished=hour",
              "?q=tests.app.tasks.t1", "?q=tests.app", "?state=SUCCESS&finished=day&name=tests.app.tasks.t5"],
    TASKS: ["", "?state=PENDING", "?state=STARTED", "?queue=default", f"?name={KNOWN}", "?q=tests"],
    "worker": ["", "?status=running"],
}  # fmt: skip
#: What every page of the admin asks: the session and its user.
BEFORE = 2


@pytest.mark.databases("sqlite")
def test_a_list_costs_few_queries_however_long_it_is(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """S9: no unbounded count, no offset, no payload but small arguments; at most six queries."""
    monkeypatch.setattr(changelists, "QUICKLY", paging.PATIENCE)  # the machine may be busy
    many_results()
    saved(waiting(worker_id=1, state=states.STARTED) if number % 9 == 0 else waiting() for number in range(2_000))
    for model, queries in ADDRESSES.items():
        for query in queries:
            first = read(root, list_url(model) + query)
            for address in (query, link(first, "next") or query):
                with CaptureQueriesContext(connection) as captured:
                    read(root, list_url(model) + address)
                asked = [one["sql"] for one in captured.captured_queries]
                assert len(asked) <= BEFORE + 6, (model, address, asked)
                for sql in asked:
                    assert "OFFSET" not in sql
                    assert "COUNT(" not in sql or "LIMIT 10001" in sql, sql
                    assert not [name for name in ("traceback", "history", "meta", "result") if f'"{name}"' in sql], sql
                    small = re.sub(r'CASE WHEN [^#]*? THEN "\w+"."body" ELSE NULL END', "", sql)
                    assert '"body"' not in re.sub(r'LENGTH\(CAST\("\w+"."body" AS BLOB\)\)', "", small), sql


@pytest.mark.databases("postgresql")
def test_no_page_of_the_ledger_reads_the_whole_table(
    database: TestDatabase, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S9: every query of the list is a walk along an index."""
    monkeypatch.setattr(changelists, "QUICKLY", paging.PATIENCE)  # the machine may be busy
    many_results()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE django_tasks_taskresult")
    for query in ADDRESSES[RESULTS]:
        if query.startswith("?queue"):
            continue  # a walk back in time until a page is full, under a limit of time
        first = read(root, list_url(RESULTS) + query)
        for address in (query, link(first, "next") or query):
            with CaptureQueriesContext(connection) as captured:
                read(root, list_url(RESULTS) + address)
            asked = [one["sql"] for one in captured.captured_queries if "django_tasks_taskresult" in one["sql"]]
            assert asked
            for sql in asked:
                with connection.cursor() as cursor:
                    cursor.execute(f"EXPLAIN {sql}")
                    plan = "\n".join(line for (line,) in cursor.fetchall())
                assert "Seq Scan on django_tasks_taskresult" not in plan, f"{address}\n{sql}\n{plan}"


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("state", "index"),
    [
        ("STARTED", "djt_task_worker"),
        ("RETRY", "djt_task_aside"),
        ("WAITING", "djt_task_aside"),
        ("UNROUTABLE", "djt_task_unroutable"),
    ],
)
def test_states_of_few_tasks_are_found_along_their_index_on_sqlite(root: Client, state: str, index: str) -> None:
    saved(waiting() for _ in range(50))
    with CaptureQueriesContext(connection) as captured:
        read(root, f"{list_url(TASKS)}?state={state}")
    asked = [one["sql"] for one in captured.captured_queries if f"= '{state}'" in one["sql"]]
    assert len(asked) == 2, "the rows, and how many there are in each state"
    for sql in asked:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}".replace("%", "%%"), [])
            assert index in "\n".join(line[-1] for line in cursor.fetchall()), sql


#: Counts to a number that no machine reaches within a second.
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) SELECT COUNT(*) FROM n"


def test_a_query_that_takes_too_long_is_broken_off_and_the_connection_lives(database: TestDatabase) -> None:
    endless = "SELECT SLEEP(20) FROM django_content_type" if database.vendor == "mysql" else ENDLESS
    with (
        pytest.raises(paging.TooSlow),
        paging.time_limit(database.alias, 0.3),
        database.connection.cursor() as cursor,
    ):
        cursor.execute(endless)
    with database.connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone()[0] == 1
        if database.vendor == "postgresql":
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone()[0] == "0", "the limit ends with its block"


@pytest.mark.databases("postgresql")
def test_a_limit_leaves_the_transaction_around_it_as_it_was(database: TestDatabase) -> None:
    """With ATOMIC_REQUESTS the whole page is one."""
    with transaction.atomic(), database.connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '77s'")
        with paging.time_limit(database.alias, 20):
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone()[0] == "20s"
        with pytest.raises(paging.TooSlow), paging.time_limit(database.alias, 0.2):
            cursor.execute("SELECT pg_sleep(20)")
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone()[0] == "77s"


@pytest.mark.databases("sqlite")
def test_an_error_that_is_no_delay_is_not_called_one(database: TestDatabase) -> None:
    with (
        pytest.raises(DatabaseError, match="no such table"),
        paging.time_limit(database.alias, 5),
        database.connection.cursor() as cursor,
    ):
        cursor.execute("SELECT * FROM nowhere")


@pytest.mark.databases("sqlite")
def test_a_list_that_takes_too_long_says_so(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    many_results(5_000)
    monkeypatch.setattr(paging, "_SQLITE_STEPS", 100)
    limit = paging.time_limit
    monkeypatch.setattr(paging, "time_limit", lambda alias, seconds=0.0: limit(alias, 0.0))
    page = text_of(read(root, f"{list_url(RESULTS)}?queue=nowhere"))
    assert "took too long" in page


@pytest.mark.parametrize("newer", [False, True], ids=["older", "newer"])
def test_looks_that_end_early_find_every_row_once(database: TestDatabase, newer: bool) -> None:
    """On every database, and where many rows ended at one moment."""
    same_moment = ago(150)
    rows = saved(
        finished(
            FINAL[number % 3],
            number,
            queue="rare" if number % 13 == 0 else "common",
            **({"finished_at": same_moment} if 100 <= number < 170 else {}),
        )
        for number in range(400)
    )
    keys, every = ("finished_at", "id"), TaskResult.objects.all()
    walks = [every.filter(state=state) for state in FINAL]
    found, cuts = [], 0
    edge = f"{ago(3_600).isoformat()}~{rows[-1].pk}" if newer else None
    while True:
        bookmark = paging.Bookmark.parse(edge, newer=newer) if edge else None
        end = paging.reach(walks, keys, bookmark, rows=15)
        rare = [walk.filter(queue="rare") for walk in walks]
        look = paging.page(every.filter(queue="rare"), keys, bookmark, rare, size=4, end=end)
        if newer and not look.cut and look.newer is None:  # it came to the newest, and shows them as the first page
            break
        found += [row.pk for row in (reversed(look.rows) if newer else look.rows)]
        cuts += look.cut
        edge = look.newer if newer else look.older
        if edge is None:
            break
    assert cuts > 2
    wanted = [row.pk for row in sorted(rows, key=lambda row: (row.finished_at, row.pk)) if row.queue == "rare"]
    if newer:
        assert found == wanted[: len(found)]
        assert len(found) >= len(wanted) - 4
    else:
        assert found == wanted[::-1]


@pytest.mark.databases("sqlite")
def test_what_no_index_finds_is_looked_for_in_some_rows_and_further_when_asked(
    root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    [old] = saved([finished(seconds_ago=900, queue="rare")])
    saved(finished(seconds_ago=number) for number in range(600))
    monkeypatch.setattr(paging, "_SQLITE_STEPS", 100)
    monkeypatch.setattr(paging, "REACH", 200)
    monkeypatch.setattr(changelists, "QUICKLY", 0.0)
    url = list_url(RESULTS)
    page = read(root, f"{url}?queue=rare")
    assert ids_in(page) == []
    assert "200 rows were looked through so far" in text_of(page)
    further = link(page, "next") or ""
    page = read(root, url + further)
    assert ids_in(page) == [str(old.pk)]
    assert "looked through" not in text_of(page)
    whole = read(root, url)
    assert len(ids_in(whole)) == 100
    assert "looked through" not in text_of(whole), "a page that is full needs no more"


@pytest.mark.databases("sqlite")
def test_the_boxes_and_addresses_of_rows_are_their_own(root: Client) -> None:
    rows = saved([waiting(name="tests.app.<b>{0}</b>"), waiting(custom_id="djt0pk", id=ids.key_of("djt0pk"))])
    page = read(root, f"{list_url(TASKS)}?state=PENDING")
    for row in rows:
        assert f'value="{row.pk}"' in page
        assert f'href="{page_url(TASKS, row.pk)}?_changelist_filters=state%3DPENDING"' in page
    assert "tests.app.&lt;b&gt;{0}&lt;/b&gt;" in page


def test_a_moment_read_from_the_ledger_finds_its_row_again(database: TestDatabase) -> None:
    """On SQLite moments are texts, and the engine's clock writes other ones than Python."""
    clocks = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now')", "mysql": "UTC_TIMESTAMP(6)"}
    [row] = saved([finished()])
    clock = clocks.get(database.vendor, "clock_timestamp()")
    with database.connection.cursor() as cursor:
        cursor.execute(f"UPDATE django_tasks_taskresult SET finished_at = {clock}")
    moment = TaskResult.objects.get(pk=row.pk).finished_at
    assert moment.tzinfo is UTC
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert TaskResult.objects.filter(finished_at=moment).exists()
    assert not TaskResult.objects.filter(finished_at__lt=moment).exists()
