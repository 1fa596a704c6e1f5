from __future__ import annotations

import pytest

from tests.beat.clock import OneBeat
from tests.databases import TestDatabase


@pytest.fixture
def beat(database: TestDatabase) -> OneBeat:
    """Give a beat at noon of a Wednesday, on a fresh database."""
    return OneBeat()
