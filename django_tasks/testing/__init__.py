"""A test kit for projects that use this package: look at what was sent, and run it in the test's own process.

This module only hands names on, so that it may be imported before Django is set up, by a ``conftest.py`` for example.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asserting import assert_enqueued, assert_not_enqueued, enqueued
    from .eager import eager_tasks
    from .mixin import TasksMixin
    from .running import Summary, perform_task, run_tasks
    from .sent import SentTask, captured_tasks
    from .workers import WorkerProcess, worker

_HOMES = {
    "SentTask": "sent",
    "Summary": "running",
    "TasksMixin": "mixin",
    "WorkerProcess": "workers",
    "assert_enqueued": "asserting",
    "assert_not_enqueued": "asserting",
    "captured_tasks": "sent",
    "eager_tasks": "eager",
    "enqueued": "asserting",
    "perform_task": "running",
    "run_tasks": "running",
    "worker": "workers",
}

__all__ = [
    "SentTask",
    "Summary",
    "TasksMixin",
    "WorkerProcess",
    "assert_enqueued",
    "assert_not_enqueued",
    "captured_tasks",
    "eager_tasks",
    "enqueued",
    "perform_task",
    "run_tasks",
    "worker",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
