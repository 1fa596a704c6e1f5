"""A furnished site, and a browser to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.browser import served
from tests.browser.rows import furnish
from tests.databases import TestDatabase


@pytest.fixture
def pages(database: TestDatabase) -> dict[str, str]:
    """Give the addresses of pages on which there is something to see.

    Ask for it before the browser: while that runs, this process has other connections to databases.
    """
    if served.CHROMIUM is None:
        pytest.skip("there is no Chromium; `make browser` installs it")
    pytest.importorskip("playwright.sync_api")
    return furnish()


@pytest.fixture
def site_url(database: TestDatabase, pages: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Give the address below which the pages are."""
    with served.served(database, tmp_path, "tests.browser.settings") as url:
        yield url


@pytest.fixture(scope="session")
def shared_chromium() -> Iterator[served.Chromium]:
    """Give the browser of this process; ask for it only where there is a Chromium."""
    with closing(served.Chromium()) as chromium:
        yield chromium


@pytest.fixture
def chromium(site_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a browser in which nobody is logged in."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # Playwright has a loop running in this thread
    shared: served.Chromium = request.getfixturevalue("shared_chromium")  # after ``pages``, which may skip the test
    with shared.at() as browser:
        yield browser
