"""Fixtures of the tests of the test kit: a test of a project that uses it, as Django's runner would run it."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator

import pytest
from django.test import TestCase

from django_tasks.models import Task, TaskResult
from tests.databases import TestDatabase
from tests.testing import jobs

Body = Callable[[TestCase], None]
In = Callable[[Body], None]


@pytest.fixture(autouse=True)
def _empty_log() -> Iterator[None]:
    jobs.log.clear()
    yield
    jobs.log.clear()


@pytest.fixture
def in_test_case(database: TestDatabase) -> In:
    """Give a decorator that runs a function at once, within a ``TestCase``, which leaves nothing behind."""

    def run(body: Body) -> None:
        class Case(TestCase):
            def test(self) -> None:
                body(self)

        result = unittest.TestResult()
        unittest.TestSuite([Case("test")]).run(result)
        for _, text in [*result.errors, *result.failures]:
            raise AssertionError(text)
        assert result.testsRun == 1
        assert (Task.objects.count(), TaskResult.objects.count()) == (0, 0)

    return run


@pytest.fixture(params=["TestCase", "committed"])
def inside(request: pytest.FixtureRequest, database: TestDatabase, in_test_case: In) -> In:
    """Give a decorator that runs a function at once: within a ``TestCase``, and where everything is committed."""
    if request.param == "TestCase":
        return in_test_case

    def run(body: Body) -> None:
        body(TestCase())

    return run
