"""``eager_tasks``: eager mode for a block, a function or a class."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import SimpleTestCase, override_settings

from django_tasks.conf import settings
from django_tasks.testing import eager_tasks
from tests.testing import jobs
from tests.testing.jobs import Shortage

# Eager mode touches no database, and pytest-django refuses every query here.


def test_a_block_is_eager_and_raises_what_tasks_raise() -> None:
    assert not settings.TASK_ALWAYS_EAGER
    with eager_tasks():
        assert jobs.price.delay(3, each=2).get() == 6
        with pytest.raises(Shortage):
            jobs.fail.delay("flour")
        assert jobs.order.delay("flour", tries=2).get() == "flour ordered"
    assert (settings.TASK_ALWAYS_EAGER, settings.TASK_EAGER_PROPAGATES) == (False, False)


def test_exceptions_stay_in_the_result_if_the_test_says_so() -> None:
    with override_settings(DJANGO_TASKS={"TASK_EAGER_PROPAGATES": True}), eager_tasks(propagate=False):
        assert jobs.fail.delay("flour").state == "FAILURE"


def test_the_other_settings_stay_whatever_their_case() -> None:
    before = {"task_always_eager": False, "task_default_queue": "slow", "Task_Eager_Propagates": False}
    with override_settings(DJANGO_TASKS=before), eager_tasks():
        assert jobs.price.delay(1).queue == "slow"
    with override_settings(DJANGO_TASKS=None), eager_tasks():
        assert jobs.price.delay(1).get() == 1
    with override_settings():
        del django_settings.DJANGO_TASKS
        with eager_tasks():
            assert jobs.price.delay(1).get() == 1


def test_functions_are_decorated_also_asynchronous_ones_and_those_that_call_themselves() -> None:
    @eager_tasks()
    def count_down(number: int) -> list[Any]:
        return [jobs.price.delay(number).get(), *(count_down(number - 1) if number else [])]

    @eager_tasks()
    async def asynchronous() -> Any:
        return (await jobs.price.adelay(5)).get()

    assert count_down(2) == [2, 1, 0]
    assert asyncio.run(asynchronous()) == 5
    assert not settings.TASK_ALWAYS_EAGER


def test_all_tests_of_a_class_are_eager() -> None:
    @eager_tasks(propagate=False)
    class PriceTests(SimpleTestCase):
        def setUp(self) -> None:
            self.result = jobs.price.delay(2)

        def test_price(self) -> None:
            assert self.result.get() == 2

        def test_failure(self) -> None:
            assert jobs.fail.delay("flour").state == "FAILURE"

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(PriceTests).run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])
    assert not settings.TASK_ALWAYS_EAGER
