"""Which task this thread, or this coroutine, is running."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

#: The request of the task that runs here, with ``id`` and ``task`` (its name); ``None`` outside a task.
#: The executor sets it around the task's body and resets it by its token.
current_request: ContextVar[Any | None] = ContextVar("django_tasks_current_request", default=None)


def current_task_ids() -> tuple[str, str] | None:
    """Return ``(task_id, task_name)`` of the task that runs here; ``None`` outside, or if it is called directly."""
    request = current_request.get()
    if request is None or request.id is None:
        return None
    return str(request.id), str(request.task)
