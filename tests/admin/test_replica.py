"""``ADMIN_READ_DB``: pages that only show read from a replica; what is changed, and by whom, is never behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from django.contrib import admin
from django.core.checks import run_checks
from django.db import close_old_connections, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import include, path

from django_tasks import doctor, states
from django_tasks.backends import close_all, get_broker
from django_tasks.cockpit import overview
from django_tasks.cockpit.showing import COOKIE
from django_tasks.models import Limit, PeriodicTask, Task, TaskResult, TaskTag, Worker
from django_tasks.replica import reads_from
from django_tasks.task_admin.todo import TaskAdmin
from tests.admin.conftest import Browser
from tests.admin.pages import ids_in, list_url, page_url, read, text_of
from tests.admin.test_every_address import addresses, answers, keys
from tests.cockpit.site_rows import a_worker, fill
from tests.databases import KINDS, REDIS, DatabaseMaker, TestDatabase, attached, forget_connections
from tests.eventually import eventually
from tests.rows import UNKNOWN, ago, failure, saved, waiting
from tests.servers import ServerMissing, Standby

__all__ = ["keys"]

MODELS: list[Any] = [
    one for one in apps.get_app_config("django_tasks").get_models() if one._meta.managed and not one._meta.proxy
]
#: The tables of ours in a statement.
OURS = re.compile(rf"\b({'|'.join(one._meta.db_table for one in MODELS)})\b")
#: Pages that must not be behind: forms, what raises alarms, and what tells of the replica.
NEVER_BEHIND = re.compile(r"/(limit|periodictask)/(add/|[^/]+/(change|delete)/)$|/edit/$|/overview/metrics$|/health/$")

EACH_KIND = pytest.mark.databases(*KINDS, REDIS)
SQLITE = pytest.mark.databases("sqlite")


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    overview.forget()


@pytest.fixture
def copy(
    database: TestDatabase, database_maker: DatabaseMaker, tmp_path: Path, settings: Any
) -> Iterator[Callable[[], None]]:
    """Give what makes the replica as the database of the tasks is at that moment; from then on it is behind."""
    directory = tmp_path / "replica"
    directory.mkdir()
    maker = database_maker.of(database.kind)
    url = maker.make(directory)

    def copied() -> None:
        for model in MODELS:
            model._base_manager.using("replica").bulk_create(model._base_manager.using("default").order_by("pk"))

    with ExitStack() as stack:
        stack.callback(maker.remove, url)
        stack.enter_context(attached("replica", url))
        settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_DB": "replica"}
        yield copied


def asked(alias: str, work: Callable[[], Any]) -> list[str]:
    """Return what one database is asked about tables of ours while something is done."""
    with CaptureQueriesContext(connections[alias]) as captured:
        work()
    return [query["sql"] for query in captured.captured_queries if OURS.search(query["sql"])]


@EACH_KIND
def test_pages_that_only_show_ask_the_replica_alone(
    keys: dict[str, Any], root: Client, copy: Callable[[], None]
) -> None:
    PeriodicTask.objects.filter(pk=keys["off"]).update(task=UNKNOWN)  # of which workers are asked
    copy()
    close_all()  # connections that made the rows
    from_replica = 0
    for address in addresses(keys):
        if NEVER_BEHIND.search(address):
            continue
        for url in (address, f"{address}?fragment=1", f"{address}?q=periodic:on+tag:x&older="):
            there: list[str] = []
            here = asked("default", lambda: there.extend(asked("replica", lambda: root.get(url))))  # noqa: B023
            assert here == [], url
            from_replica += bool(there)
    assert from_replica > 60
    assert get_broker().engine.generation == 0  # nor over a connection of our own


@EACH_KIND
def test_forms_and_alarms_ask_the_database_of_the_tasks_alone(
    keys: dict[str, Any], root: Client, copy: Callable[[], None]
) -> None:
    copy()
    never = [address for address in addresses(keys) if NEVER_BEHIND.search(address)]
    assert len(never) == 10
    for address in never:
        there = asked("replica", lambda: root.get(address))  # noqa: B023
        assert len(there) == address.endswith("/health/"), (address, there)


@SQLITE
def test_what_is_posted_reads_and_writes_in_the_database_of_the_tasks(
    keys: dict[str, Any], root: Client, copy: Callable[[], None]
) -> None:
    copy()
    for address in addresses(keys):
        there = asked("replica", lambda: list(answers(root, address, keys)))  # noqa: B023
        assert not there or address.endswith("/health/"), address


@EACH_KIND
def test_the_pages_show_what_the_replica_has(root: Client, copy: Callable[[], None]) -> None:
    fill()
    copy()
    for model in MODELS:
        model._base_manager.using("default").all().delete()
    assert "shop.tasks.send_mail" in text_of(read(root, list_url("overview")))
    assert root.get("/admin/django_tasks/overview/overview.json").json()["workers"]
    for model in ("task", "taskresult", "worker"):
        assert ids_in(read(root, list_url(model))), model
    for page, said in (("queue", "mail"), ("tasktype", "shop.tasks.send_mail"), ("limit", "The disk is full")):
        assert said in text_of(read(root, list_url(page))), page
    assert "Nightly report" in read(root, list_url("periodictask"))
    assert "shop/mail.py" in text_of(read(root, "/admin/django_tasks/taskresult/failures/"))
    task = Task.objects.using("replica").filter(state=states.PENDING)[0]
    assert task.name in text_of(read(root, page_url("task", task.pk)))
    result = TaskResult.objects.using("replica").filter(state=states.FAILURE)[0]
    assert result.name in text_of(read(root, page_url("taskresult", result.pk)))


@EACH_KIND
def test_who_changed_something_sees_it_at_once_and_others_when_it_arrives(
    root: Client, browser: Browser, copy: Callable[[], None]
) -> None:
    [task] = saved([waiting(queue="mail")])
    copy()
    other = browser(is_superuser=True, username="other")
    chosen = {"action": "cancel", "post": "yes", "_selected_action": str(task.pk)}
    answer = root.post(list_url("task"), chosen)
    assert ids_in(read(root, list_url("task"))) == []
    assert ids_in(read(root, list_url("taskresult"))) == [str(task.pk)]
    assert ids_in(read(other, list_url("task"))) == [str(task.pk)]
    assert ids_in(read(other, list_url("taskresult"))) == []
    cookie = answer.cookies[COOKIE]
    assert (cookie["max-age"], cookie["path"], cookie["httponly"], cookie["samesite"]) == (30, "/admin/", True, "Lax")
    del root.cookies[COOKIE]  # as a browser does then
    assert ids_in(read(root, list_url("task"))) == [str(task.pk)]
    copy_of = Task.objects.using("replica")
    copy_of.all().delete()
    assert ids_in(read(other, list_url("task"))) == []


@SQLITE
def test_each_site_has_a_cookie_of_its_own(root: Client, copy: Callable[[], None], settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.admin.two_sites"
    answer = root.post("/operations/django_tasks/queue/mail/change/", {"action": "pause"}, secure=True)
    assert answer.status_code == 302
    assert (answer.cookies[COOKIE]["path"], answer.cookies[COOKIE]["secure"]) == ("/operations/", True)


@SQLITE
def test_who_acts_is_shown_the_overview_of_the_database_of_the_tasks(
    root: Client, browser: Browser, copy: Callable[[], None]
) -> None:
    """What is kept for all who look is kept for each database."""
    copy()
    other = browser(is_superuser=True, username="other")
    root.post("/admin/django_tasks/queue/mail/change/", {"action": "pause"})
    a_worker("w1@here")
    for _ in range(2):
        assert "w1@here" in read(root, list_url("overview"))
        assert "w1@here" not in read(other, list_url("overview"))


@SQLITE
def test_without_the_setting_nobody_gets_a_cookie(root: Client, settings: Any) -> None:
    for alias in (None, "default"):
        settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_DB": alias}
        answer = root.post("/admin/django_tasks/queue/mail/change/", {"action": "pause"})
        assert (answer.status_code, COOKIE in answer.cookies) == (302, False)


def with_tag_mine(request: Any, rows: Any) -> Any:
    return rows.filter(pk__in=TaskTag.objects.filter(tag="mine").values("task_id"))


@EACH_KIND
def test_rows_of_ones_own_are_found_in_the_replica(root: Client, copy: Callable[[], None], settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_TASK_FILTER": f"{__name__}.with_tag_mine"}
    mine, _theirs = saved([waiting(), waiting()])
    TaskTag.objects.create(tag="mine", task_id=mine.pk)
    copy()
    TaskTag.objects.all().delete()
    assert ids_in(read(root, list_url("task"))) == [str(mine.pk)]
    assert root.get(page_url("task", mine.pk)).status_code == 200


@SQLITE
def test_a_form_shows_and_stores_what_is_there_now(root: Client, copy: Callable[[], None]) -> None:
    fill()
    copy()
    row = PeriodicTask.objects.earliest("pk")
    PeriodicTask.objects.filter(pk=row.pk).update(name="Renamed meanwhile")
    Limit.objects.update(rate="7/s")
    assert "Renamed meanwhile" in read(root, page_url("periodictask", row.pk))
    assert "7/s" in read(root, page_url("limit", Limit.objects.get().pk))
    assert "Renamed meanwhile" not in read(root, list_url("periodictask"))


class OwnTasks(TaskAdmin):
    """A list of which a cell asks the database while the page is rendered."""

    @admin.display(description="worker")
    def worker(self, row: Any) -> str:
        return Worker.objects.using(reads_from()).get().name

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(included_view)
        return [path("own/", include([path("included/", view)])), path("later/", later_view), *super().get_urls()]


def included_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(reads_from())


async def later_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(reads_from())


own_site = admin.AdminSite(name="own")
own_site.register(Task, OwnTasks)
urlpatterns = [path("own/", own_site.urls), path("admin/", admin.site.urls)]


@SQLITE
def test_what_is_read_while_a_page_is_rendered_is_of_the_replica(
    root: Client, copy: Callable[[], None], settings: Any
) -> None:
    settings.ROOT_URLCONF = __name__
    saved([waiting()])
    a_worker("w1@then")
    copy()
    Worker.objects.update(name="w1@now")
    assert "w1@then" in read(root, "/own/django_tasks/task/")
    with connections["replica"].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {Worker._meta.db_table} RENAME COLUMN name TO other")
    assert root.get("/own/django_tasks/task/").status_code == 503


@SQLITE
def test_included_and_asynchronous_pages_of_a_project_stay_as_they_are(
    root: Client, copy: Callable[[], None], settings: Any
) -> None:
    settings.ROOT_URLCONF = __name__
    for page in ("own/included", "later"):
        assert read(root, f"/own/django_tasks/task/{page}/") == "default"


# A replica that is away, or behind ------------------------------------------------------------------------------------


@pytest.fixture
def standby(database: TestDatabase, settings: Any) -> Iterator[Standby]:
    """Give a replica that follows the private server of the test."""
    assert database.server is not None
    try:
        server = Standby(database.server)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        parts = urlsplit(database.url)
        stack.enter_context(attached("replica", parts._replace(netloc=urlsplit(server.url).netloc).geturl()))
        settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_DB": "replica"}
        yield server


def of_replica() -> list[doctor.Problem]:
    return [problem for problem in doctor.examine() if problem.check == "replica"]


@pytest.mark.databases("postgresql", private=True)
def test_a_real_replica_serves_the_pages_until_it_is_behind_or_away(
    database: TestDatabase, browser: Browser, root: Client, standby: Standby
) -> None:
    saved([failure(queue="mail")])
    worker = a_worker("w1@web1")
    standby.catch_up()
    urls = [
        list_url(page) for page in ("overview", "task", "taskresult", "worker", "queue", "workflow", "periodictask")
    ]
    assert asked("default", lambda: [read(root, url) for url in urls]) == []
    assert of_replica() == []

    standby.fall_behind()
    Worker.objects.filter(pk=worker.pk).update(beat_at=ago(-60))
    [problem] = of_replica()
    assert re.fullmatch(r"The database 'replica' \(ADMIN_READ_DB\) is 6\d s behind 'default'.", problem.problem)
    assert "behind &#x27;default&#x27;" in read(root, list_url("health"))

    standby.stop()
    reader = browser("view_overview", "view_task", username="reader")
    for url in urls:
        answer = root.get(url)
        assert answer.status_code == 503, url
        said = text_of(answer.content.decode())
        assert "The database 'replica', from which pages of the admin read (ADMIN_READ_DB), cannot be used" in said
        assert f"{standby.port}" in said or "terminating connection" in said or "closed" in said, said
        close_old_connections()  # as Django does between requests
    assert f"{standby.port}" not in text_of(reader.get(list_url("task")).content.decode())
    answer = root.get("/admin/django_tasks/overview/overview.json")
    assert (answer.status_code, "ADMIN_READ_DB" in answer.json()["error"]) == (503, True)
    assert root.get(f"{list_url('overview')}?fragment=1").status_code == 503
    [problem] = of_replica()
    assert (problem.level, "cannot be used" in problem.problem) == ("error", True)
    assert "cannot be used" in text_of(read(root, list_url("health")))

    assert root.post("/admin/django_tasks/queue/mail/change/", {"action": "pause"}).status_code == 302
    assert read(root, list_url("overview"))  # of who has just changed something
    standby.start()
    standby.catch_up()
    close_old_connections()
    assert reader.get(list_url("task")).status_code == 200


@EACH_KIND
def test_an_error_of_the_replica_is_told_whatever_asks(root: Client, copy: Callable[[], None]) -> None:
    """Also one that a transaction has rolled back, and one of the engine's own connection."""
    saved([waiting()])
    copy()
    with connections["replica"].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {Task._meta.db_table} RENAME COLUMN priority TO elsewhere")
    for page in ("queue", "overview", "task"):
        answer = root.get(list_url(page))
        assert (answer.status_code, "priority" in text_of(answer.content.decode())) == (503, True), page


