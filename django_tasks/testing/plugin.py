"""The pytest plugin: the test kit as fixtures. pytest finds it by itself, under the name ``django_tasks``.

Imports nothing of Django before a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .running import Summary
    from .sent import SentTask
    from .workers import WorkerProcess

_MARKER = "tasks_worker(queues=(), concurrency=1, pool=None, imports=(), timeout=60): how the fixture starts its worker"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


def pytest_itemcollected(item: pytest.Item) -> None:
    # pytest-django must know by now: it orders the tests, and looks at marks only.
    uses = "tasks_worker" in getattr(item, "fixturenames", ())
    if uses and item.config.pluginmanager.hasplugin("django") and item.get_closest_marker("django_db") is None:
        item.add_marker(pytest.mark.django_db(transaction=True))


@pytest.fixture
def captured_tasks() -> Iterator[list[SentTask]]:
    """Give the list of what the test sends; nothing runs. See :func:`django_tasks.testing.captured_tasks`."""
    from . import captured_tasks as capture

    with capture() as sent:
        yield sent


@pytest.fixture
def run_tasks() -> Callable[..., Summary]:
    """Give :func:`django_tasks.testing.run_tasks`, which runs what is enqueued in the test's own transaction."""
    from . import run_tasks as run

    return run


@pytest.fixture
def eager_tasks() -> Iterator[None]:
    """Let calls run where they are made during the test, and raise there. See
    :class:`django_tasks.testing.eager_tasks`."""
    from . import eager_tasks as eager

    with eager():
        yield


@pytest.fixture
def tasks_worker(request: pytest.FixtureRequest) -> Iterator[WorkerProcess]:
    """Give a real worker, ready, that ends with the test; ``@pytest.mark.tasks_worker(concurrency=2)`` says how.

    With pytest-django the test is as if marked with ``django_db(transaction=True)``, unless it has the mark itself.
    See :func:`django_tasks.testing.worker`.
    """
    from . import worker

    marker = request.node.get_closest_marker("tasks_worker")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    with worker(**options) as started:
        yield started
