"""Fixtures of the broker's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_tasks.backends.base import Broker
from django_tasks.backends.message import Holder
from tests.backends.bench import Bench, DatabaseBench
from tests.backends.calls import a_worker
from tests.databases import TestDatabase

pytest.register_assert_rewrite("tests.backends.promises")


@pytest.fixture
def bench(database: TestDatabase) -> Iterator[Bench]:
    """Give the server under test."""
    bench = DatabaseBench(database.alias)
    yield bench
    bench.close()


@pytest.fixture
def broker(bench: Bench) -> Broker:
    """Give one process's broker."""
    return bench.new_broker()


@pytest.fixture
def holder(broker: Broker) -> Holder:
    """Give one slot of a worker whose lease is fresh."""
    return a_worker(broker)
