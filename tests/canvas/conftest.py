"""Fixtures of the tests of workflows: two ways of running them, which must come to the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from django_tasks.backends import get_broker
from django_tasks.models import Edge, Task
from tests.api.conftest import MODES, Runner
from tests.canvas import jobs
from tests.databases import TestDatabase


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", MODES, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What carries the tasks of others makes no difference in the caller: one kind is enough."""

    def is_repetition(item: pytest.Item) -> bool:
        params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
        return params.get("run") == "eager" and params.get("database", "sqlite") != "sqlite"

    items[:] = [item for item in items if not is_repetition(item)]


@pytest.fixture
def run(request: pytest.FixtureRequest, database: TestDatabase) -> Iterator[Runner]:
    """Give what runs tasks, once in each way."""
    with ExitStack() as stack:
        yield Runner(request.param, stack)


def assert_nothing_is_left() -> None:
    """No task waits, and once the workers have tidied up, no edge is there."""
    assert not Task.objects.exists(), "something is left waiting"
    while Edge.objects.exists():
        before = Edge.objects.count()
        get_broker().unblock()
        assert Edge.objects.count() < before, "something is left over"


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    """Begin with an empty notebook."""
    jobs.notes.clear()
