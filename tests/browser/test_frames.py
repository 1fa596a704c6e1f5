"""The pages in the frames of other packages: django-unfold, for which there is an app of ours, and django-jazzmin."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import served
from tests.browser.rows import furnish
from tests.browser.test_names import ask, say_yes
from tests.databases import TestDatabase
from tests.rows import saved, waiting

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.timeout(600)]

FRAMES = ("unfold", "jazzmin")
#: One page of each kind.
LOOKED_AT = (
    "overview",
    "tasks",
    "failed task",
    "failures",
    "new periodic task",
    "task type",
    "queue",
    "workflow",
    "bulk operation",
)


@pytest.fixture(params=FRAMES)
def frame(request: pytest.FixtureRequest) -> str:
    """Give the name of a package that is installed here."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not for this Python")
    return str(request.param)


def visit(database: TestDatabase, frame: str, pages: dict[str, str]) -> dict[str, tuple[int, str]]:
    """Return status and HTML of each page in that frame."""
    environ = {**database.environ(), "DJANGO_SETTINGS_MODULE": f"tests.browser.{frame}_settings"}
    command = [sys.executable, "-m", "tests.browser.visit"]
    done = subprocess.run(
        command, cwd=served.ROOT, env=environ, input=json.dumps(pages), stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, tuple[int, str]] = json.loads(done.stdout)
    return found


def test_each_page_stands_in_another_frame(database: TestDatabase, frame: str) -> None:
    found = visit(database, frame, furnish())
    assert {name: status for name, (status, _page) in found.items() if status != 200} == {}
    sign = {"unfold": "unfold/css/styles.css", "jazzmin": "jazzmin/css/main.css"}[frame]
    assert [name for name, (_status, page) in found.items() if sign not in page] == []
    heading = re.compile(
        {"unfold": r'<h1 class="djt-title">\s*Failures\s*</h1>', "jazzmin": r"<h3[^>]*>\s*Failures\s*</h3>"}[frame]
    )
    assert heading.search(found["failures"][1])
    assert [name for name, (_status, page) in found.items() if "django_tasks/admin.css" not in page] == [
        name for name in found if name == "history of a task"
    ]


def test_what_is_new_in_a_list_is_drawn_as_the_list_is(database: TestDatabase, frame: str) -> None:
    furnish()
    found = visit(database, frame, {"list": "task/", "new": "task/?fragment=1"})
    tables = [re.findall(r"<table[^>]*result_list.*</table>", page, re.DOTALL) for _status, page in found.values()]
    whole, new = ([re.sub(r">[^<]*<", "><", table) for table in each] for each in tables)
    assert len(new) == 1
    assert new == whole


def test_lists_and_forms_are_drawn_by_unfold(database: TestDatabase) -> None:
    if importlib.util.find_spec("unfold") is None:
        pytest.skip("unfold is not for this Python")
    pages = furnish()
    found = visit(database, "unfold", {name: pages[name] for name in ("tasks", "new periodic task", "overview")})
    tasks, periodic, overview = (page for _status, page in found.values())
    assert 'x-model="action"' in tasks, "the choice of an action is not Unfold's"
    assert 'name="select_across"' in tasks, "all that match cannot be chosen"
    assert "django_tasks/unfold.css" in overview
    field = periodic.partition('name="minute"')[2].partition(">")[0]
    assert "rounded-default" in field, "a field that we declare is not drawn by Unfold"
    for page in ("overview", "queue", "health", "worker"):
        assert f'href="/admin/django_tasks/{page}/"' in overview.partition("nav-sidebar-apps")[2], "not in the sidebar"


@pytest.fixture
def looked_at(
    database: TestDatabase,
    pages: dict[str, str],
    frame: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Any, str]]:
    """Give a browser, and the address of the site in that frame."""
    with served.served(database, tmp_path, f"tests.browser.{frame}_settings") as site_url:
        monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        shared: served.Chromium = request.getfixturevalue("shared_chromium")
        with shared.at() as browser:
            yield browser, site_url


def test_no_script_fails_in_another_frame(pages: dict[str, str], frame: str, looked_at: tuple[Any, str]) -> None:
    browser, site_url = looked_at
    page, complaints = served.log_in(browser, site_url)
    for name in LOOKED_AT:
        page.goto(site_url + pages[name])
        served.keep(page, f"{frame} {name}")
    assert not complaints
    saved([waiting(queue="new")])
    page.goto(f"{site_url}task/?queue=new")
    page.select_option("[data-djt-every]", "2")
    saved([waiting(queue="new", name="late.comer")])
    page.get_by_text("late.comer").wait_for()
    page.locator("#action-toggle, .action-toggle").first.check()
    assert page.locator("tr.selected").count() == 2, "what came is not chosen with all"
    assert "2 of 2 selected" in page.inner_text("div.actions")
    assert not complaints


def test_what_is_asked_of_a_name_stands_in_another_frame(
    pages: dict[str, str], frame: str, looked_at: tuple[Any, str]
) -> None:
    browser, site_url = looked_at
    page, complaints = served.log_in(browser, site_url)
    ask(page, site_url, frame)
    say_yes(page, frame)
    assert not complaints
