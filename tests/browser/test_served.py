"""What the tests in a browser rest on."""

from __future__ import annotations

import asyncio

import pytest
from django.db import connections

from django_tasks.models import Task
from tests.browser import served
from tests.databases import TestDatabase

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
def shared(database: TestDatabase, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> served.Chromium:
    """Give the browser of this process."""
    if served.CHROMIUM is None:
        pytest.skip("there is no Chromium; `make browser` installs it")
    pytest.importorskip("playwright.sync_api")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    found: served.Chromium = request.getfixturevalue("shared_chromium")
    return found


def test_a_browser_leaves_no_connection_behind(shared: served.Chromium) -> None:
    """Or the rows of a later test would go to the database of an earlier one."""
    with shared.at():
        assert not Task.objects.exists()
    with shared.at():
        assert connections.all(initialized_only=True) == []


def test_a_browser_leaves_nothing_of_a_test_to_the_next_one(shared: served.Chromium) -> None:
    with shared.at() as browser:
        browser.new_context().new_page().goto("data:text/html,left")
    with shared.at() as browser:
        assert browser.contexts == []


def test_other_tests_have_loops_of_their_own_beside_a_browser(shared: served.Chromium) -> None:
    async def answer() -> int:
        return 42

    with shared.at() as browser:
        browser.new_context().new_page().goto("data:text/html,first")
    assert asyncio.run(answer()) == 42
    with shared.at() as browser:
        page = browser.new_context().new_page()
        page.goto("data:text/html,second")
        assert page.inner_text("body") == "second"


def test_a_browser_that_died_is_started_again(shared: served.Chromium) -> None:
    with shared.at() as browser:
        browser.close()
    with shared.at() as browser:
        browser.new_context().new_page().goto("data:text/html,again")
