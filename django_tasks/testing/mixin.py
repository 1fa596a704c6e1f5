"""The test kit as methods of a ``TestCase``."""

from __future__ import annotations

from .asserting import assert_enqueued, assert_not_enqueued, enqueued
from .eager import eager_tasks
from .running import perform_task, run_tasks
from .sent import captured_tasks
from .workers import worker


class TasksMixin:
    """The functions of :mod:`django_tasks.testing` as methods: ``class OrderTests(TasksMixin, TestCase)``.

    They are the same functions; the assertions bear names as ``unittest`` spells them.
    """

    assertEnqueued = staticmethod(assert_enqueued)
    assertNotEnqueued = staticmethod(assert_not_enqueued)
    enqueued = staticmethod(enqueued)
    captured_tasks = staticmethod(captured_tasks)
    eager_tasks = staticmethod(eager_tasks)
    perform_task = staticmethod(perform_task)
    run_tasks = staticmethod(run_tasks)
    worker = staticmethod(worker)