@pytest.mark.databases("postgresql")
def test_a_replica_that_does_not_answer_keeps_nobody_from_acting(
    root: Client, browser: Browser, copy: Callable[[], None]
) -> None:
    copy()
    other = browser(is_superuser=True, username="other")

    def done(work: Callable[[], Any]) -> int:
        try:
            return work().status_code  # type: ignore[no-any-return]
        finally:
            forget_connections()

    with ThreadPoolExecutor() as pool:
        with transaction.atomic(using="replica"), connections["replica"].cursor() as cursor:
            cursor.execute(f"LOCK TABLE {Worker._meta.db_table} IN ACCESS EXCLUSIVE MODE")
            shown = pool.submit(done, lambda: other.get(list_url("overview")))
            waiters = "SELECT 1 FROM pg_locks WHERE NOT granted"
            eventually(lambda: cursor.execute(waiters) or cursor.fetchall())
            pause = {"action": "pause"}
            acted = pool.submit(done, lambda: root.post("/admin/django_tasks/queue/mail/change/", pause))
            assert acted.result(timeout=10) == 302
            assert pool.submit(done, lambda: root.get(list_url("overview"))).result(timeout=10) == 200
            assert not shown.done()
        assert shown.result(timeout=10) == 200


@SQLITE
def test_an_error_of_the_database_of_the_tasks_is_not_laid_at_the_door_of_the_replica(
    root: Client, copy: Callable[[], None]
) -> None:
    copy()
    root.raise_request_exception = False
    with connections["replica"].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TaskResult._meta.db_table} RENAME TO elsewhere")
    with connections["default"].cursor() as cursor:
        cursor.execute("ALTER TABLE django_admin_log RENAME TO elsewhere")
    assert root.get(list_url("taskresult")).status_code == 503
    assert root.get("/admin/django_tasks/queue/mail/change/").status_code == 500


@SQLITE
def test_what_is_no_replica_is_a_problem(database: TestDatabase, copy: Callable[[], None]) -> None:
    a_worker("w1@web1")
    [problem] = of_replica()
    assert problem.problem == "The database 'replica' (ADMIN_READ_DB) has no worker of those in 'default'."
    copy()
    assert of_replica() == []


def test_an_alias_that_is_not_there_is_refused(settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_DB": "elsewhere"}
    [problem] = run_checks(tags=["django_tasks"])
    assert (problem.id, "ADMIN_READ_DB" in problem.msg, "DATABASES has default." in problem.msg) == (
        "django_tasks.E002",
        True,
        True,
    )


@SQLITE
def test_a_database_of_another_kind_is_refused(database: TestDatabase, settings: Any) -> None:
    with attached("replica", "postgresql://postgres@127.0.0.1:1/nowhere"):
        settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "ADMIN_READ_DB": "replica"}
        [problem] = run_checks(tags=["django_tasks"])
    assert problem.id == "django_tasks.E007"
    assert "names 'replica', a postgresql database; tasks are kept in sqlite." in problem.msg
