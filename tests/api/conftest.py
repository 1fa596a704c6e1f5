"""Fixtures of the tests of the public API: two ways of running tasks, which must come to the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Literal

import pytest
from django.conf import settings
from django.test import override_settings

from django_tasks import AsyncResult, Task
from tests.databases import REDIS, TestDatabase
from tests.inprocess import Worker

MODES = ("eager", "real")


class Runner:
    """Runs tasks to their end: in the caller (``eager``), or by a worker that takes them from the broker (``real``).

    ``settings`` are ``DJANGO_TASKS`` of the rest of the test.
    """

    def __init__(self, mode: Literal["eager", "real"], stack: ExitStack) -> None:
        self.mode = mode
        self._stack = stack
        if mode == "eager":
            self.configure(TASK_ALWAYS_EAGER=True)
        self.worker = Worker()

    @property
    def is_eager(self) -> bool:
        return self.mode == "eager"

    def configure(self, **values: Any) -> None:
        """Set ``DJANGO_TASKS`` for the rest of the test, beside what is set already."""
        self._stack.enter_context(override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **values}))

    def __call__(self, task: Task[..., Any], *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Call the task with these arguments, let it run to its end, however often it is retried."""
        return self.apply(task, args, kwargs)

    def apply(self, task: Task[..., Any], args: Any = None, kwargs: Any = None, **options: Any) -> AsyncResult[Any]:
        """The same, with options of ``apply_async``."""
        result = task.apply_async(args, kwargs, **options)
        self.finish()
        return result

    def finish(self) -> None:
        """Let everything run that was sent."""
        if not self.is_eager:
            self.worker.drain()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", MODES, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what would be run in the caller once more because of a Redis that it does not ask."""

    def is_repetition(item: pytest.Item) -> bool:
        params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
        return params.get("run") == "eager" and params.get("database") == REDIS

    items[:] = [item for item in items if not is_repetition(item)]


@pytest.fixture
def run(request: pytest.FixtureRequest, database: TestDatabase) -> Iterator[Runner]:
    """Give a way to run tasks; the test runs once in eager mode and once in real mode."""
    with ExitStack() as stack:
        yield Runner(request.param, stack)


@pytest.fixture
def worker(database: TestDatabase) -> Worker:
    """Give a worker in the test's own thread, on a fresh database."""
    return Worker()


@pytest.fixture
def configure(database: TestDatabase) -> Iterator[Any]:
    """Give ``configure(**values)``, which sets ``DJANGO_TASKS`` for the rest of the test."""
    with ExitStack() as stack:

        def set_them(**values: Any) -> None:
            stack.enter_context(override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, **values}))

        yield set_them
