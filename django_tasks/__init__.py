"""Background tasks for Django: tasks, results and schedules as models, Celery's API, no services to install.

This module only hands names on. Declaring a task touches no model, backend or server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

#: Tells our package from PyPI's ``django-tasks``, which installs the same import name (see :mod:`django_tasks.clash`).
__distribution__ = "django-workbeat"
__version__ = "0.1.0"

if TYPE_CHECKING:
    from .registry import register_task, tasks
    from .result import AsyncResult, EagerResult
    from .task import Task, current_task, send_task, shared_task

_HOMES = {
    "AsyncResult": "result",
    "EagerResult": "result",
    "Task": "task",
    "current_task": "task",
    "register_task": "registry",
    "send_task": "task",
    "shared_task": "task",
    "tasks": "registry",
}

__all__ = [
    "AsyncResult",
    "EagerResult",
    "Task",
    "current_task",
    "register_task",
    "send_task",
    "shared_task",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
