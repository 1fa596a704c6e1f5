"""Fixtures of the tests of workflows: two ways of running them, which must come to the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.api.conftest import MODES, Runner
from tests.canvas import jobs
from tests.databases import TestDatabase


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", MODES, indirect=True)


@pytest.fixture
def run(request: pytest.FixtureRequest, database: TestDatabase) -> Iterator[Runner]:
    """Give what runs tasks, once in each way."""
    with ExitStack() as stack:
        yield Runner(request.param, stack)


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    """Begin with an empty notebook."""
    jobs.notes.clear()
