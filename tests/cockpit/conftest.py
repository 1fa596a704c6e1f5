"""The cockpit's visitors are those of the admin; what was gathered for one test is not shown in the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_tasks.cockpit import overview
from tests.admin.conftest import _plain_settings, browser, root

__all__ = ["_plain_settings", "browser", "root"]


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    overview.forget()
    yield
    overview.forget()
