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
    from .canvas import (
        Signature,
        StampingVisitor,
        batch,
        chain,
        chord,
        chunks,
        dag,
        group,
        maybe_signature,
        signature,
        subtask,
        xmap,
        xstarmap,
    )
    from .context_hooks import register_context
    from .declaring import shared_task
    from .registry import register_task, tasks
    from .result import AsyncResult, EagerResult, GroupResult, ResultSet
    from .task import Task, current_task, send_task

_HOMES = {
    "AsyncResult": "result",
    "EagerResult": "result",
    "GroupResult": "result",
    "ResultSet": "result",
    "Signature": "canvas",
    "StampingVisitor": "canvas",
    "Task": "task",
    "batch": "canvas",
    "chain": "canvas",
    "chord": "canvas",
    "chunks": "canvas",
    "current_task": "task",
    "dag": "canvas",
    "group": "canvas",
    "maybe_signature": "canvas",
    "register_context": "context_hooks",
    "register_task": "registry",
    "send_task": "task",
    "shared_task": "declaring",
    "signature": "canvas",
    "subtask": "canvas",
    "tasks": "registry",
    "xmap": "canvas",
    "xstarmap": "canvas",
}

__all__ = [
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultSet",
    "Signature",
    "StampingVisitor",
    "Task",
    "batch",
    "chain",
    "chord",
    "chunks",
    "current_task",
    "dag",
    "group",
    "maybe_signature",
    "register_context",
    "register_task",
    "send_task",
    "shared_task",
    "signature",
    "subtask",
    "tasks",
    "xmap",
    "xstarmap",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
