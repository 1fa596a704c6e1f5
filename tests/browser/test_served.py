"""What the tests in a browser rest on."""

from __future__ import annotations

import pytest
from django.db import connections

from django_tasks.models import Task
from tests.browser import served
from tests.databases import TestDatabase

pytestmark = pytest.mark.databases("sqlite")


def test_a_browser_leaves_no_connection_behind(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the rows of a later test would go to the database of an earlier one."""
    if served.CHROMIUM is None:
        pytest.skip("there is no Chromium; `make browser` installs it")
    pytest.importorskip("playwright.sync_api")
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    with served.chromium():
        assert not Task.objects.exists()
    with served.chromium():
        assert connections.all(initialized_only=True) == []
