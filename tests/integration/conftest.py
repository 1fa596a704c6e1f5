"""The fixture ``site``: a fresh database with real workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import TestDatabase
from tests.integration.site import Site


@pytest.fixture
def site(database: TestDatabase, tmp_path: Path) -> Iterator[Site]:
    """Give a site without workers; those that the test starts end with it."""
    site = Site(database, tmp_path)
    yield site
    site.close()
